"""Predictors over a series: each is the predictor of its member's verdicts, and finished ones are not fitted again."""

import numpy as np
import pyarrow as pa
import pytest

from memtax.pipeline import series_fits as module
from memtax.pipeline.series_fits import fit_series
from memtax.predictor.predictor import Predictor

FACTORS = ("sequence_duplicates", "huffman_coding_length", "is_templating")


def made(rows=900, seed=0):
    rng = np.random.default_rng(seed)
    counts, lengths = rng.integers(0, 9, rows), rng.normal(4, 1, rows)
    odds = {10: -2.5 + 0.5 * counts, 20: -1 + 0.2 * counts - 0.8 * (lengths - 4)}
    table = pa.table(
        {
            "sequence_id": np.arange(rows),
            "document": [f"d{number}" for number in rng.integers(0, 60, rows)],
            "taxonomy": pa.array(rng.choice(3, rows), pa.int64()),
            "sequence_duplicates": counts,
            "huffman_coding_length": lengths,
            "is_incrementing": rng.random(rows) < 0.3,
            "is_repeating": np.zeros(rows, bool),
            "prompt_perplexity": rng.random(rows) + 1,
            "is_memorized": rng.random(rows) < 0.5,
        }
    )
    verdicts = {step: rng.random(rows) < 1 / (1 + np.exp(-value)) for step, value in odds.items()}
    verdicts[30] = np.arange(rows) < 5
    parts = [
        pa.table(
            {
                "model": ["m"] * rows,
                "checkpoint": [f"checkpoint-{step}"] * rows,
                "step": [step] * rows,
                "parameters": pa.array([None] * rows, pa.int64()),
                "is_memorized": flags,
            }
        )
        for step, flags in verdicts.items()
    ]
    return table, pa.concat_tables(parts), verdicts


def test_each_fit_is_the_predictor_of_its_member_and_is_made_once(tmp_path, monkeypatch):
    table, series, verdicts = made()
    found = fit_series(series, table, tmp_path, 7)
    assert [(one["checkpoint"], one["step"]) for one in found] == [(f"checkpoint-{step}", step) for step in verdicts]
    for one in found[:2]:
        place = table.column_names.index("is_memorized")
        own = table.set_column(place, "is_memorized", pa.array(verdicts[one["step"]]))
        # Perplexities are those of another model: they are not among the factors.
        expected = Predictor.fit(own, factors=FACTORS, seed=7, resamples=5).metrics
        assert one["rows"] == expected["rows"]
        assert {row["factor"] for row in one["coefficients"]} == set(FACTORS)
        for row, other in zip(one["coefficients"], expected["coefficients"], strict=True):
            assert (row["model"], row["factor"]) == (other["model"], other["factor"])
            assert row["coefficient"] == pytest.approx(other["coefficient"])
        for group, cell in expected["models"]["taxonomic"].items():
            auc = {name: one["auc"][group][name] for name in ("value", "low", "high")}
            assert auc == pytest.approx(cell["roc_auc"])
            assert (one["auc"][group]["n"], one["auc"][group]["units"]) == (cell["n"], cell["units"])
    # Five memorized sequences are too few for a model, which is said and not an error.
    assert "10 needed" in found[2]["reason"]
    assert "auc" not in found[2]

    def never(*_, **__):
        raise AssertionError("fitted again")

    monkeypatch.setattr(module, "_measure", never)
    assert fit_series(series, table, tmp_path, 7) == found
    assert fit_series(None, table, tmp_path, 7) == []
