from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtax.errors import MemtaxError
from memtax.pipeline import guess_recall
from memtax.pipeline.guess_recall import by_duplicates, by_overlap, cross_tabulate, rouge_l, rouge_n

tokens = st.lists(st.integers(0, 4), max_size=12)


def test_by_duplicates_by_hand():
    memorized = [True, True, False, False, None, True]
    duplicates = [50, 51, 1000, None, 3, None]
    # More than 50 is recall; a sequence that is not memorized needs no count, a memorized one does.
    assert by_duplicates(memorized, duplicates, threshold=50) == [1, 2, 0, 0, None, None]
    with pytest.raises(TypeError):
        by_duplicates(memorized, duplicates)  # nobody's value is the default
    with pytest.raises(MemtaxError, match="at least 0, got -1"):
        by_duplicates([True], [1], threshold=-1)
    with pytest.raises(MemtaxError, match="duplicates is -1"):
        by_duplicates([True], [-1], threshold=5)
    with pytest.raises(MemtaxError, match="is_memorized 1, duplicates 2"):
        by_duplicates([True], [1, 2], threshold=5)


def test_by_overlap_by_hand():
    copy = [*range(32), *range(32)]
    other = [*range(32), *range(100, 132)]
    # Half of the continuation, in order but never three in a row: ROUGE-L is 16 / 32, ROUGE-3 is 0.
    half = [*range(32), *(place if place % 2 else 200 + place for place in range(32))]
    less = [*range(32), *(place if place % 2 and place > 1 else 200 + place for place in range(32))]
    rows = [copy, other, half, less, other, other, other, None, None]
    memorized = [True, True, True, True, False, True, True, True, False]
    template = [False, False, False, False, False, True, None, True, False]
    assert by_overlap(memorized, template, rows) == [1, 2, 1, 2, 0, 1, None, 1, 0]
    assert by_overlap([True], [None], [copy]) == [1]
    assert by_overlap([True], [False], [None]) == [None]
    with pytest.raises(MemtaxError, match="overlap"):
        by_overlap([True], [False], [copy], overlap=0)


@given(tokens, tokens)
def test_rouge_equals_a_plain_computation(first, second):
    table = np.zeros((len(first) + 1, len(second) + 1), int)
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            table[i + 1, j + 1] = table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
    longest = table[-1, -1]
    # F of precision longest / len(second) and recall longest / len(first).
    expected = 0.0
    if longest:
        precision, recall = longest / len(second), longest / len(first)
        expected = 2 * precision * recall / (precision + recall)
    assert rouge_l(first, second) == pytest.approx(expected)
    grams = [Counter(tuple(text[i : i + 3]) for i in range(len(text) - 2)) for text in (first, second)]
    common = sum(min(grams[0][gram], grams[1][gram]) for gram in grams[0])
    total = sum(grams[0].values()) + sum(grams[1].values())
    assert rouge_n(first, second, 3) == pytest.approx(2 * common / total if total else 0.0)


def test_cross_tabulation():
    taxonomy = [0, 0, 1, 2, None, 2]
    labels = [2, 2, 1, 0, 1, None]
    counts = cross_tabulate(taxonomy, labels)
    assert counts["recitation"]["recall"] == 2
    assert counts["reconstruction"] == {"not memorized": 0, "guess": 1, "recall": 0, "unknown": 0, "all": 1}
    assert counts["unknown"]["guess"] == counts["recollection"]["unknown"] == 1
    assert counts["all"] == {"not memorized": 1, "guess": 2, "recall": 2, "unknown": 1, "all": 6}
    for column in (*guess_recall.LABELS, "unknown"):
        assert counts["all"][column] == sum(counts[row][column] for row in counts if row != "all")
