"""Medians and divergences by number of duplicates: against formulas written out, and intervals in simulations by document."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memtax.predictor import perplexities as module
from memtax.predictor.perplexities import (
    BINS,
    CELLS,
    PSEUDOCOUNT,
    cells_of,
    divergence_evaluator,
    median_evaluator,
    perplexities_by_duplicates,
)


@given(st.lists(st.floats(0, 9), min_size=1, max_size=12), st.integers(0, 999))
@settings(max_examples=50, deadline=None)
def test_weighted_medians_equal_those_of_repeated_rows(values, seed):
    weights = np.random.default_rng(seed).integers(0, 4, (5, len(values)))
    weights[:, 0] += 1
    found = median_evaluator(np.array(values))(weights.astype(float))
    for row, counts in zip(found, weights, strict=True):
        assert row == pytest.approx(np.median(np.repeat(values, counts)))


def slow_divergence(first, second):
    """KL(p, q) + KL(q, p) of two lists of cells, with half a row more in each."""
    p, q = ([cells.count(cell) + PSEUDOCOUNT for cell in range(CELLS)] for cells in (first, second))
    p, q = ([count / sum(counts) for count in counts] for counts in (p, q))
    return sum(a * math.log(a / b) + b * math.log(b / a) for a, b in zip(p, q, strict=True))


@given(st.lists(st.tuples(st.booleans(), st.floats(1, 9)), min_size=2, max_size=30), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_divergence_equals_the_formula_on_repeated_rows(rows, seed):
    labels, values = np.array([label for label, _ in rows]), np.array([value for _, value in rows])
    cells = cells_of(values)
    assert cells.min() >= 0
    assert cells.max() < CELLS
    weights = np.random.default_rng(seed).integers(0, 3, (3, len(rows)))
    found = divergence_evaluator(labels, cells)(weights.astype(float))
    for value, counts in zip(found, weights, strict=True):
        drawn = np.repeat(np.arange(len(rows)), counts)
        sides = [[int(cells[row]) for row in drawn if labels[row] == label] for label in (True, False)]
        assert value == pytest.approx(slow_divergence(*sides))
        # Symmetric, and not below 0.
        assert value == pytest.approx(slow_divergence(*sides[::-1]))
        assert value >= -1e-12


def table(rng, documents=30, rows=20, shift=1.0, sd=0.5):
    sizes = rng.integers(rows // 2, 2 * rows, documents)
    units = np.repeat(np.arange(documents), sizes)
    labels = rng.random(len(units)) < 0.5
    values = rng.normal(0, 1, len(units)) + rng.normal(0, sd, documents)[units] - shift * labels
    return pa.table(
        {
            "document": [f"d{unit}" for unit in units],
            "is_memorized": labels,
            "sequence_duplicates": pa.array(rng.choice([1, 2, 4, 7, 20_000], len(units), p=[0.4, 0.3, 0.2, 0.08, 0.02])),
            "prompt_perplexity": np.exp(values).astype(np.float32),
            "continuation_perplexity": np.exp(values / 2).astype(np.float32),
        }
    )


def test_bins_groups_and_medians_equal_a_loop_over_rows():
    made = table(np.random.default_rng(1), documents=40)
    found = perplexities_by_duplicates(made)
    rows = made.to_pylist()
    ends = {start: None if start == BINS[-1] else BINS[BINS.index(start) + 1] - 1 for start in BINS}
    assert {(row["from"], row["to"]) for row in found["medians"]} == {(s, ends[s]) for s in (1, 2, 3, 6, 10_001)}
    for row in found["medians"]:
        own = [
            one[row["perplexity"]]
            for one in rows
            if row["from"] <= one["sequence_duplicates"] <= (row["to"] or math.inf)
            and one["is_memorized"] == (row["group"] == "memorized")
        ]
        assert row["sequences"] == len(own)
        if len(own) < 10:
            assert row["median"] is None
            assert "10 needed" in row["reason"]
        else:
            assert row["median"] == pytest.approx(np.median(own))
            assert row["reason"] is not None or row["low"] <= row["median"] <= row["high"]
    assert {row["perplexity"] for row in found["divergence"]} == {"prompt_perplexity", "continuation_perplexity"}
    first = found["divergence"][0]
    assert first["memorized"] + first["rest"] == sum(one["sequence_duplicates"] == 1 for one in rows)
    assert first["low"] <= first["kl"] <= first["high"]
    # The same numbers from the same table.
    assert perplexities_by_duplicates(made) == found


def test_few_documents_have_values_without_intervals_and_missing_columns_nothing():
    made = table(np.random.default_rng(2), documents=8, rows=60)
    found = perplexities_by_duplicates(made)
    for row in (*found["medians"], *found["divergence"]):
        assert row["low"] is None
        assert "needed" in row["reason"]
    assert any(row["kl"] is not None for row in found["divergence"])
    nothing = {"medians": [], "divergence": []}
    assert perplexities_by_duplicates(made.drop_columns(["sequence_duplicates"])) == nothing
    assert perplexities_by_duplicates(made.select(["is_memorized", "sequence_duplicates"])) == nothing


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_intervals_of_the_divergence_cover_the_truth_over_documents(shift, monkeypatch):
    """Truth: the divergence in a sample so large that noise adds nothing to it."""
    monkeypatch.setattr(module, "RESAMPLES", 200)
    rng = np.random.default_rng(5)
    whole = table(rng, documents=10_000, rows=8, shift=shift)
    values = np.log(whole.column("prompt_perplexity").to_numpy())
    cells = cells_of(values)
    truth = divergence_evaluator(whole.column("is_memorized").to_numpy(), cells)(np.ones((1, len(cells))))[0]
    covered = []
    for _ in range(40):
        made = table(rng, documents=20, rows=8, shift=shift)
        made = made.set_column(2, "sequence_duplicates", pa.array(np.ones(made.num_rows, np.int64)))
        row = perplexities_by_duplicates(made.drop_columns(["continuation_perplexity"]))["divergence"][0]
        covered.append(row["low"] <= truth <= row["high"])
    # 95% of 40 are 38; three standard errors below is 34.
    assert sum(covered) >= 34
