"""Greedy decoding after the first mismatch against `generate`, the exact-only pass against the whole one, and (n, p)."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, BartConfig, MiniMaxConfig, RwkvConfig

from helpers.models import GROUPED, IDS, build, random_sequences
from memtax.errors import MemtaxError, ModelError
from memtax.lm import extraction
from memtax.lm.generation import generate, greedy_continuations, match_lengths
from memtax.lm.gradients import capture
from memtax.lm.scores import score

PROMPT, CONTINUATION = 7, 12
ARCHITECTURES = ("gpt_neox", "gpt2", "llama", "gemma2", "recurrent_gemma")


def expected_tokens(model, sequences, suppressed=None):
    """What `generate` gives, with end-of-sequence neither stopping nor suppressed unless asked."""
    options = {"suppress_tokens": [suppressed]} if suppressed is not None else {}
    return model.generate(
        torch.tensor(sequences)[:, :PROMPT],
        attention_mask=torch.ones(len(sequences), PROMPT, dtype=torch.long),
        do_sample=False,
        max_new_tokens=CONTINUATION,
        **{**IDS, "pad_token_id": 0},
        **options,
    )[:, PROMPT:].tolist()


def parted(model, count=10, seed=4, suppressed=None):
    """Sequences that follow the model's own greedy choice and leave it after 0, 1, 2, ... tokens, some for one token only."""
    sequences = random_sequences([PROMPT + CONTINUATION] * count, seed)
    for index, (sequence, tokens) in enumerate(zip(sequences, expected_tokens(model, sequences, suppressed), strict=True)):
        leading = min(index * 2, CONTINUATION)
        sequence[PROMPT : PROMPT + leading] = tokens[:leading]
        if index % 3 == 0:
            # Only one token differs from what the model generates from the prompt.
            sequence[PROMPT:] = tokens
            if index:
                sequence[PROMPT + leading - 1] = (tokens[leading - 1] + 1) % 101
    return sequences


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("suppress", [False, True])
def test_memorization_score_equals_generate(name, suppress):
    model = build(name)
    suppressed = expected_tokens(model, random_sequences([PROMPT + CONTINUATION]))[0][3] if suppress else None
    sequences = parted(model, suppressed=suppressed)
    generated = expected_tokens(model, sequences, suppressed)
    expected = [
        sum(a == b for a, b in zip(tokens, sequence[PROMPT:], strict=True)) / CONTINUATION
        for tokens, sequence in zip(generated, sequences, strict=True)
    ]
    scores = score(model, sequences, suppressed=suppressed)
    continued = greedy_continuations(model, sequences, scores, PROMPT, CONTINUATION, suppressed=suppressed)
    found = [
        sum(a == b for a, b in zip(tokens, sequence[PROMPT:], strict=True)) / CONTINUATION
        for tokens, sequence in zip(continued, sequences, strict=True)
    ]
    assert found == pytest.approx(expected)
    assert 1.0 in found
    assert len(set(found)) > 3
    columns = extraction.columns(scores, PROMPT, CONTINUATION)
    assert columns["is_memorized"] == [value == 1 for value in found]


@pytest.mark.parametrize("name", ["gpt_neox", "recurrent_gemma"])
def test_prefixes_of_different_lengths_go_on_as_if_alone(name):
    model = build(name)
    prefixes = random_sequences([3, 11, 7, 1, 7])
    counts = [5, 2, 9, 4, 1]
    found = generate(model, prefixes, counts)
    assert [len(tokens) for tokens in found] == counts
    for prefix, tokens in zip(prefixes, found, strict=True):
        row = list(prefix)
        for token in tokens:  # without any cache
            with torch.no_grad():
                assert int(model(input_ids=torch.tensor([row])).logits[0, -1].argmax()) == token
            row.append(token)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_exact_only_pass_gives_the_lengths_of_the_whole_one(name):
    model = build(name)
    sequences = [*parted(model), [1, 2, 3], [], random_sequences([PROMPT + CONTINUATION + 5])[0]]
    whole = extraction.columns(score(model, sequences), PROMPT, CONTINUATION)["match_length"]
    assert match_lengths(model, sequences, PROMPT, CONTINUATION) == whole
    assert {None, 0, CONTINUATION} < set(whole)
    # One token after the prompt: too few for two looks.
    one = extraction.columns(score(model, sequences), PROMPT, 1)["match_length"]
    assert match_lengths(model, sequences, PROMPT, 1) == one


def test_several_windows_from_one_pass_are_those_of_single_ones():
    model = build("gpt_neox")
    scores = score(model, random_sequences([40, 20, 9]))
    windows = [(8, 8), (4, 16), (16, 24)]
    found = {name: array.to_pylist() for name, array in extraction.of_windows(scores, windows).items()}
    assert tuple(found) == extraction.window_columns(windows)
    assert {name: found[name] for name in extraction.COLUMNS} == extraction.columns(scores, 8, 8)
    for window in windows[1:]:
        alone = extraction.columns(scores, *window)
        for name in extraction.OF_A_WINDOW:
            assert found[f"{name}_{window[0]}_{window[1]}"] == alone[name]
    assert found["is_memorized_16_24"] == [False, None, None]


def test_samples_needed_by_hand():
    # p_z = 1/2: after n samples 1 - 2^-n. For p = 0.9 n = 4 (0.9375; three give 0.875); for p = 0.5 one is enough.
    assert extraction.queries(math.log(0.5), 0.9) == 4
    assert extraction.queries(math.log(0.5), 0.5) == 1
    # Certain: one. Impossible or unknown: none.
    assert extraction.queries(0.0, 0.99) == 1
    for tiny in (-5e-324, -1e-300, -1e-17, -1e-16, -1e-15):
        assert extraction.queries(tiny, 0.99) == 1
        assert extraction.discoverable([tiny], [1], [0.99])[0]["extractable"] == 1
    assert extraction.queries(-math.inf, 0.1) is None
    assert extraction.queries(None, 0.1) is None
    # p_z = e^-100: log(1/2) / -e^-100 = 0.6931 e^100, far beyond where 1 - p_z is 1 in float64.
    assert extraction.queries(-100.0, 0.5) == pytest.approx(math.log(2) * math.exp(100), rel=1e-9)
    assert isinstance(extraction.queries(-100.0, 0.5), float)
    assert extraction.queries(-5000.0, 0.5) == math.inf
    for wrong in (0.0, 1.0, -1.0):
        with pytest.raises(MemtaxError, match="probability="):
            extraction.queries(-1.0, wrong)


@given(st.floats(-12, -1e-6), st.floats(0.001, 0.999))
def test_the_least_number_of_samples(logprob, probability):
    n = extraction.queries(logprob, probability)
    miss = math.log1p(-math.exp(logprob))
    # 1 - (1 - p)^n >= p at n, and not at n - 1; a relative slack of 1e-9 for rounding at equality.
    assert -math.expm1(n * miss) >= probability * (1 - 1e-9)
    assert n == 1 or -math.expm1((n - 1) * miss) < probability * (1 + 1e-9)
    rows = extraction.discoverable([logprob], [int(n), 2 * int(n)], [probability * (1 - 1e-9)])
    assert [row["rate"] for row in rows] == [1.0, 1.0]


def test_rates_over_a_grid_of_n_and_p():
    # p_z of 1, 1/2, 0 and unknown. n = 1: p = .5 is reached by two of three, p = .9 by one. n = 4: both, for either p.
    rows = extraction.discoverable([0.0, math.log(0.5), -math.inf, None], [1, 4], [0.5, 0.9])
    assert [(row["samples"], row["probability"], row["extractable"], row["sequences"]) for row in rows] == [
        (1, 0.5, 2, 3),
        (1, 0.9, 1, 3),
        (4, 0.5, 2, 3),
        (4, 0.9, 2, 3),
    ]
    assert extraction.discoverable([None], [1], [0.5])[0]["rate"] is None
    with pytest.raises(MemtaxError, match="n=0"):
        extraction.discoverable([0.0], [0], [0.5])


def test_generation_runs_out_of_memory_and_goes_on_with_less():
    model, sizes = build("llama"), []
    prefixes = random_sequences([9, 30, 17, 4, 25, 12])
    expected = generate(model, prefixes, [8] * 6)

    def too_small(module, inputs, kwargs):
        sizes.append(len(kwargs["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 TiB")

    model.base_model.register_forward_pre_hook(too_small, with_kwargs=True)
    assert generate(model, prefixes, [8] * 6) == expected
    assert sizes[0] == 6
    assert 3 in sizes
    sizes.clear()
    # What fits is remembered.
    assert generate(model, prefixes, [8] * 6) == expected
    assert max(sizes) <= 2


BART = {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48, "init_std": 0.3}


@pytest.mark.parametrize(
    "configuration",
    [
        # Counts positions by itself, from the first place of the padding on.
        BartConfig(vocab_size=101, max_position_embeddings=96, is_decoder=True, is_encoder_decoder=False, **BART),
        # Linear attention: a recurrent state, though the class does not say so.
        MiniMaxConfig(
            **{**GROUPED, "hidden_size": 32},
            head_dim=8,
            num_local_experts=2,
            layer_types=["linear_attention", "full_attention"],
        ),
        RwkvConfig(vocab_size=101, hidden_size=32, num_hidden_layers=2, context_length=96),
    ],
    ids=lambda configuration: configuration.model_type,
)
def test_models_that_take_padding_for_text_get_none(configuration):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(configuration).eval()
    prefixes = random_sequences([9, 21, 3, 9])
    expected = []
    with torch.no_grad():
        for prefix in prefixes:
            tokens = list(prefix)
            for _ in range(10):
                tokens.append(int(model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax()))
            expected.append(tokens[len(prefix) :])
    assert generate(model, prefixes, [10] * 4) == expected
    with pytest.raises(ModelError, match="does not ignore padding before a sequence"):
        score(model, prefixes, padding_side="left")
    with pytest.raises(ModelError, match="keep the padding on the right"):
        capture(model, prefixes, padding_side="left")
