"""Counts made before, over a corpus that is not at hand, in place of counting."""

import dataclasses

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from memtax.errors import MemtaxError
from memtax.pipeline import run


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


def features(output):
    return pq.read_table(output / "dataset" / "features" / "train.parquet")


def test_a_run_takes_counts_made_before(finished, config, larger):
    given = {"counts": str(larger / "duplicates.parquet"), "frequencies": str(larger / "frequencies.parquet")}
    there = run(dataclasses.replace(config, output=str(larger / "run"), checkpoints=(), **given))
    table, own = features(larger / "run"), features(finished.output)
    assert table.column("sequence_duplicates") == pc.multiply(own.column("sequence_duplicates"), 10)
    assert table.column("max_frequency") == pc.multiply(own.column("max_frequency"), 10)
    assert there.metrics["run"]["tokens"] == 10 * finished.metrics["run"]["tokens"]
    # More than 5 occurrences are recitation: with ten times as many, that is every sequence.
    assert set(table.column("taxonomy").to_pylist()) == {0}
    assert (larger / "run" / "report" / "index.html").exists()


def test_a_sequence_without_a_count_is_named(config, larger):
    path = larger / "duplicates.parquet"
    pq.write_table(pq.read_table(path).slice(0, 5), path)
    given = {"counts": str(path), "frequencies": str(larger / "frequencies.parquet")}
    with pytest.raises(MemtaxError, match=r"has no count of \d+ of \d+ sequences, the first is sequence_id 4;"):
        run(dataclasses.replace(config, output=str(larger / "run"), **given))


def test_frequencies_alone_are_refused(config):
    with pytest.raises(MemtaxError, match="frequencies: they replace those of counts; give counts as well"):
        dataclasses.replace(config, frequencies="somewhere")
