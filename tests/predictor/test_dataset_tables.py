"""Reading the published layout, and scoring datasets in batches."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers import simulated
from memtax.errors import MemtaxError, StaleOutputError
from memtax.pipeline import fitting
from memtax.predictor import factors as declared
from memtax.predictor import source_tables as tables
from memtax.predictor.prediction import predict_dataset
from memtax.predictor.predictor import Predictor
from memtax.published.reading import from_published

RISK = ("a", "b", "sequence_duplicates", "is_templating")


def published(rows=6, seed=0):
    """Rows of `usvsnsp/semantic-filters`."""
    rng = np.random.default_rng(seed)
    tokens = [rng.integers(1, 50_000, 64).tolist() for _ in range(rows)]
    loss = rng.normal(size=rows)
    count = np.where(rng.random(rows) < 0.3, 10, rng.integers(0, 5, rows))
    memorized = rng.random(rows) < 1 / (1 + np.exp(-loss))
    return pa.table(
        {
            "sequence_id": np.arange(rows),
            "tokens": pa.array(tokens, pa.list_(pa.int64())),
            "text": ["some text"] * rows,
            "sequence_duplicates": count,
            **{f"{name}_frequency": rng.random(rows) * 100 for name in ("max", "avg", "min", "median", "p25", "p75")},
            "is_incrementing": rng.random(rows) < 0.3,
            "is_repeating": np.zeros(rows, bool),
            "huffman_coding_length": 4 + rng.random(rows),
            "0_8_snowclones": rng.integers(1, 9, rows),
            "0_9_snowclones": rng.integers(1, 9, rows),
            "0_8_templates": rng.integers(0, 9, rows),
            "0_9_templates": rng.integers(0, 9, rows),
            "nl_scores": rng.random(rows),
            "prompt_perplexity": np.exp(np.abs(loss)),
            "generation_perplexity": 1 + rng.random(rows),
            "sequence_perplexity": np.exp(np.abs(loss)),
            "memorization_score": np.where(memorized, 1.0, 0.5),
        }
    )


def changed(data, name, row, value):
    column = data.column(name).to_pylist()
    column[row] = value
    return data.set_column(data.column_names.index(name), name, pa.array(column, data.column(name).type))


class TestPublished:
    def test_conversions_by_hand(self):
        data = published()
        data = changed(data, "prompt_perplexity", 0, 2.0)
        data = changed(data, "generation_perplexity", 0, 3.0)
        for name in ("prompt_perplexity", "generation_perplexity", "sequence_perplexity"):
            data = changed(data, name, 1, -1.0)
        data = changed(data, "tokens", 2, [5] * 63 + [0])
        data = changed(data, "tokens", 3, [5] * 63)
        data = changed(data, "0_8_snowclones", 0, 4)
        data = changed(data, "memorization_score", 0, 1.0)
        data = changed(data, "memorization_score", 1, 0.96875)
        found = from_published(data, in_sample=True)
        # The published mean divides by 63 tokens, prompt losses are of tokens 1..31 and continuation losses of 32..63.
        assert found["prompt_perplexity"][0].as_py() == pytest.approx(2 ** (63 / 31))
        assert found["continuation_perplexity"][0].as_py() == pytest.approx(3 ** (63 / 32))
        for name in ("prompt_perplexity", "continuation_perplexity", "sequence_perplexity"):
            assert found[name][1].as_py() is None  # -1 stands for a failure
        for row in (2, 3):  # token 0 among them; 63 tokens
            assert found["prompt_perplexity"][row].as_py() is found["continuation_perplexity"][row].as_py() is None
            assert found["sequence_perplexity"][row].as_py() is None
        assert found["semantic_matches_0_8"][0].as_py() == 3  # less the sequence itself
        assert from_published(data, in_sample=False)["semantic_matches_0_8"][0].as_py() == 4
        assert found["textual_matches_0_8"].to_pylist() == data["0_8_templates"].to_pylist()
        assert found["shannon_coding_length"].to_pylist() == data["huffman_coding_length"].to_pylist()
        assert "huffman_coding_length" not in found.column_names
        assert found["nl_score"].to_pylist() == data["nl_scores"].to_pylist()
        assert found["is_memorized"].to_pylist()[:2] == [True, False]

    def test_half_perplexities_multiply_to_the_whole(self):
        # Losses L1 over tokens 1..31 and L2 over 32..63: published values are exp(L1 / 63), exp(L2 / 63), product exp(L / 63).
        first, second = 40.0, 25.0
        data = changed(published(), "prompt_perplexity", 0, np.exp(first / 63))
        data = changed(data, "generation_perplexity", 0, np.exp(second / 63))
        found = from_published(data, in_sample=False)
        assert np.log(found["prompt_perplexity"][0].as_py()) == pytest.approx(first / 31)
        assert np.log(found["continuation_perplexity"][0].as_py()) == pytest.approx(second / 32)

    def test_tokens_are_needed(self):
        with pytest.raises(MemtaxError, match="without the column 'tokens'"):
            from_published(published().drop_columns(["tokens"]), in_sample=True)

    def test_fit_reads_them_with_the_fourteen_factors(self, tmp_path):
        sample, memories = published(3000), published(3000, seed=1)
        ids = pa.array(np.arange(3000) + 2000)
        memories = memories.set_column(0, "sequence_id", ids)
        memories = memories.filter(np.array(memories["memorization_score"]) == 1)
        pq.write_table(sample, tmp_path / "sample.parquet")
        pq.write_table(memories, tmp_path / "memories.parquet")
        predictor = fitting.fit(
            str(tmp_path / "sample.parquet"), tmp_path / "out", memorized_only=str(tmp_path / "memories.parquet"), resamples=20
        )
        assert len(predictor.factors) == 14
        assert predictor.factors == declared.available(from_published(sample, True).column_names)
        assert predictor.metrics["memorized_only"]["in_the_sample"] > 0
        tests = json.loads((tmp_path / "out/inference.json").read_text())
        assert len(tests["models"]["baseline"]["coefficients"]) == 14
        groups = {row["group"] for row in json.loads((tmp_path / "out/correlations.json").read_text())["correlations"]}
        assert {"all", "nl", "code", "recitation"} <= groups
        for name in ("performance", "curves", "coefficients", "correlations"):
            for ending in ("svg", "png"):
                assert (tmp_path / "out" / "figures" / f"{name}.{ending}").stat().st_size > 1000

    def test_the_sample_is_known_by_its_split(self, tmp_path):
        splits = ("pile_deduped_70m", "memories_deduped_70m")
        files = "".join(f"  - split: {split}\n    path: {split}.parquet\n" for split in splits)
        (tmp_path / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n")
        data = published(40)
        for split in splits:
            pq.write_table(data, tmp_path / f"{split}.parquet")
        pile, memories = (tables.read_table(f"{tmp_path}::{split}") for split in splits)
        counts = data["0_8_snowclones"].to_pylist()
        assert pile["semantic_matches_0_8"].to_pylist() == [count - 1 for count in counts]
        assert memories["semantic_matches_0_8"].to_pylist() == counts
        # Tokens and texts are read for the conversion and not kept.
        assert not {"tokens", "text"} & set(pile.column_names)
        wanted = ["sequence_id", "taxonomy"]
        assert tables.read_table(f"{tmp_path}::{splits[0]}", wanted).column_names == wanted

    def test_taxonomy_is_made_from_counts_and_templates(self):
        data = tables.with_taxonomy(published(200))
        count, incrementing = np.array(data["sequence_duplicates"]), np.array(data["is_incrementing"])
        expected = np.where(count > 5, 0, np.where(incrementing, 1, 2))
        assert data["taxonomy"].to_pylist() == expected.tolist()


class TestPredict:
    def make(self, tmp_path, rows=700):
        data = simulated.table(rows=3000)
        predictor = Predictor.fit(data, factors=RISK, resamples=20)
        corpus = simulated.with_null(simulated.table(rows=rows, seed=4), "a", [3])
        corpus = corpus.append_column("sequence_id", pa.array(range(rows)))
        pq.write_table(corpus, tmp_path / "corpus.parquet")
        return predictor, corpus

    def read(self, folder):
        return pa.concat_tables([pq.read_table(path) for path in sorted((folder / "data").glob("*.parquet"))])

    def test_batches_equal_the_whole(self, tmp_path, monkeypatch):
        monkeypatch.setattr(tables, "BATCH", 64)
        predictor, corpus = self.make(tmp_path)
        out = predict_dataset(predictor, str(tmp_path / "corpus.parquet"), tmp_path / "scored")
        assert len(list((out / "data").glob("*.parquet"))) == 3  # 700 rows, 4 x 64 a part
        found = self.read(out)
        assert found["sequence_id"].to_pylist() == list(range(700))
        assert found["memorized_probability"].combine_chunks() == predictor.predict(corpus).cast("float32")
        assert found["memorized_probability"][3].as_py() is None
        assert set(found.column_names) == {*corpus.column_names, "memorized_probability"}

    def test_goes_on_where_it_stopped(self, tmp_path, monkeypatch):
        monkeypatch.setattr(tables, "BATCH", 64)
        predictor, _ = self.make(tmp_path)
        out = predict_dataset(predictor, str(tmp_path / "corpus.parquet"), tmp_path / "scored")
        whole = self.read(out)
        kept = (out / "data/part-000000.parquet").stat().st_mtime_ns
        for number in (1, 2):
            (out / f"data/part-{number:06d}.parquet").unlink()
        predict_dataset(predictor, str(tmp_path / "corpus.parquet"), tmp_path / "scored")
        assert self.read(out) == whole
        assert (out / "data/part-000000.parquet").stat().st_mtime_ns == kept
        other = Predictor.fit(simulated.table(rows=3000, seed=8), factors=RISK, resamples=20)
        with pytest.raises(StaleOutputError):
            predict_dataset(other, str(tmp_path / "corpus.parquet"), tmp_path / "scored")

    def test_no_row_is_lost_or_doubled_whatever_happened_to_a_part(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(tables, "BATCH", 64)
        predictor, _ = self.make(tmp_path)
        out = predict_dataset(predictor, str(tmp_path / "corpus.parquet"), tmp_path / "scored")
        first, middle, last = parts = sorted((out / "data").glob("*.parquet"))
        wanted = [part.read_bytes() for part in parts]
        faults = {
            "deleted": middle.unlink,
            "the first deleted": first.unlink,
            "cut": lambda: middle.write_bytes(wanted[1][:100]),
            "swapped": lambda: (first.write_bytes(wanted[1]), middle.write_bytes(wanted[0])),
            "the last in its place": lambda: middle.write_bytes(wanted[2]),
            "all deleted but the last": lambda: (first.unlink(), middle.unlink()),
            "emptied": lambda: last.write_bytes(b""),
        }
        for fault in faults.values():
            fault()
            predict_dataset(predictor, str(tmp_path / "corpus.parquet"), tmp_path / "scored")
            assert [part.read_bytes() for part in parts] == wanted
        named = [line for line in capsys.readouterr().err.splitlines() if "made again" in line]
        # cut, both swapped, one in another's place, emptied; what is deleted has no name.
        assert len(named) == 5
        (out / "data" / "part-000009.parquet").write_bytes(wanted[0])
        with pytest.raises(MemtaxError, match=r"part-000009\.parquet is not a part of this dataset; remove it"):
            predict_dataset(predictor, str(tmp_path / "corpus.parquet"), tmp_path / "scored")

    def test_another_calibration_is_another_predictor(self, tmp_path):
        self.make(tmp_path)
        plain, again = (
            Predictor.fit(simulated.table(rows=3000), factors=RISK, resamples=20, calibration=how)
            for how in ("none", "recalibration")
        )
        predict_dataset(plain, str(tmp_path / "corpus.parquet"), tmp_path / "scored")
        with pytest.raises(StaleOutputError):
            predict_dataset(again, str(tmp_path / "corpus.parquet"), tmp_path / "scored")

    def test_what_the_taxonomy_lacks_is_named(self, tmp_path):
        pq.write_table(simulated.table(rows=50).drop_columns(["taxonomy", "is_repeating"]), tmp_path / "rows.parquet")
        with pytest.raises(MemtaxError, match="no column 'taxonomy' and, to compute it, no is_repeating"):
            fitting.fit(str(tmp_path / "rows.parquet"), tmp_path / "out")

    def test_before_training_uses_no_score_of_a_model(self, tmp_path):
        chosen = declared.available(from_published(published(5), True).column_names, declared.BEFORE_TRAINING)
        assert not {"prompt_perplexity", "continuation_perplexity", "sequence_perplexity"} & set(chosen)
        assert {"sequence_duplicates", "nl_score", "shannon_coding_length", "textual_matches_0_8"} <= set(chosen)
        with pytest.raises(MemtaxError, match="not both"):
            fitting.fit("x", tmp_path, factors=("a",), before_training=True)
