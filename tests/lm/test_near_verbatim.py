"""Near-verbatim measures against loops, and on continuations that a model generates."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.models import build, random_sequences
from memtax.filters.language_model import LanguageModelFilter
from memtax.lm.matching import edit_distance, longest_common_block

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
