"""Counts and scores made before, over a corpus or by a model that is not at hand, in place of computing them."""

import dataclasses

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from memtax.errors import MemtaxError
from memtax.pipeline.given import given_columns
from memtax.published.layouts import CODE_SCORES, MATCHES
from memtax.published.writing import match_splits, write_splits


@pytest.fixture
def larger(finished, tmp_path):
    """The run's own counts as of a corpus ten times as large, in the published names, with sequences that are not asked for."""
    counts = finished.output / "counts"
    table = pq.read_table(counts / "num_duplicates.parquet", columns=["sequence_id", "sequence_duplicates"])
    members = table.slice(0, features(finished.output).num_rows)
    ids = pa.chunked_array([pa.array([10**6], pa.int64()), *members.column(0).chunks])
    values = pa.chunked_array([pa.array([77], pa.int64()), *pc.multiply(members.column(1), 10).chunks])
    pq.write_table(pa.table({"index": ids, "counts": values}), tmp_path / "duplicates.parquet")
    frequencies = pq.read_table(counts / "token_frequencies.parquet")
    tenfold = {"TokenID": frequencies.column(0), "Frequency": pc.multiply(frequencies.column(1), 10)}
    pq.write_table(pa.table(tenfold), tmp_path / "frequencies.parquet")
    return tmp_path


@pytest.fixture
def published(finished, tmp_path):
    """Matches and code scores in the published layouts: counts 0, 1, 2, ... by row, scores for all but the last member."""
    ids = features(finished.output).column("sequence_id").combine_chunks()
    counts = {f"{kind}_matches_0_{level}": range(len(ids)) for kind in ("semantic", "textual") for level in (8, 9)}
    matches = pa.table({"sequence_id": ids, **{name: pa.array(values) for name, values in counts.items()}})
    write_splits(tmp_path / "matches", MATCHES, match_splits(matches, "deduped"), "matches", {})
    scores = pa.table({"sequence_id": ids, "nl_scores": pa.array([0.25] * len(ids), pa.float32())}).slice(0, len(ids) - 1)
    write_splits(tmp_path / "scores", CODE_SCORES, {"deduped": scores}, "scores", {})
    return {
        "code_scores": f"{tmp_path}/scores::deduped",
        "semantic_matches": f"{tmp_path}/matches::deduped_snowclones",
        "textual_matches": f"{tmp_path}/matches::deduped_templates",
    }


def features(output):
    return pq.read_table(output / "dataset" / "features" / "train.parquet")


def test_a_run_takes_counts_and_scores_made_before(finished, config, larger, published):
    given = published | {"counts": str(larger / "duplicates.parquet"), "frequencies": str(larger / "frequencies.parquet")}
    there = dataclasses.replace(config, output=larger / "run", checkpoints=(), **given).run()
    table, own = features(larger / "run"), features(finished.output)
    assert table.column("sequence_duplicates") == pc.multiply(own.column("sequence_duplicates"), 10)
    assert table.column("max_frequency") == pc.multiply(own.column("max_frequency"), 10)
    assert there.figures["run"]["tokens"] == 10 * finished.figures["run"]["tokens"]
    # More than 5 occurrences are recitation: with ten times as many, that is every sequence.
    assert set(table.column("taxonomy").to_pylist()) == {0}
    assert (larger / "run" / "report" / "index.html").exists()
    rows = table.num_rows
    for name in ("semantic_matches_0_8", "semantic_matches_0_9", "textual_matches_0_8", "textual_matches_0_9"):
        assert table.column(name).to_pylist() == list(range(rows))
    assert table.column("nl_score").to_pylist() == [0.25] * (rows - 1) + [None]
    assert set(published) < set(yaml.safe_load((larger / "run" / "run.yaml").read_text())["inputs"])


def test_held_out_ids_are_not_looked_up(config, published):
    rows = datasets.Dataset.from_dict({"sequence_id": [1, 2, 3], "is_member": [True, True, False]})
    given = dataclasses.replace(config, **published)
    found = {name: values for table in given_columns(given, rows) for name, values in table.to_pydict().items()}
    assert found["semantic_matches_0_9"][2] is found["nl_score"][2] is None
    assert found["nl_score"][:2] == [0.25, 0.25]


def test_tables_that_do_not_fit_are_refused(config, published, larger):
    rows = datasets.Dataset.from_dict({"sequence_id": [-5], "is_member": [True]})
    with pytest.raises(MemtaxError, match=r"code_scores: .* has none of the 1 sequences"):
        given_columns(dataclasses.replace(config, code_scores=published["code_scores"]), rows)
    with pytest.raises(MemtaxError, match=r"semantic_matches: .* has no sequence_id .* with semantic_matches_0_8"):
        given_columns(dataclasses.replace(config, semantic_matches=str(larger / "duplicates.parquet")), rows)
    with pytest.raises(MemtaxError, match="code_scores replaces the scores of code_model"):
        dataclasses.replace(config, code_scores="somewhere", code_model="elsewhere")


def test_a_sequence_without_a_count_is_named(config, larger):
    path = larger / "duplicates.parquet"
    pq.write_table(pq.read_table(path).slice(0, 5), path)
    given = {"counts": str(path), "frequencies": str(larger / "frequencies.parquet")}
    with pytest.raises(MemtaxError, match=r"has no count of \d+ of \d+ sequences, the first is sequence_id 4;"):
        dataclasses.replace(config, output=larger / "run", **given).run()


def test_frequencies_alone_are_refused(config):
    with pytest.raises(MemtaxError, match="frequencies replaces the token frequencies of counts; give counts as well"):
        dataclasses.replace(config, frequencies="somewhere")
