"""The coding lengths against hand-built codes, entropy bounds and a heap oracle."""

import heapq
import math
import pickle
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtax.errors import MemtaxError
from memtax.filters import filter_class
from memtax.filters.compressibility import CompressibilityFilter, huffman_coding_length, shannon_coding_length

TEXTS = ["aaaabbc", "", None, "z", "zzzz", "the cat sat on the mat", "\x00\ud7ff é", "0, 1, 2"]


def huffman_by_heap(text):
    """Textbook Huffman: build the tree with a heap, then read off the depth of every leaf."""
    counts = Counter(text)
    if len(counts) == 1:
        return 0.0
    heap = [(count, order, {symbol: 0}) for order, (symbol, count) in enumerate(counts.items())]
    heapq.heapify(heap)
    while len(heap) > 1:
        a, _, left = heapq.heappop(heap)
        b, order, right = heapq.heappop(heap)
        heapq.heappush(heap, (a + b, order, {s: d + 1 for s, d in {**left, **right}.items()}))
    depths = heap[0][2]
    assert math.isclose(sum(2.0**-d for d in depths.values()), 1.0)  # Kraft: a full prefix code
    return sum(counts[s] * d for s, d in depths.items()) / len(text)


def test_hand_built_codes():
    # a:4, b:2, c:1 of 7. Huffman: a=0, b=10, c=11 -> (4*1 + 2*2 + 1*2) / 7 = 10/7.
    # Shannon: ceil(log2(7/4)) = 1, ceil(log2(7/2)) = 2, ceil(log2 7) = 3 -> (4 + 4 + 3) / 7 = 11/7.
    assert huffman_coding_length("aaaabbc") == 10 / 7
    assert shannon_coding_length("aaaabbc") == 11 / 7


def test_dyadic_frequencies_reach_the_entropy():
    # p = 1/2, 1/4, 1/8, 1/8: entropy = 1/2 + 2/4 + 3/8 + 3/8 = 1.75, and both codes attain it.
    assert huffman_coding_length("aaaabbcd") == 1.75
    assert shannon_coding_length("aaaabbcd") == 1.75


def test_one_distinct_character_costs_nothing_and_no_character_has_no_mean():
    assert huffman_coding_length("zzzz") == shannon_coding_length("zzzz") == 0.0
    assert huffman_coding_length("") is shannon_coding_length("") is None


@given(st.text(min_size=1, max_size=200))
def test_huffman_agrees_with_a_heap_and_keeps_the_bounds(text):
    huffman, shannon = huffman_coding_length(text), shannon_coding_length(text)
    entropy = -sum(c / len(text) * math.log2(c / len(text)) for c in Counter(text).values())
    assert huffman == pytest.approx(huffman_by_heap(text), abs=1e-12)
    assert entropy - 1e-9 <= huffman <= shannon < entropy + 1 + 1e-9


@given(st.text(min_size=1, max_size=80), st.randoms())
def test_order_and_naming_of_characters_do_not_matter(text, random):
    shuffled = "".join(random.sample(text, len(text)))
    renamed = [hash((character, "salt")) for character in text]
    for length in (huffman_coding_length, shannon_coding_length):
        assert length(text) == length(shuffled) == length(renamed)


def test_filter_gives_the_functions_values_and_none_without_text():
    added = CompressibilityFilter()({"text": TEXTS})
    assert added["huffman_coding_length"] == [huffman_coding_length(t) if t else None for t in TEXTS]
    assert added["shannon_coding_length"] == [shannon_coding_length(t) if t else None for t in TEXTS]


def test_per_token_adds_a_column_and_requires_tokens():
    per_token = pickle.loads(pickle.dumps(CompressibilityFilter(per_token=True)))
    added = per_token({"text": ["abab", "x", None], "tokens": [[5, 5, 5, 5, 7, 7, 9], [], None]})
    # Token counts 4, 2, 1: the same code as for "aaaabbc".
    assert added["huffman_token_coding_length"] == [10 / 7, None, None]
    with pytest.raises(MemtaxError, match="tokens"):
        per_token({"text": ["abab"]})
    assert CompressibilityFilter.columns == ("huffman_coding_length", "shannon_coding_length")
    assert per_token.fingerprint != CompressibilityFilter().fingerprint


def test_batch_size_invariance_under_map():
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_dict({"text": TEXTS})
    tables = [CompressibilityFilter().apply(dataset, batch_size=size).to_dict() for size in (1, 3, 100)]
    assert tables[0] == tables[1] == tables[2]
    assert tables[0]["huffman_coding_length"][1] is None


def test_catalogue_name():
    assert filter_class("compressibility") is CompressibilityFilter


def test_one_megabyte_of_one_character():
    assert huffman_coding_length("q" * 1_000_000) == 0.0
