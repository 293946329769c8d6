import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memtax.corpus.blocks import Block, open_corpus
from memtax.counting import totals
from memtax.counting.count_tables import read_frequencies
from memtax.counting.counter import Counts, count, write_counts
from memtax.errors import MemtaxError


class Rows:
    """A corpus of lists, handed out in blocks of a few rows."""

    def __init__(self, rows, dtype=np.int32, rows_per_block=3, vocabulary_size=None):
        self.sequences, self.dtype, self.step, self.vocabulary_size = rows, dtype, rows_per_block, vocabulary_size
        self.rows, self.tokens = len(rows), sum(map(len, rows))

    def shards(self, tokens):
        return [self]

    def blocks(self):
        for start in range(0, len(self.sequences), self.step):
            part = self.sequences[start : start + self.step]
            flat = [token for row in part for token in row]
            yield Block(np.array(flat, self.dtype), np.cumsum([0, *map(len, part)], dtype=np.int64), start)


def occurrences(rows, window):
    """Oracle: compare the window with every slice of its length."""
    window, width = list(window), len(window)
    return sum(row[i : i + width] == window for row in rows for i in range(len(row) - width + 1))


# Three ids in rows of up to 30: every window has overlaps, repeats across rows, and near misses.
ragged = st.lists(st.lists(st.integers(0, 2), max_size=30), min_size=1, max_size=12)


@settings(deadline=None, max_examples=150)
@given(
    rows=ragged,
    width=st.integers(1, 9),
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([np.int32, np.uint16]),
    multiplier=st.sampled_from([None, 0, 1, 2**32]),
    rows_per_block=st.integers(1, 13),
)
def test_counts_equal_brute_force(rows, width, seed, dtype, multiplier, rows_per_block):
    rng = np.random.default_rng(seed)
    windows = [row[i : i + width] for row in rows for i in range(len(row) - width + 1)][:20]
    windows += rng.integers(0, 3, (5, width)).tolist()
    windows += windows[:3]  # asked for twice
    # With multiplier 0 the hash is the last token, with 1 the sum of the tokens: nearly all windows collide.
    options = {} if multiplier is None else {"multiplier": multiplier}

    counts = count(Rows(rows, dtype, rows_per_block), np.array(windows, np.int32), vocabulary_size=4, **options)

    assert counts.window_counts.tolist() == [occurrences(rows, window) for window in windows]
    assert counts.token_frequencies.tolist() == [sum(row.count(token) for row in rows) for token in range(4)]
    assert (counts.tokens, counts.sequences) == (sum(map(len, rows)), len(rows))


def test_one_token_repeated_counts_overlaps_and_the_last_offset():
    # A run of n equal tokens holds n - w + 1 windows of w: 10 - 4 + 1 = 7 and 4 - 4 + 1 = 1; the run of 3 holds none.
    counts = count(Rows([[7] * 10, [7] * 4, [7] * 3, []]), np.array([[7, 7, 7, 7]]))
    assert counts.window_counts.tolist() == [8]
    assert counts.token_frequencies.tolist() == [0] * 7 + [17]


def test_windows_do_not_cross_sequences_or_blocks():
    for rows_per_block in (1, 2):
        counts = count(Rows([[1, 2], [3, 4]], rows_per_block=rows_per_block), np.array([[2, 3], [1, 2]]))
        assert counts.window_counts.tolist() == [0, 1]


def test_long_sequences_agree_with_a_dictionary_of_slices():
    # Longer than the kernel's chunk, with several chunks per row, and enough windows for crowded table slots.
    rng = np.random.default_rng(5)
    rows = [rng.integers(0, 12, length).tolist() for length in (5000, 512, 515, 516, 517, 1027, 3)]
    for width in (1, 4, 32):
        seen = {}
        for row in rows:
            for i in range(len(row) - width + 1):
                key = tuple(row[i : i + width])
                seen[key] = seen.get(key, 0) + 1
        keys = list(seen)
        counts = count(Rows(rows), np.array(keys, np.int32))
        assert counts.window_counts.tolist() == [seen[key] for key in keys]


def test_planted_collision_does_not_change_a_count():
    # With M = 2 the hash of (a, b) is 2a + b, so (0, 2) and (1, 0) collide.
    rows = [[0, 2, 0, 2], [1, 0, 9]]
    counts = count(Rows(rows), np.array([[0, 2]]), multiplier=2)
    assert counts.window_counts.tolist() == [2]
    counts = count(Rows(rows), np.array([[1, 0], [0, 2]]), multiplier=2)
    assert counts.window_counts.tolist() == [1, 2]


def test_window_longer_than_every_row_is_not_found():
    counts = count(Rows([[1, 2, 3]]), np.array([[1, 2, 3, 4]]))
    assert counts.window_counts.tolist() == [0]


def test_tokens_only():
    counts = count(Rows([[1, 1], [], [3]]), None)
    assert counts.token_frequencies.tolist() == [0, 2, 0, 1]
    assert counts.window_counts.shape == (0,)


def test_stated_vocabulary_sets_the_length_of_the_frequencies():
    assert len(count(Rows([[1]], vocabulary_size=9), None).token_frequencies) == 9
    assert len(count(Rows([[1]], vocabulary_size=9), None, vocabulary_size=12).token_frequencies) == 12


@pytest.mark.parametrize("size", [None, 2**31])
def test_every_id_below_2_to_the_31_counts(size, tmp_path):
    # A table with a place for every id would take 16 GiB.
    top = 2**31 - 1
    rows = [[top, 5, top], [7], [2**24, 9, top, 5, top]]
    counts = count(Rows(rows), np.array([[5, top], [top, 5]]), vocabulary_size=size, memorized=[2])
    assert counts.window_counts.tolist() == [2, 2]
    write_counts(tmp_path, None, counts)
    table = read_frequencies(str(tmp_path))
    asked = np.array([5, 6, 7, 9, 2**24, 2**24 + 1, top, -1])
    frequencies, known = table.look_up(asked)
    assert frequencies.tolist() == [2, 0, 1, 1, 1, 0, 4, 0]
    assert known.tolist() == [True, True, True, True, True, False, True, False]
    memorized, _ = read_frequencies(str(tmp_path / "memorized_frequencies.parquet")).look_up(asked)
    assert memorized.tolist() == [1, 0, 0, 1, 1, 0, 2, 0]


def test_many_large_ids_are_refused_unless_the_vocabulary_is_stated(monkeypatch):
    monkeypatch.setattr(totals, "MOST_UNSTATED", 3)
    rows = [[5, *range(2**24, 2**24 + 4)]]
    with pytest.raises(MemtaxError, match="4 different token ids from 16,777,216 on, such as 16777216 in row 0"):
        count(Rows(rows), None)
    assert count(Rows(rows), None, vocabulary_size=2**25).large_frequencies.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([[1], [2, 8]], {"vocabulary_size": 8}, "token id 8 in row 1 of the corpus is outside the vocabulary of 8"),
        ([[1], [], [2, -3]], {}, "token id -3 in row 2"),
        ([[1]], {"vocabulary_size": 0}, "at least 1 token, got 0"),
    ],
)
def test_bad_corpus(rows, options, message):
    with pytest.raises(MemtaxError, match=message):
        count(Rows(rows, rows_per_block=1), None, **options)


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        (np.array([1, 2]), r"matrix of integers.*int64 \(2,\)"),
        (np.array([[0.5]]), "got float64"),
        (np.empty((2, 0), np.int32), r"at least one column"),
        (np.array([[1, 2], [3, -1]]), "token id -1 in window 1 is not in 0..9"),
        (np.array([[10]]), "token id 10 in window 0"),
    ],
)
def test_bad_windows(windows, message):
    with pytest.raises(MemtaxError, match=message):
        count(Rows([[1]]), windows, vocabulary_size=10)


def test_a_dataset_counts_like_its_lists():
    rows = np.random.default_rng(1).integers(0, 50, (500, 20)).tolist()
    corpus = open_corpus(datasets.Dataset.from_dict({"tokens": rows}), block_tokens=130)
    windows = np.array([rows[3][2:7], rows[3][2:7], rows[499][15:], [1, 2, 3, 4, 5]])
    assert count(corpus, windows).window_counts.tolist() == [occurrences(rows, window) for window in windows.tolist()]


def test_written_tables_hold_every_id_and_every_window(tmp_path):
    write_counts(tmp_path / "counts", [9, 4], Counts(np.array([3, 0, 1]), np.array([2, 0]), 4, 1))
    duplicates = pq.read_table(tmp_path / "counts" / "num_duplicates.parquet")
    frequencies = pq.read_table(tmp_path / "counts" / "token_frequencies.parquet")
    assert duplicates.to_pydict() == {"sequence_id": [9, 4], "sequence_duplicates": [2, 0]}
    assert frequencies.to_pydict() == {"token_id": [0, 1, 2], "token_frequency": [3, 0, 1]}
    assert sorted(path.name for path in (tmp_path / "counts").iterdir()) == [
        "num_duplicates.parquet",
        "token_frequencies.parquet",
    ]


def test_writing_refuses_ids_that_do_not_fit(tmp_path):
    counts = Counts(np.array([1]), np.array([2, 0]), 1, 1)
    with pytest.raises(MemtaxError, match="3 sequence ids for 2 counted windows"):
        write_counts(tmp_path, [1, 2, 3], counts)
    with pytest.raises(MemtaxError, match="sequence_id 5 occurs more than once"):
        write_counts(tmp_path, [5, 5], counts)
