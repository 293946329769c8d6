"""Extraction columns: hand-worked values, and a model that has memorized something against greedy generation."""

import copy
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.models import build, oracle, random_sequences
from memtax.lm import extraction
from memtax.lm.scores import TokenScores, score

PROMPT, CONTINUATION = 6, 10
EOS = 3


def scores_of(rows):
    """TokenScores of (logprobs, match) rows."""
    return TokenScores(
        np.array([x for logprobs, _ in rows for x in logprobs], dtype=np.float32),
        np.array([x for _, match in rows for x in match], dtype=bool),
        np.concatenate([[0], np.cumsum([len(logprobs) for logprobs, _ in rows])]).astype(np.int64),
    )


@pytest.fixture(scope="module")
def memorized():
    """A tiny GPT-NeoX overfitted on half of its sequences, one of which holds end-of-sequence in its continuation."""
    model = build("gpt_neox", hidden_size=64, initializer_range=0.05)
    sequences = random_sequences([PROMPT + CONTINUATION] * 12, seed=5)
    sequences[0][PROMPT + 4] = EOS
    # Two that leave the learned path half-way, so that matches of every length occur.
    sequences[10] = sequences[1][:11] + sequences[10][11:]
    sequences[11] = [*sequences[2][:-1], (sequences[2][-1] + 1) % 101]
    data = torch.tensor(sequences[:6])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(150):
        model(input_ids=data, labels=data).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval(), sequences


def test_extraction_equals_greedy_generation(memorized):
    model, sequences = memorized
    generated = model.generate(
        torch.tensor(sequences)[:, :PROMPT],
        attention_mask=torch.ones(len(sequences), PROMPT, dtype=torch.long),
        do_sample=False,
        max_new_tokens=CONTINUATION,
        eos_token_id=None,  # end-of-sequence neither stops nor is suppressed
        pad_token_id=0,
    )[:, PROMPT:].tolist()
    found = extraction.columns(score(model, sequences), PROMPT, CONTINUATION)
    truth = [sequence[PROMPT:] for sequence in sequences]
    assert found["is_memorized"] == [g == t for g, t in zip(generated, truth, strict=True)]
    leading = [
        next((i for i, (a, b) in enumerate(zip(g, t, strict=True)) if a != b), CONTINUATION)
        for g, t in zip(generated, truth, strict=True)
    ]
    assert found["match_length"] == leading
    # Both outcomes and something between occur, and the sequence with end-of-sequence is one of the memorized.
    assert {True, False} == set(found["is_memorized"])
    assert found["is_memorized"][0]
    assert EOS in generated[0]
    assert set(leading) & set(range(1, CONTINUATION))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_agrees_with_generate_in_half_precision(memorized, dtype):
    model, sequences = memorized
    model = copy.deepcopy(model).to(dtype)
    options = {"do_sample": False, "max_new_tokens": CONTINUATION, "eos_token_id": None, "pad_token_id": 0}
    prompts = torch.tensor(sequences)[:, :PROMPT]
    generated = model.generate(prompts, attention_mask=torch.ones_like(prompts), **options)[:, PROMPT:].tolist()
    scores = score(model, sequences)
    found = extraction.columns(scores, PROMPT, CONTINUATION)
    assert found["is_memorized"] == [g == s[PROMPT:] for g, s in zip(generated, sequences, strict=True)]
    assert scores.logprobs.dtype == np.float32


def test_loss_of_transformers_is_the_log_of_the_sequence_perplexity(memorized):
    model, sequences = memorized
    found = extraction.columns(score(model, sequences), PROMPT, CONTINUATION)["sequence_perplexity"]
    for sequence, perplexity in zip(sequences, found, strict=True):
        ids = torch.tensor([sequence])
        loss = model(input_ids=ids, labels=ids).loss.item()  # shifts the labels itself
        assert math.log(perplexity) == pytest.approx(loss, abs=1e-5)


def test_every_perplexity_divides_by_the_tokens_it_covers(memorized):
    model, sequences = memorized
    found = extraction.columns(score(model, sequences), PROMPT, CONTINUATION)
    for row, sequence in enumerate(sequences):
        logprobs = oracle(model, sequence)[0]  # of tokens 1..15: the prompt's are the first 5, then the continuation's 10
        assert found["prompt_perplexity"][row] == pytest.approx((-logprobs[:5].mean()).exp().item(), rel=1e-4)
        assert found["continuation_perplexity"][row] == pytest.approx((-logprobs[5:].mean()).exp().item(), rel=1e-4)
        assert found["continuation_logprob"][row] == pytest.approx(logprobs[5:].sum().item(), rel=1e-4, abs=1e-4)


def test_hand_worked_columns():
    half = math.log(0.5)
    # Six tokens, prompt 2, continuation 4. Scored: token 1 (prompt, p = 1/4), tokens 2..5 (p = 1/2 each).
    row = ([2 * half, half, half, half, half], [True, True, False, True, True])
    found = extraction.columns(scores_of([row]), 2, 4)
    assert tuple(found) == extraction.COLUMNS
    assert found["prompt_perplexity"] == [pytest.approx(4)]  # 1 / (1/4)
    assert found["continuation_perplexity"] == [pytest.approx(2)]  # four halves, over four tokens
    assert found["sequence_perplexity"] == [pytest.approx(2 ** (6 / 5))]  # six halvings over five tokens
    assert found["is_memorized"] == [False]
    assert found["match_length"] == [1]  # True, then False
    assert found["exact_memorization"] == [0.75]  # three of four
    assert found["extraction_strength"] == [0.5]  # the last two of four match: k* = 2, 1 - 2/4
    assert found["continuation_logprob"] == [pytest.approx(4 * half)]
    assert [type(found[name][0]) for name in ("is_memorized", "match_length")] == [bool, int]


def test_nulls_where_there_is_no_token_to_score():
    # Prompt 3, continuation 2. Rows of 0, 1, 2, 3, 4, 5 and 7 tokens have 0, 0, 1, 2, 3, 4 and 6 scored tokens.
    rows = [([-1.0] * n, [True] * n) for n in (0, 0, 1, 2, 3, 4, 6)]
    found = extraction.columns(scores_of(rows), 3, 2)
    known = {name: [value is not None for value in values] for name, values in found.items()}
    assert known.pop("sequence_perplexity") == [False, False, True, True, True, True, True]
    assert known.pop("prompt_perplexity") == [False, False, False, True, True, True, True]
    assert set(map(tuple, known.values())) == {(False, False, False, False, False, True, True)}


def test_a_prompt_of_one_token_has_no_perplexity():
    found = extraction.columns(scores_of([([-1.0, -1.0], [True, True])]), 1, 2)
    assert found["prompt_perplexity"] == [None]
    assert found["match_length"] == [2]


def test_no_rows():
    assert extraction.columns(scores_of([]), 3, 2) == {name: [] for name in extraction.COLUMNS}


def test_a_hopeless_model_has_infinite_perplexity():
    found = extraction.columns(scores_of([([-math.inf, -1.0], [False, False])]), 1, 2)
    assert found["continuation_perplexity"] == [math.inf]
    assert found["continuation_logprob"] == [-math.inf]


@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_measures_of_one_continuation(match):
    array, total = np.array([match]), len(match)
    least = next(k for k in range(total + 1) if all(match[k:]))  # the definition of k*
    assert extraction.extraction_strength(array)[0] == np.float32(1 - least / total)
    assert extraction.match_length(array)[0] == next((i for i, hit in enumerate(match) if not hit), total)
    assert extraction.exact_memorization(array)[0] == np.float32(sum(match) / total)
    memorized = bool(extraction.is_memorized(array)[0])
    assert memorized == (extraction.match_length(array)[0] == total) == (extraction.extraction_strength(array)[0] == 1)


def test_no_torch_is_imported_for_the_arithmetic():
    code = "import sys, memtax.lm.extraction, memtax.lm.loading; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
