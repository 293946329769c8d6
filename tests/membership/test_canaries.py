"""Exposure and extraction of planted canaries, against closed forms, slow oracles and a model whose output is known."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from helpers.small import WORDS, word_tokenizer
from memtax.errors import MemtaxError
from memtax.membership.canaries import (
    Canary,
    chance_exposure,
    conclusion,
    exposure,
    find_record,
    read_out,
    read_record,
    summarize,
)


def test_exposure_is_the_logarithm_of_candidates_over_rank():
    # 7 held out with likelihoods 0 to 6, so 8 candidates and at most log2(8) = 3 bits. Above all: rank 1, 3 bits. Between
    # 4 and 5 two are likelier: rank 3, 3 - log2(3). Below all: rank 8, 0 bits. A tie with 6 counts against: rank 2, 2 bits.
    found = exposure([9.0, 4.5, -1.0, 6.0], range(7))
    assert found == pytest.approx([3, 3 - math.log2(3), 0, 2])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-9, 9), min_size=1, max_size=20), st.lists(st.integers(-9, 9), min_size=1, max_size=20))
def test_exposure_equals_a_loop(planted, held_out):
    slow = [math.log2(len(held_out) + 1) - math.log2(1 + sum(other >= own for other in held_out)) for own in planted]
    assert exposure(planted, held_out) == pytest.approx(slow, abs=1e-12)


def test_by_chance_all_ranks_are_as_likely():
    # One held out: ranks 1 and 2, exposures 1 and 0, mean 1/2. The mean of log2(N) - log2(1..N) tends to 1 / ln 2 (Stirling).
    assert chance_exposure(1) == pytest.approx(0.5)
    assert chance_exposure(10**6) == pytest.approx(1 / math.log(2), abs=1e-4)
    # And that is the mean that unlearned canaries have: 4,000 draws, standard error about 1.44 / sqrt(4000) = 0.023.
    rng = np.random.default_rng(0)
    draws = [exposure(rng.normal(size=1), rng.normal(size=63))[0] for _ in range(4000)]
    assert np.mean(draws) == pytest.approx(chance_exposure(63), abs=0.1)


def test_summary_by_repetitions():
    canaries = [Canary((1, 2), times) for times in (16, 1, 16, 0, 0, 0)]
    found = summarize(canaries, [5, 1, 0, 3, 2, 1], [True, False, False, False, False, True])
    # Ranks among three held out (3, 2, 1): 5 is 1st of 4 (2 bits); 1 ties with the last, so 4th (0 bits); 0 is 4th (0 bits).
    once, often = found["by_repetitions"]
    assert (once["repetitions"], once["canaries"], once["memorized"]) == (1, 1, 0)
    assert (often["repetitions"], often["canaries"], often["memorized"]) == (16, 2, 1)
    assert often["exposure"] == {"mean": 1.0, "least": 0.0, "most": 2.0, "low": None, "high": None}
    assert (found["planted"], found["held_out"], found["most_bits"], found["held_out_extracted"]) == (3, 3, 2.0, 1)
    # Clopper-Pearson of 0 out of 1: the upper end u solves 1 - u = 0.025.
    assert (once["low"], once["high"]) == (0.0, pytest.approx(0.975))
    # By chance: log2(4) - (log2(1) + log2(2) + log2(3) + log2(4)) / 4 = 0.85 bits.
    stand = "0.0 bits planted once (1 canary), 1.0 bits planted 16 times (2 canaries)"
    most = "0.9 is expected by chance, and 2.0 is the maximum with 4 candidates"
    assert conclusion(found) == f"Canaries are extracted: 1 of 2 planted 16 times. Mean exposure: {stand}; {most}"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model with random weights, and one whose weights are all 0: to it every token is as likely as any other."""
    torch.manual_seed(1)
    config = GPTNeoXConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    model = GPTNeoXForCausalLM(config)
    folders = []
    for name in ("random", "flat"):
        folders.append(tmp_path_factory.mktemp(name))
        if name == "flat":
            for weight in model.parameters():
                torch.nn.init.zeros_(weight)
        model.save_pretrained(folders[-1])
        word_tokenizer().save_pretrained(folders[-1])
    return folders


def test_a_model_that_knows_nothing_exposes_nothing(models):
    # All likelihoods are equal and a tie counts against: 0 bits. Of equal logits the first token is the argmax, so
    # greedy decoding gives zeros.
    canaries = [Canary((3, 4, 5, 6), 1), Canary((7, 8, 0, 0), 2), Canary((5, 5, 5, 5, 5), 0), Canary((1, 2, 3, 4), 0)]
    found = read_out(canaries, str(models[1]))
    assert [row["exposure"] for row in found["each"]] == [0.0, 0.0]
    assert [row["extracted"] for row in found["each"]] == [False, True]


def test_read_out_equals_the_model_asked_directly(models):
    rng = np.random.default_rng(2)
    canaries = [
        Canary(tuple(rng.integers(0, len(WORDS), size).tolist()), place % 3) for place, size in enumerate([8, 9, 8, 7] * 9)
    ]
    model = GPTNeoXForCausalLM.from_pretrained(models[0]).eval()
    # What greedy decoding gives is made one of the canaries, so that something is extracted.
    start = torch.tensor([canaries[1].tokens[:4]])
    with torch.no_grad():
        while start.shape[1] < 8:
            start = torch.cat([start, model(start).logits[:, -1:].argmax(-1)], 1)
    canaries[1] = Canary(tuple(start[0].tolist()), 5)
    likelihood, extracted = [], []
    for canary in canaries:
        ids = torch.tensor([canary.tokens])
        with torch.no_grad():
            logits = model(ids).logits[0, :-1].double()
        own = torch.log_softmax(logits, -1)[torch.arange(len(canary.tokens) - 1), ids[0, 1:]]
        likelihood.append(own.mean().item())
        half = len(canary.tokens) // 2
        extracted.append(bool((logits.argmax(-1)[half - 1 :] == ids[0, half:]).all()))
    expected, found = summarize(canaries, likelihood, extracted), read_out(canaries, str(models[0]))
    assert found == expected
    assert sum(row["extracted"] for row in found["each"]) >= 1


def write(folder, member, nonmember):
    (folder / "canaries").mkdir(parents=True)
    for kind, rows in (("member", member), ("nonmember", nonmember)):
        if rows is not None:
            (folder / "canaries" / f"canaries.{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_record_that_cannot_be_used_is_named(tmp_path):
    good, held = {"tokens": [1, 2, 3], "repetitions": 2}, {"tokens": [3, 2, 1], "repetitions": 0}
    write(tmp_path / "a", [good], [held])
    assert read_record(tmp_path / "a") == [Canary((1, 2, 3), 2), Canary((3, 2, 1), 0)]
    assert find_record(tmp_path / "a") == find_record(tmp_path / "a" / "canaries") == tmp_path / "a" / "canaries"
    assert find_record(tmp_path) is None
    assert find_record("org/name-on-the-hub") is None
    with pytest.raises(MemtaxError, match="no record of planted canaries"):
        read_record(tmp_path)
    for name, member, nonmember, said in (
        ("b", [good], None, "nonmember.jsonl is missing"),
        ("c", [{"tokens": [1, 2]}], [held], "canaries.member.jsonl: repetitions is missing"),
        ("d", [held], [held], "line 1: 3 tokens, planted 0 times"),
        ("e", [{"tokens": [1], "repetitions": 1}], [held], "line 1: 1 tokens"),
    ):
        write(tmp_path / name, member, nonmember)
        with pytest.raises(MemtaxError, match=said):
            read_record(tmp_path / name)
    with pytest.raises(MemtaxError, match="cannot be ranked"):
        exposure([1.0], [])
    with pytest.raises(MemtaxError, match="NaN"):
        exposure([float("nan")], [1.0])


def test_the_ranking_subtracts_the_base_model(models):
    rng = np.random.default_rng(3)
    canaries = [Canary(tuple(rng.integers(0, len(WORDS), 8).tolist()), place % 2) for place in range(20)]
    # A base model of zeros subtracts log V from each: the ranks stay. The model itself as base leaves zeros, all tied.
    alone, flat, same = (read_out(canaries, str(models[0]), base=base) for base in (None, str(models[1]), str(models[0])))
    assert [row["exposure"] for row in flat["each"]] == pytest.approx([row["exposure"] for row in alone["each"]])
    assert {row["exposure"] for row in same["each"]} == {0.0}
    assert ("base" in alone, flat["base"]) == (False, str(models[1]))


def test_canaries_with_a_coin_bound_epsilon_whatever_the_order_of_the_record():
    # 20 in above 20 out; 7 candidates without a coin do not enter.
    tossed = [Canary((place, 1), int(place < 20), coin=True) for place in range(40)]
    others = [Canary((90 + place, 1), 0) for place in range(7)]
    found = summarize([*tossed, *others], [*range(40, 0, -1), *[99] * 7], [False] * 47)["epsilon"]
    assert (found["canaries"], found["guesses"], found["right"]) == (40, 40, 40)
    # All tied: right guesses depend on tokens alone, not on planted ones being listed first.
    tied = [Canary((place * 7 % 40, 1), place % 2, coin=True) for place in range(40)]
    listed = sorted(tied, key=lambda canary: -canary.repetitions)
    assert summarize(listed, [0.0] * 40, [False] * 40)["epsilon"] == summarize(tied, [0.0] * 40, [False] * 40)["epsilon"]
    assert summarize([Canary((1, 2), 1), Canary((1, 3), 0)], [1, 0], [False] * 2)["epsilon"] is None
