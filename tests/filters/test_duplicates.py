import os
import pickle
import time

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from memtax.counting.counter import Counts, write_counts
from memtax.errors import MemtaxError
from memtax.filters.duplicates import DuplicateFilter


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture
def counts(tmp_path):
    """A folder of counts: sequence 9 twice, 4 never, 7 once; out of order on purpose."""
    write_counts(tmp_path / "counts", [9, 4, 7], Counts(np.array([1]), np.array([2, 0, 1]), 1, 1))
    return str(tmp_path / "counts")


def test_ids_are_looked_up_and_unknown_ids_are_none(counts):
    batch = {"sequence_id": [7, 9, 8, 4, 7, -5, 100], "text": list("abcdefg")}
    assert DuplicateFilter(counts)(batch) == {"sequence_duplicates": [1, 2, None, 0, 1, None, None]}


def test_equal_under_map_and_batch_sizes(counts):
    rows = datasets.Dataset.from_dict({"sequence_id": [7, 9, 8, 4]})
    for size in (1, 3, 1000):
        found = DuplicateFilter(counts).apply(rows, batch_size=size)
        assert found["sequence_duplicates"][:] == [1, 2, None, 0]
        assert found.features["sequence_duplicates"] == datasets.Value("int64")
    assert rows.map(DuplicateFilter(counts), batched=True)["sequence_duplicates"][:] == [1, 2, None, 0]


def test_a_folder_a_file_and_a_dataset_read_alike(counts, tmp_path):
    published = pa.table({"sequence_id": pa.array([4, 7, 9], pa.int32()), "counts": [0, 1, 2]})
    pq.write_table(published, tmp_path / "published.parquet")
    (tmp_path / "hub").mkdir()
    pq.write_table(published, tmp_path / "hub" / "deduped-0.parquet")
    pq.write_table(published.slice(0, 1), tmp_path / "hub" / "duped-0.parquet")
    head = "configs:\n- config_name: default\n  data_files:\n"
    head += "".join(f"  - split: {split}\n    path: {split}-0.parquet\n" for split in ("duped", "deduped"))
    (tmp_path / "hub" / "README.md").write_text(f"---\n{head}---\n")
    datasets.Dataset(published).save_to_disk(tmp_path / "saved")
    names = [f"{counts}/num_duplicates.parquet", tmp_path / "published.parquet", f"{tmp_path}/hub::deduped", tmp_path / "saved"]
    for name in names:
        assert DuplicateFilter(str(name))({"sequence_id": [9, 4, 5]}) == {"sequence_duplicates": [2, 0, None]}
    assert DuplicateFilter(f"{tmp_path}/hub:default:duped")({"sequence_id": [9, 4]}) == {"sequence_duplicates": [None, 0]}


def test_empty_table_and_empty_batch(counts, tmp_path):
    write_counts(tmp_path / "none", [], Counts(np.array([1]), np.array([], np.int64), 1, 1))
    assert DuplicateFilter(str(tmp_path / "none"))({"sequence_id": [1, 2]}) == {"sequence_duplicates": [None, None]}
    assert DuplicateFilter(counts)({"sequence_id": []}) == {"sequence_duplicates": []}


def test_new_contents_are_seen_and_change_the_fingerprint(counts):
    function = DuplicateFilter(counts)
    before = function.fingerprint
    assert function({"sequence_id": [9]}) == {"sequence_duplicates": [2]}
    write_counts(counts, [9, 4, 7], Counts(np.array([1]), np.array([5, 0, 1]), 1, 1))
    later = time.time_ns() + 10**9
    os.utime(f"{counts}/num_duplicates.parquet", ns=(later, later))
    assert function({"sequence_id": [9]}) == {"sequence_duplicates": [5]}
    assert function.fingerprint != before


def test_the_split_is_part_of_the_fingerprint(counts):
    names = (counts, f"{counts}::a", f"{counts}::b")
    assert len({DuplicateFilter(name).fingerprint for name in names}) == 3


def test_pickles_without_the_table(counts):
    function = DuplicateFilter(counts)
    function({"sequence_id": [9]})
    packed = pickle.dumps(function)
    assert len(packed) < 1000
    assert pickle.loads(packed) == function
    assert pickle.loads(packed)({"sequence_id": [9]}) == {"sequence_duplicates": [2]}


def table(path, **columns):
    pq.write_table(pa.table(columns), path)
    return str(path)


def test_bad_tables(tmp_path):
    path = tmp_path / "t.parquet"
    batch = {"sequence_id": [1]}
    for columns, message in (
        ({"sequence_id": [1], "n": [1]}, "has no column 'sequence_duplicates'"),
        ({"sequence_id": [1, 1], "counts": [1, 2]}, "gives sequence_id 1 two different counts"),
        ({"sequence_id": [1, None], "counts": [1, 2]}, "'sequence_id' of .* is null in row 1"),
        ({"sequence_id": [1, 2], "counts": [1, -1]}, "has the negative count -1"),
        ({"sequence_id": ["a"], "counts": [1]}, "is string, not int64"),
    ):
        with pytest.raises(MemtaxError, match=message):
            DuplicateFilter(table(path, **columns))(batch)
    path.write_bytes(b"no parquet")
    with pytest.raises(MemtaxError, match=r"t\.parquet cannot be read"):
        DuplicateFilter(str(path))(batch)
    with pytest.raises(MemtaxError, match=r"nowhere\.parquet does not exist"):
        DuplicateFilter(str(tmp_path / "nowhere.parquet"))(batch)


def test_an_id_whose_count_is_missing_is_none(tmp_path):
    # Our own tables allow it: null says "not counted", which is what an id that is not there says.
    name = table(tmp_path / "t.parquet", sequence_id=[3, 1, 2], sequence_duplicates=pa.array([4, None, 5], pa.int64()))
    assert DuplicateFilter(name)({"sequence_id": [1, 2, 3]}) == {"sequence_duplicates": [None, 5, 4]}


def test_the_batch_needs_ids(counts):
    with pytest.raises(MemtaxError, match="has no column 'sequence_id'"):
        DuplicateFilter(counts)({"tokens": [[1]]})
