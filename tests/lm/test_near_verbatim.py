"""Near-verbatim measures against loops, and on continuations that a model generates."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.models import build, random_sequences
from helpers.small import word_tokenizer
from memtax.filters.language_model import LanguageModelFilter
from memtax.lm.matching import Recall, edit_distance, longest_common_block, near_verbatim_recall

tokens = st.lists(st.integers(0, 3), max_size=12)


def slow_distance(a, b):
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    table[:, 0], table[0] = range(len(a) + 1), range(len(b) + 1)
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (x != y))
    return table[-1, -1]


@settings(max_examples=200, deadline=None)
@given(tokens, tokens)
def test_measures_are_those_of_loops(a, b):
    runs = {tuple(a[start:stop]) for start in range(len(a)) for stop in range(start + 1, len(a) + 1)}
    others = {tuple(b[start:stop]) for start in range(len(b)) for stop in range(start + 1, len(b) + 1)}
    assert edit_distance(a, b) == slow_distance(a, b)
    assert longest_common_block(a, b) == max(map(len, runs & others), default=0)


@torch.no_grad()
def test_the_filter_measures_the_models_own_continuation(tmp_path):
    model = build("gpt2")
    model.save_pretrained(tmp_path)
    rows = [*random_sequences([14, 14, 9], seed=1)]
    # A continuation with one token left out of what the model generates: distance 2 at most, far from it by position.
    ids = torch.tensor([rows[0][:6]])
    for _ in range(9):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
    made = ids[0, 6:].tolist()
    rows += [[*rows[0][:6], *made[:8]], [*rows[0][:6], *made[:3], *made[4:9]]]
    found = LanguageModelFilter(str(tmp_path), prompt=6, continuation=8, generated=True)({"tokens": rows})
    assert found["memorization_score"][3:] == [
        1.0,
        pytest.approx(np.mean([a == b for a, b in zip(rows[4][6:], made[:8], strict=True)])),
    ]
    assert found["continuation_edit_distance"] == [
        slow_distance(made[:8], rows[0][6:]),
        found["continuation_edit_distance"][1],
        None,
        0,
        slow_distance(made[:8], rows[4][6:]),
    ]
    assert found["continuation_edit_distance"][4] <= 2
    assert found["longest_common_block"][2:4] == [None, 8]
    assert found["longest_common_block"][4] >= 4


WORDS = [f"word{number}" for number in range(150)]
NEW = [f"new{number}" for number in range(10)]


@pytest.mark.parametrize(
    ("generated", "recall", "missing", "additional", "passages"),
    [
        ([*WORDS[:60], *NEW[:5], *WORDS[60:120], *NEW[5:], *WORDS[120:]], 1.0, 0, 10, 1),
        ([*WORDS[:60], *WORDS[65:]], 0.0, 150, 145, 0),
        ([*WORDS[:60], *WORDS[63:]], 147 / 150, 3, 0, 1),
        (WORDS[:99], 0.0, 150, 99, 0),
        (WORDS[:100], 100 / 150, 50, 0, 1),
        ([], 0.0, 150, 0, 0),
    ],
)
def test_near_verbatim_recall_counts_words_of_long_passages(generated, recall, missing, additional, passages):
    assert near_verbatim_recall(WORDS, generated) == Recall(recall, passages, missing, additional)
    assert near_verbatim_recall([], generated).recall is None


def slow_blocks(a, b, low_a, high_a, low_b, high_b):
    """The longest common run (the first of several, in a and then in b), and likewise on both sides of it."""
    size, neg_i, neg_j = max(
        (
            (
                next((n for n in range(min(high_a - i, high_b - j)) if a[i + n] != b[j + n]), min(high_a - i, high_b - j)),
                -i,
                -j,
            )
            for i in range(low_a, high_a)
            for j in range(low_b, high_b)
        ),
        default=(0, 0, 0),
    )
    i, j = -neg_i, -neg_j
    if not size:
        return []
    before, after = slow_blocks(a, b, low_a, i, low_b, j), slow_blocks(a, b, i + size, high_a, j + size, high_b)
    return [*before, (i, j, size), *after]


def slow_recall(true, generated, passes):
    """By the steps of the paper, blocks as sets of pairs of positions."""
    blocks = [
        [(i + n, j + n) for n in range(size)] for i, j, size in slow_blocks(true, generated, 0, len(true), 0, len(generated))
    ]
    for gap, lag, shortest in passes:
        place = 0
        while place + 1 < len(blocks):
            (i, j), (k, m) = blocks[place][-1], blocks[place + 1][0]
            missed, added = k - i - 1, m - j - 1
            if missed <= gap and added <= gap and missed <= added + lag:
                blocks[place : place + 2] = [blocks[place] + blocks[place + 1]]
            else:
                place += 1
        blocks = [block for block in blocks if len(block) >= shortest]
    return sum(map(len, blocks)), len(blocks)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=30), st.data())
def test_near_verbatim_recall_is_that_of_the_papers_steps(true, data):
    generated = data.draw(st.lists(st.integers(0, 9), max_size=30) if data.draw(st.booleans()) else edited(true))
    for passes in (((1, 0, 2), (3, 1, 4)), ((2, 1, 3),), ((0, 0, 1),)):
        count, passages = slow_recall(true, generated, passes)
        found = near_verbatim_recall(true, generated, passes)
        assert (found.missing, found.additional, found.passages) == (len(true) - count, len(generated) - count, passages)
        assert found.recall == (count / len(true) if true else None)


@st.composite
def edited(draw, true):
    """A text with some of its words left out, replaced or doubled."""
    kinds = draw(st.lists(st.sampled_from("kkkkkkdri"), min_size=len(true), max_size=len(true)))
    pieces = {"k": lambda x: [x], "d": lambda x: [], "r": lambda x: [x + 20], "i": lambda x: [x, 30, 31]}
    return [word for kind, x in zip(kinds, true, strict=True) for word in pieces[kind](x)]


@torch.no_grad()
def test_words_of_long_continuations_are_recalled(tmp_path):
    model = build("gpt2", n_positions=126)
    model.save_pretrained(tmp_path)
    word_tokenizer([f"w{number}" for number in range(101)]).save_pretrained(tmp_path)
    ids = torch.tensor(random_sequences([6], seed=2))
    for _ in range(120):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
    made = ids[0].tolist()
    rows = [made, [*made[:106], *[(token + 1) % 101 for token in made[106:]]], [*made[:60], *random_sequences([66], seed=3)[0]]]
    found = LanguageModelFilter(str(tmp_path), prompt=6, continuation=120, generated=True)({"tokens": rows})
    assert found["near_verbatim_recall"] == [1.0, pytest.approx(near_verbatim_recall(rows[1][6:], made[6:]).recall), 0.0]
    assert found["near_verbatim_recall"][1] >= 100 / 120
    assert found["block_recall"][2] >= 54 / 120
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").unlink()
    bare = LanguageModelFilter(str(tmp_path), prompt=6, continuation=120, generated=True)({"tokens": rows})
    assert bare["near_verbatim_recall"] == [None] * 3
