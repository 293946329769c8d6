"""Near-duplicates against a plain comparison of every window with every place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memtax.corpus.contract import Block
from memtax.counting import near_kernels
from memtax.counting.counter import count
from memtax.errors import MemtaxError


class Rows:
    vocabulary_size = None
    identity = None

    def __init__(self, rows, dtype=np.int32, step=3):
        self.sequences, self.dtype, self.step = rows, dtype, step
        self.rows, self.tokens = len(rows), sum(map(len, rows))

    def shards(self, tokens):
        return [self]

    def blocks(self):
        for start in range(0, len(self.sequences), self.step):
            part = self.sequences[start : start + self.step]
            flat = np.array([token for row in part for token in row], self.dtype)
            yield Block(flat, np.cumsum([0, *map(len, part)], dtype=np.int64), start)


def near(rows, window, substitutions, separator=None):
    """Oracle: Hamming distance at every place where the whole window fits."""
    width, total = len(window), 0
    for row in rows:
        for i in range(len(row) - width + 1):
            place = row[i : i + width]
            close = sum(a != b for a, b in zip(place, window, strict=True)) <= substitutions
            total += close and separator not in place and separator not in window
    return total


@settings(deadline=None, max_examples=120)
@given(
    rows=st.lists(st.lists(st.integers(0, 2), max_size=40), min_size=1, max_size=8),
    width=st.integers(1, 12),
    share=st.floats(0, 0.99),
    dtype=st.sampled_from([np.int32, np.uint16]),
    separator=st.sampled_from([None, 2]),
    seed=st.integers(0, 2**31),
)
def test_near_duplicates_equal_brute_force(rows, width, share, dtype, separator, seed):
    substitutions = int(share * width)
    windows = [row[i : i + width] for row in rows for i in range(len(row) - width + 1)][:15]
    windows += np.random.default_rng(seed).integers(0, 3, (4, width)).tolist()
    # An id that no uint16 corpus can hold is a substitution wherever it stands; 65536 would wrap to 0.
    windows += [[65536, *windows[-1][1:]]]
    found = count(Rows(rows, dtype), np.array(windows), substitutions=substitutions, separator=separator)
    assert found.near[0].tolist() == [near(rows, window, substitutions, separator) for window in windows]


def test_heavy_segments_count_right():
    # 40 windows of one run with one token replaced, over a corpus of runs: every segment is shared by far more than
    # near_kernels.HEAVY windows, and almost all places are equal.
    rng = np.random.default_rng(0)
    windows = np.zeros((60, 16), np.int64)
    windows[np.arange(60), rng.integers(0, 16, 60)] = rng.integers(1, 5, 60)
    rows = [[0] * 300, [0] * 90 + [1] + [0] * 90, [0, 0, 0, 1] * 40, rng.integers(0, 2, 200).tolist(), [0] * 15]
    assert len(np.unique(windows, axis=0)) > 2 * near_kernels.HEAVY
    for substitutions in (0, 1, 3):
        found = count(Rows(rows, np.uint16, 2), windows, substitutions=substitutions)
        assert found.near[0].tolist() == [near(rows, window, substitutions) for window in windows.tolist()]


def test_no_substitutions_are_exact_counts():
    rows = np.random.default_rng(1).integers(0, 3, (20, 60)).tolist()
    windows = np.array([row[8:18] for row in rows])
    found = count(Rows(rows), windows, substitutions=0)
    assert found.near[0].tolist() == found.window_counts.tolist()


def test_substitutions_must_fit():
    for substitutions in (-1, 4):
        with pytest.raises(MemtaxError, match=f"{substitutions} substitutions do not fit windows of 4 tokens; use 0 to 3"):
            count(Rows([[1] * 9]), np.array([[1, 1, 1, 1]]), substitutions=substitutions)


@pytest.mark.parametrize(("vocabulary", "dtype"), [(2, np.uint16), (300, np.uint16), (300, np.int32)])
def test_places_collected_over_many_stripes_equal_brute_force(vocabulary, dtype):
    """With 300 ids few places a stripe are looked up, so rounds fill across them; with 2 ids, many."""
    rng = np.random.default_rng(5)
    rows = [rng.integers(0, vocabulary, length) for length in (900, 31, 1500, 0, 32, 700, 64, 2100)] + [
        np.zeros(2000, np.int64)
    ]
    windows = np.array([rows[2][start : start + 32] for start in range(0, 1400, 25)])
    windows[:14, :8] = 0
    for number, window in enumerate(windows[14:]):
        row, start = rows[(0, 2, 5, 7)[number % 4]], int(rng.integers(0, 600))
        row[start : start + 32] = window
        row[start + rng.integers(0, 32, number % 5)] = rng.integers(0, vocabulary, number % 5)
    found = count(Rows([row.tolist() for row in rows], dtype, step=len(rows)), windows, substitutions=3)
    views = [np.lib.stride_tricks.sliding_window_view(row, 32) for row in rows if len(row) >= 32]
    wrong = [np.concatenate([(view != window).sum(axis=1) for view in views]) for window in windows]
    assert found.window_counts.tolist() == [int((each == 0).sum()) for each in wrong]
    assert found.near[0].tolist() == [int((each <= 3).sum()) for each in wrong]
    assert found.near[0].sum() > found.window_counts.sum() > 0
