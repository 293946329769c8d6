"""The forward pass against plain `transformers` in float64, for every kind of head."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, BertConfig, RobertaConfig

from helpers.models import POSITIONS, VOCABULARY, build, configurations, oracle, random_sequences
from helpers.versions import older
from memtax.errors import ModelError
from memtax.lm.head import call, decompose
from memtax.lm.scores import score
from memtax.processors import is_intel

LENGTHS = (64, 5, 33, 2, 1, 0, POSITIONS, 12, 12)
TOLERANCE = 2e-5 if older("torch", "2.9") else 1e-5
"""float32 against float64, in nats."""


def agree(model, sequences, scores, tolerance=TOLERANCE):
    assert len(scores) == len(sequences)
    for index, sequence in enumerate(sequences):
        logprobs, match = scores.row(index)
        expected, expected_match = oracle(model, sequence)
        assert logprobs.dtype == np.float32
        assert logprobs.shape == match.shape == (max(len(sequence) - 1, 0),)
        # The relative part is for older versions of PyTorch: seen were 1.7e-5 at -7.
        np.testing.assert_allclose(logprobs, expected.numpy(), rtol=1e-6, atol=tolerance)
        assert match.tolist() == expected_match.tolist()


# A recurrent state remembers padding that comes before the tokens.
@pytest.mark.parametrize(
    ("name", "padding_side"),
    [(name, side) for name in configurations() for side in ("right", "left") if (name, side) != ("recurrent_gemma", "left")],
)
def test_scores_equal_plain_transformers(name, padding_side):
    model = build(name)
    sequences = random_sequences(LENGTHS)
    # Continuations that the model itself prefers, so that matches of both kinds occur.
    sequences[0][40:] = model(input_ids=torch.tensor([sequences[0]])).logits[0, 39:-1].argmax(-1).tolist()
    scores = score(model, sequences, padding_side=padding_side)
    agree(model, sequences, scores)
    assert scores.match.any()
    assert not scores.match.all()


@pytest.mark.parametrize("name", list(configurations()))
def test_the_head_is_split_off_only_where_that_gives_the_models_logits(name):
    model = build(name)
    parts = decompose(model)
    assert (parts is None) == (name == "recurrent_gemma")
    if parts is not None:
        ids = torch.tensor(random_sequences([40]))
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0]
            # More than the tolerance of the probe would be needed to confuse 3 tanh(x / 3), 4 x and x / 4 with x.
            assert logits.abs().max() > 0.5
            torch.testing.assert_close(parts.logits(parts.backbone(input_ids=ids)[0][0]), logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config", [LoraConfig(r=4, init_lora_weights=False), PromptTuningConfig(num_virtual_tokens=3)])
def test_peft_models(config):
    torch.manual_seed(1)
    config.task_type = "CAUSAL_LM"
    if isinstance(config, LoraConfig):
        config.target_modules = ["query_key_value", "lm_head"]
    model = get_peft_model(build("gpt_neox"), config).eval()
    sequences = random_sequences([20, 7])
    scores = score(model, sequences)
    plain = score(build("gpt_neox"), sequences)
    assert np.abs(scores.logprobs - plain.logprobs).max() > 1e-3  # the adapter does something
    for index, sequence in enumerate(sequences):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([sequence])).logits[0, -len(sequence) : -1].double()
        expected = logits.log_softmax(-1)[torch.arange(len(sequence) - 1), torch.tensor(sequence[1:])]
        np.testing.assert_allclose(scores.row(index)[0], expected.numpy(), rtol=0, atol=TOLERANCE)


@given(
    lengths=st.lists(st.integers(0, 70), max_size=12),
    batch_tokens=st.integers(1, 2000),
    padding_side=st.sampled_from(["left", "right"]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=25, deadline=None)
def test_order_batch_size_and_padding_do_not_matter(lengths, batch_tokens, padding_side, seed):
    model = build("gpt_neox")
    sequences = random_sequences(lengths, seed)
    scores = score(model, sequences)
    order = np.random.default_rng(seed).permutation(len(sequences))
    shuffled = score(model, [sequences[i] for i in order], batch_tokens=batch_tokens, padding_side=padding_side)
    for place, index in enumerate(order):
        np.testing.assert_allclose(shuffled.row(place)[0], scores.row(index)[0], rtol=0, atol=TOLERANCE)
        np.testing.assert_array_equal(shuffled.row(place)[1], scores.row(index)[1])


def test_token_id_zero_is_a_token_like_any_other():
    model = build("gpt2")
    sequences = [[0, 0, 5, 0, 7, 0, 0], [0, 0], [3, 0, 9]]
    agree(model, sequences, score(model, sequences))


def test_batch_of_one_and_of_none():
    model = build("llama")
    agree(model, [[4, 8]], score(model, [[4, 8]]))
    empty = score(model, [])
    assert len(empty) == 0
    assert empty.logprobs.size == 0


def test_of_equal_logits_the_first_is_the_argmax():
    model = build("gpt_neox")
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    # All logits are 0: probability 1/101 each, and torch.argmax gives id 0.
    scores = score(model, [[5, 0, 1, 0]])
    np.testing.assert_allclose(scores.logprobs, -math.log(VOCABULARY), rtol=1e-6)
    assert scores.match.tolist() == [True, False, True]


def test_many_chunks_of_the_head(monkeypatch):
    import memtax.lm.scores as module

    model, sequences = build("gemma2"), random_sequences([50] * 30 + [17])
    whole = score(model, sequences)
    monkeypatch.setitem(module._CHUNK_LOGITS, "cpu", 1)  # chunks of the least size: 512 of 1,486 rows
    np.testing.assert_allclose(score(model, sequences).logprobs, whole.logprobs, rtol=0, atol=TOLERANCE)
    agree(model, sequences, whole)


NARROW, WIDE = (128, 256), (512, 2048)


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("gpt_neox", NARROW),
        ("llama", NARROW),
        ("gemma2", NARROW),
        # On Intel's AVX-512 MKL cuts the sums of this product among threads unless it is told not to.
        pytest.param("gpt_neox", WIDE, marks=pytest.mark.skipif(not is_intel(), reason="needs an Intel processor")),
    ],
)
def test_same_bits_for_any_power_of_two_threads(name, widths):
    # Five to eleven rows in all are what a matrix product splits differently between two threads. Widths as small as those
    # of the other tests are split differently by MKL for four threads, whatever the rows: these are a little larger.
    model = build(name, vocab_size=257, hidden_size=widths[0], intermediate_size=widths[1])
    before = torch.get_num_threads()
    try:
        for lengths in ([7], [10], [7, 61, 33], [37] * 40):
            sequences = random_sequences(lengths)
            results = []
            for threads in (1, 2, 4):
                torch.set_num_threads(threads)
                results.append(score(model, sequences).logprobs.tobytes())
            assert results[0] == results[1] == results[2], lengths
    finally:
        torch.set_num_threads(before)


def test_dropout_is_off_and_training_goes_on_afterwards():
    model = build("gpt2").train()
    model.transformer.h[0].eval()
    scores = score(model, [[1, 2, 3, 4]])
    assert model.training
    assert not model.transformer.h[0].training
    agree(model.eval(), [[1, 2, 3, 4]], scores)


def test_half_precision_is_reduced_in_float32():
    model = build("llama").to(torch.bfloat16)
    sequences = random_sequences([30, 30])
    # bfloat16 has 8 bits: logits around 4 are off by 4 / 256 between kernels, log-probabilities by about twice that.
    scores = score(model, sequences)
    for index, sequence in enumerate(sequences):
        np.testing.assert_allclose(scores.row(index)[0], oracle(model, sequence)[0].numpy(), rtol=0, atol=0.1)


def test_nan_is_an_error_that_names_the_row():
    model = build("llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[7] = math.nan
    score(model, [[1, 2, 3]])
    with pytest.raises(ModelError, match="row 1 are not numbers"):
        score(model, [[1, 2, 3], [4, 7, 5]])
    with torch.no_grad():
        model.get_output_embeddings().weight[0] = math.nan
    with pytest.raises(ModelError, match="row 0"):
        score(model, [[1, 2, 3]])


@pytest.mark.parametrize("token", [VOCABULARY, -1, 2**31 - 1])
def test_a_token_outside_the_vocabulary_is_an_error(token):
    with pytest.raises(ModelError, match=rf"token id {token} in row 2 is outside the model's vocabulary of {VOCABULARY}"):
        score(build("gpt_neox"), [[1, 2], [], [3, token]])


def test_a_sequence_beyond_the_models_positions_is_an_error():
    for name in ("gpt2", "gpt_neox"):
        with pytest.raises(ModelError, match=f"row 1 has {POSITIONS + 1} tokens but the model has {POSITIONS} positions"):
            score(build(name), random_sequences([3, POSITIONS + 1]))


@pytest.mark.parametrize("kind", [BertConfig, RobertaConfig])
def test_a_masked_language_model_is_refused(kind):
    sizes = {"vocab_size": 101, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
    with pytest.raises(ModelError, match="attends to later tokens, so its log-probabilities are meaningless"):
        score(AutoModelForCausalLM.from_config(kind(**sizes)).eval(), [[5, 6, 7]])
    # The same architecture as a decoder attends to what came before.
    decoder = AutoModelForCausalLM.from_config(kind(**sizes, is_decoder=True)).eval()
    assert len(score(decoder, [[5, 6, 7]]).logprobs) == 2


class Handing(torch.nn.Module):
    """Takes any argument, and hands it to a part that does not, as BART did."""

    def __init__(self):
        super().__init__()
        self.part = torch.nn.Linear(2, 2)

    def forward(self, values, scale=1, **others):
        return self.inner(values * scale, **others)

    def inner(self, values):
        if values.shape[-1] != 2:
            raise TypeError("the model's own error")
        return self.part(values)


def test_arguments_that_a_part_of_the_model_does_not_take_are_left_out():
    module, values = Handing(), torch.ones(1, 2)
    for _ in range(2):
        found = call(module, values=values, scale=3, position_ids=torch.zeros(1, 2), use_cache=False)
        assert found.equal(module.part(values * 3))
    with pytest.raises(TypeError, match="the model's own error"):
        call(module, values=torch.ones(1, 3), scale=3)
