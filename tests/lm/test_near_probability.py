"""Bounds on the probability of nearly a continuation against enumeration of everything that can be drawn."""

import itertools
import math

import numpy as np
import pytest
import torch

from helpers.models import build
from memtax.errors import MemtaxError
from memtax.filters.language_model import LanguageModelFilter
from memtax.lm.decoding import Decoding
from memtax.lm.near_probability import near_logprobs, near_probability


def distance(a, b):
    """Levenshtein distance, by its recursion."""
    if not a or not b:
        return len(a) + len(b)
    return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))


class Table:
    """A model of random distributions, from which only the three most likely tokens of four are drawn."""

    def __init__(self, seed):
        self.seed, self.prefixes = seed, []

    def logprobs(self, prefix):
        logits = np.random.default_rng([self.seed, len(prefix), *prefix]).normal(scale=2, size=4)
        logits[logits.argmin()] = -np.inf
        return logits - np.log(np.exp(logits).sum())

    def __call__(self, parents, last):
        self.prefixes = [(*self.prefixes[row], token) for row, token in zip(parents, last, strict=True)] or [()]
        return np.stack([self.logprobs(prefix) for prefix in self.prefixes])


@pytest.mark.parametrize("seed", range(6))
def test_bounds_enclose_the_enumerated_probability(seed):
    model, true = Table(seed), np.random.default_rng(seed).integers(0, 4, 4).tolist()
    drawn = {
        row: sum(model.logprobs(row[:place])[token] for place, token in enumerate(row))
        for row in itertools.product(range(4), repeat=4)
    }
    measures = {"levenshtein": distance, "hamming": lambda a, b: sum(x != y for x, y in zip(a, b, strict=True))}
    for name, edits in itertools.product(measures, (0, 1, 2, 4)):
        exact = math.fsum(math.exp(value) for row, value in drawn.items() if measures[name](list(row), true) <= edits)
        for width in (1, 2, 8, None):
            low, high = (math.exp(value) for value in near_probability(model, true, edits, width, name))
            assert low <= exact + 1e-12
            assert high >= exact - 1e-12
            # The true continuation is kept however unlikely it is.
            assert low >= math.exp(drawn[tuple(true)]) * (1 - 1e-12)
            if width is None:
                assert low == pytest.approx(exact, abs=1e-12)
        if edits == 4:
            assert low == pytest.approx(1)


def test_wrong_numbers_are_refused():
    for options in ({"true": [], "edits": 1}, {"edits": -1}, {"edits": 1, "width": 0}, {"edits": 1, "distance": "cosine"}):
        with pytest.raises(MemtaxError, match=r"edits|width|cosine"):
            near_probability(Table(0), **{"true": [1], **options})


@torch.no_grad()
@pytest.mark.parametrize(("name", "scheme"), [("llama", Decoding(0.7, 4, 0.9)), ("gpt2", None), ("recurrent_gemma", None)])
def test_a_model_gives_the_bounds_of_its_own_forward_pass(name, scheme):
    model = build(name, vocab_size=6)
    row = [1, 2, 3, 4, 0, 1, 5]
    rest = list(itertools.product(range(6), repeat=3))
    logits = model(input_ids=torch.tensor([row[:4] + list(one) for one in rest])).logits[:, 3:-1]
    flat = logits.reshape(-1, 6).float()
    chosen = torch.tensor(rest).reshape(-1)
    drawn = (flat.log_softmax(-1)[range(len(flat)), chosen] if scheme is None else scheme.logprobs(flat, chosen)).reshape(-1, 3)
    exact = sum(
        math.exp(total)
        for one, total in zip(rest, drawn.double().sum(1).tolist(), strict=True)
        if distance(list(one), row[4:]) <= 1
    )
    whole, short = near_logprobs(model, [row, row[:6]], [4, 4], 3, 1, width=300, decoding=scheme)
    assert short is None
    assert math.exp(whole.low) == pytest.approx(exact, rel=1e-4)
    assert whole.low == pytest.approx(whole.high)


def test_the_filter_bounds_from_the_continuations_own_probability_on(tmp_path):
    build("gpt2").save_pretrained(tmp_path)
    rows = {"tokens": [list(range(10)), list(range(20, 30)), [1, 2, 3]]}
    options = {"prompt": 5, "continuation": 4, "top_k": 20}
    verbatim = LanguageModelFilter(str(tmp_path), **options, edits=0)(rows)
    assert verbatim["near_logprob"] == verbatim["near_logprob_most"] == verbatim["decoding_logprob"]
    near = LanguageModelFilter(str(tmp_path), **options, edits=1, beam=5)(rows)
    assert near["near_logprob"][2] is near["near_logprob_most"][2] is None
    for name in ("near_logprob", "near_logprob_most"):
        for wider, own in zip(near[name][:2], near["decoding_logprob"][:2], strict=True):
            assert own <= wider <= 0
    assert all(low <= high for low, high in zip(near["near_logprob"][:2], near["near_logprob_most"][:2], strict=True))
