import pickle
import statistics

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memtax.counting.counter import Counts, write_counts
from memtax.errors import MemtaxError
from memtax.filters.token_frequencies import TokenFrequencyFilter

FREQUENCIES = [10, 0, 7, 3, 10**12, 5]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("counts")
    write_counts(folder, [], Counts(np.array(FREQUENCIES), np.array([], np.int64), 1, 1))
    return str(folder)


def percentile(values, q):
    """Oracle: linear interpolation between the two nearest ranks."""
    ordered, position = sorted(values), q * (len(values) - 1)
    low = int(position)
    high = min(low + 1, len(values) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def expected(row):
    if row is None or not row or not all(0 <= token < len(FREQUENCIES) for token in row):
        return [None] * 6
    values = [FREQUENCIES[token] for token in row]
    quartiles = [percentile(values, q) for q in (0.25, 0.75)]
    return [max(values), statistics.fmean(values), min(values), statistics.median(values), *quartiles]


def rows_of(columns):
    return [list(row) for row in zip(*(columns[name] for name in TokenFrequencyFilter.columns), strict=True)]


@settings(deadline=None, max_examples=150)
@given(rows=st.lists(st.none() | st.lists(st.integers(-1, 6), max_size=9), max_size=8))
def test_equals_a_plain_computation(counts, rows):
    found = rows_of(TokenFrequencyFilter(counts)({"tokens": rows}))
    assert len(found) == len(rows)
    for row, values in zip(rows, found, strict=True):
        # Interpolation is two roundings of float64 at most 10^12.
        wanted = expected(row)
        assert values == (wanted if None in wanted else pytest.approx(wanted, rel=1e-12, abs=1e-9))


def test_worked_example(counts):
    # Frequencies of (0, 3, 5, 2): 10, 3, 5, 7. Sorted 3 5 7 10: p25 at rank .75 = 3 + .75*2, p75 at rank 2.25 = 7 + .25*3.
    found = TokenFrequencyFilter(counts)({"tokens": [[0, 3, 5, 2]]})
    assert found == {
        "max_frequency": [10],
        "avg_frequency": [6.25],
        "min_frequency": [3],
        "median_frequency": [6.0],
        "p25_frequency": [4.5],
        "p75_frequency": [7.75],
    }


def test_only_the_row_with_an_unknown_token_is_none(counts):
    found = TokenFrequencyFilter(counts)({"tokens": [[1, 1], [1, 6], [], [4]]})
    assert found["max_frequency"] == [0, None, None, 10**12]
    assert found["avg_frequency"] == [0.0, None, None, 1e12]


def test_equal_under_map_and_batch_sizes(counts):
    rng = np.random.default_rng(3)
    rows = [rng.integers(0, 6, rng.integers(1, 20)).tolist() for _ in range(300)]
    dataset = datasets.Dataset.from_dict({"tokens": rows})
    found = [TokenFrequencyFilter(counts).apply(dataset, batch_size=size).remove_columns("tokens") for size in (1, 7, 300)]
    assert found[0].to_dict() == found[1].to_dict() == found[2].to_dict()
    assert rows_of(found[0].to_dict()) == [pytest.approx(expected(row)) for row in rows]
    assert found[0].features["avg_frequency"] == datasets.Value("float64")
    mapped = dataset.map(TokenFrequencyFilter(counts), batched=True).remove_columns("tokens")
    assert mapped.to_dict() == found[0].to_dict()


def test_fixed_length_arrays_are_accepted(counts):
    rows = [[0, 1, 2], [3, 4, 5]]
    assert TokenFrequencyFilter(counts)({"tokens": np.array(rows)}) == TokenFrequencyFilter(counts)({"tokens": rows})


def published(folder):
    """The published layout: two splits that are to be summed, with rows out of order and ids missing from one."""
    folder.mkdir()
    pq.write_table(pa.table({"TokenID": [2, 0], "Frequency": [1, 5]}), folder / "a.parquet")
    pq.write_table(pa.table({"TokenID": [0, 3], "Frequency": [10, 4]}), folder / "b.parquet")
    head = "configs:\n- config_name: default\n  data_files:\n  - split: memorized\n    path: a.parquet\n"
    head += "  - split: non_memorized\n    path: b.parquet\n"
    (folder / "README.md").write_text(f"---\n{head}---\n")
    return folder


def test_published_splits_are_summed(tmp_path):
    name = str(published(tmp_path / "hub"))
    # Token 0: 5 + 10, token 2: 1, token 3: 4; token 1 is in neither split.
    assert TokenFrequencyFilter(name)({"tokens": [[0], [2], [3], [1], [4]]})["max_frequency"] == [15, 1, 4, None, None]
    assert TokenFrequencyFilter(f"{name}::memorized")({"tokens": [[0], [3]]})["max_frequency"] == [5, None]
    assert TokenFrequencyFilter(f"{name}:default:non_memorized")({"tokens": [[0], [3]]})["max_frequency"] == [10, 4]


def test_other_splits_must_be_named(tmp_path):
    folder = published(tmp_path / "hub")
    (folder / "README.md").write_text((folder / "README.md").read_text().replace("non_memorized", "rest"))
    with pytest.raises(MemtaxError, match=r"has the splits memorized, rest; choose one: .*::memorized"):
        TokenFrequencyFilter(str(folder))({"tokens": [[0]]})


def test_a_single_split_is_taken_whatever_its_name(tmp_path):
    folder = published(tmp_path / "hub")
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: whole\n    path: b.parquet\n---\n"
    )
    assert TokenFrequencyFilter(str(folder))({"tokens": [[3]]})["min_frequency"] == [4]


def test_pickles_without_the_table(counts):
    function = TokenFrequencyFilter(counts)
    function({"tokens": [[0]]})
    assert len(pickle.dumps(function)) < 1000
    assert pickle.loads(pickle.dumps(function)) == function


def test_bad_tables(tmp_path):
    for columns, message in (
        ({"token_id": [1], "n": [1]}, "has no column 'token_frequency'"),
        ({"token_id": [1, 1], "token_frequency": [1, 1]}, "has token_id 1 more than once"),
        ({"token_id": [-1], "token_frequency": [1]}, "has the negative token id -1"),
        ({"token_id": [2**31], "token_frequency": [1]}, r"token id 2147483648; ids must be below 2\^31"),
        ({"token_id": [1], "token_frequency": [-3]}, "negative count -3"),
    ):
        pq.write_table(pa.table(columns), tmp_path / "t.parquet")
        with pytest.raises(MemtaxError, match=message):
            TokenFrequencyFilter(str(tmp_path / "t.parquet"))({"tokens": [[1]]})


def test_the_batch_needs_tokens(counts):
    with pytest.raises(MemtaxError, match="has no column 'tokens'"):
        TokenFrequencyFilter(counts)({"text": ["x"]})
