import json
import time

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memtax.corpus.sequences import load_sequences
from memtax.corpus.sources import Source
from memtax.errors import MemtaxError


def dataset(**columns):
    return datasets.Dataset.from_dict(columns)


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(st.lists(st.integers(0, 99), max_size=13), min_size=1, max_size=9), window=st.integers(1, 5))
def test_windows_equal_slices(rows, window):
    first = [(i, row[:window]) for i, row in enumerate(rows) if len(row) >= window]
    every = [row[i : i + window] for row in rows for i in range(0, len(row) - window + 1, window)]
    short = sum(len(row) < window for row in rows)
    source = datasets.Dataset(pa.table({"tokens": pa.array(rows, pa.list_(pa.int32()))}))
    if not first:
        with pytest.raises(MemtaxError, match=f"no row of the dataset has the {window} tokens"):
            load_sequences(source, window=window)
        return
    one, all_ = load_sequences(source, window=window), load_sequences(source, window=window, cut="all")
    assert one.dataset["sequence_id"][:] == [i for i, _ in first]
    assert one.dataset["tokens"][:] == [row for _, row in first]
    assert all_.dataset["sequence_id"][:] == list(range(len(every)))
    assert all_.dataset["tokens"][:] == every
    assert one.skipped == all_.skipped == ({f"shorter than {window} tokens": short} if short else {})


def test_columns_are_those_of_the_schema(tokenizer):
    found = load_sequences(dataset(tokens=[[1, 2, 3]], path=["a.py"]), window=2, tokenizer=tokenizer).dataset
    assert found[0] == {"sequence_id": 0, "tokens": [1, 2], "text": "w1 w2", "document": "a.py"}
    assert str(found.features["tokens"]) == str(datasets.List(datasets.Value("int32")))
    found = load_sequences(dataset(tokens=[[1, 2, 3]]), window=2).dataset
    assert found[0] == {"sequence_id": 0, "tokens": [1, 2], "text": None, "document": None}


def test_text_is_cut_into_contiguous_windows_within_documents(tokenizer):
    source = dataset(text=["w1 w2 w3 w4 w5", "w6", "w7 w8"], document=["a", "b", "c"], index=[5, 6, 7])
    found = load_sequences(source, window=2, tokenizer=tokenizer)
    # Document a: (1 2) (3 4), tail 5 dropped; b is too short; c: (7 8). The source's ids name documents, not windows.
    assert found.dataset["tokens"][:] == [[1, 2], [3, 4], [7, 8]]
    assert found.dataset["text"][:] == ["w1 w2", "w3 w4", "w7 w8"]
    assert found.dataset["document"][:] == ["a", "a", "c"]
    assert found.dataset["sequence_id"][:] == [0, 1, 2]
    assert found.skipped == {"shorter than 2 tokens": 1}
    first = load_sequences(source, window=2, tokenizer=tokenizer, cut="first").dataset
    assert (first["tokens"][:], first["sequence_id"][:]) == ([[1, 2], [7, 8]], [5, 7])


@pytest.mark.parametrize("name", ["sequence_id", "index", "Index"])
def test_ids_of_the_source_are_kept(name):
    found = load_sequences(dataset(tokens=[[1], [2, 3], [4, 5]], **{name: [30, 10, 20]}), window=2)
    assert found.dataset["sequence_id"][:] == [10, 20]
    assert found.skipped == {"shorter than 2 tokens": 1}


def test_an_index_of_strings_is_no_id():
    assert load_sequences(dataset(tokens=[[1]], index=["x"]), window=1).dataset["sequence_id"][:] == [0]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"sequence_id": [3, 4, 3]}, "column 'sequence_id' of the dataset is not unique: 3 occurs more than once"),
        ({"sequence_id": ["a", "b", "c"]}, "contains string, not integers"),
        ({"Index": [1, None, 2]}, "has rows without an id"),
    ],
)
def test_bad_ids(columns, message):
    with pytest.raises(MemtaxError, match=message):
        load_sequences(dataset(tokens=[[1], [2], [3]], **columns), window=1)


def test_all_rows_too_short():
    with pytest.raises(MemtaxError, match=r"no row of .* has the 64 tokens .*the longest has 3\); choose shorter windows"):
        load_sequences(dataset(tokens=[[1], [2, 3, 4]]), window=64)


def test_bad_arguments():
    with pytest.raises(MemtaxError, match="at least 1 token, got 0"):
        load_sequences(dataset(tokens=[[1]]), window=0)
    with pytest.raises(MemtaxError, match="unknown cut 'some'"):
        load_sequences(dataset(tokens=[[1]]), window=1, cut="some")


@pytest.mark.parametrize("cut", ["first", "all"])
def test_streaming_equals_not_streaming(tokenizer, tmp_path, cut):
    rng = np.random.default_rng(2)
    with (tmp_path / "a.jsonl").open("w") as file:
        for i in range(2300):
            words = " ".join(f"w{t}" for t in rng.integers(1, 50, rng.integers(0, 12)))
            file.write(json.dumps({"index": 7 * i, "text": words, "name": f"d{i}"}) + "\n")
    found = [
        load_sequences(Source(str(tmp_path / "a.jsonl"), streaming=streaming), window=4, tokenizer=tokenizer, cut=cut)
        for streaming in (False, True)
    ]
    assert found[0].dataset.to_dict() == found[1].dataset.to_dict()
    assert found[0].skipped == found[1].skipped


def test_the_fingerprint_follows_the_content():
    rows = [[1, 2], [3, 4]]
    made = [load_sequences(dataset(tokens=tokens), window=2).dataset._fingerprint for tokens in (rows, rows, rows[::-1])]
    assert made[0] == made[1] != made[2]


def test_a_million_rows_take_seconds():
    flat = np.random.default_rng(0).integers(0, 50_000, 10 * 1_000_000, dtype=np.int32)
    offsets = np.arange(1_000_001, dtype=np.int32) * 10
    table = pa.table({"tokens": pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))})
    start = time.perf_counter()
    found = load_sequences(datasets.Dataset(table), window=8).dataset
    # Arrow and numpy take about one second; a Python loop over rows would take more than twenty.
    assert time.perf_counter() - start < 15
    assert len(found) == 1_000_000
    assert found[999_999]["tokens"] == flat[-10:-2].tolist()
