"""What the forward pass reads off the logits, against float64 and against transformers' own samplers."""

import math
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    LogitsProcessorList,
    MambaConfig,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from helpers.models import VOCABULARY, build, random_sequences
from memtax.errors import MemtaxError, ModelError
from memtax.lm.decoding import Decoding
from memtax.lm.head import decompose
from memtax.lm.reduction import Wanted, reduce
from memtax.lm.scores import score

ARCHITECTURES = ("gpt_neox", "gpt2", "llama_tied", "gemma2")


def float64(model, sequence):
    """Log-probabilities (tokens - 1, vocabulary) of the model's own logits."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([sequence])).logits[0, :-1].double().log_softmax(-1)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_moments_and_ranks_equal_float64(name):
    model, sequences = build(name), random_sequences([40, 2, 17, 1])
    scores = score(model, sequences, moments=True, ranks=True)
    for index, sequence in enumerate(sequences):
        means, variances, ranks = (scores.split(array)[index] for array in (scores.means, scores.variances, scores.ranks))
        if len(sequence) < 2:
            assert len(means) == len(variances) == len(ranks) == 0
            continue
        logp = float64(model, sequence)
        p = logp.exp()
        mean = (p * logp).sum(-1)
        # Logits reach about 10, where float32 is off by 1e-6: 1e-5 in the mean, ten times that in the squares.
        np.testing.assert_allclose(means, mean, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(variances, (p * (logp - mean[:, None]) ** 2).sum(-1), rtol=1e-4, atol=1e-4)
        own = logp.gather(-1, torch.tensor(sequence[1:])[:, None])
        assert ranks.tolist() == (logp > own).sum(-1).tolist()
        assert (ranks == 0).tolist() == scores.row(index)[1].tolist()


@pytest.mark.parametrize("temperature", [1.0, 0.5, 1.7])
@pytest.mark.parametrize("top_k", [None, 1, 5, 400])
@pytest.mark.parametrize("top_p", [None, 0.05, 0.6, 1.0])
def test_a_sampling_scheme_is_that_of_transformers(temperature, top_k, top_p):
    torch.manual_seed(3)
    # Half of the rows peaked, half nearly flat: the nucleus is a few tokens or almost all of them.
    logits = torch.randn(40, 300, dtype=torch.float64) * torch.tensor([6.0, 0.3]).repeat(20)[:, None]
    targets = torch.where(torch.arange(40) % 4 < 2, logits.argmax(-1), torch.randint(300, (40,)))
    warpers = [TemperatureLogitsWarper(temperature)] if temperature != 1 else []
    warpers += [TopKLogitsWarper(top_k)] if top_k else []
    warpers += [TopPLogitsWarper(top_p)] if top_p else []
    expected = LogitsProcessorList(warpers)(None, logits).log_softmax(-1).gather(-1, targets[:, None]).squeeze(-1)
    found = Decoding(temperature, top_k, top_p).logprobs(logits.float(), targets)
    assert torch.equal(found.isinf(), expected.isinf())
    finite = ~expected.isinf()
    torch.testing.assert_close(found[finite].double(), expected[finite], rtol=0, atol=1e-5)


def test_ties_at_the_last_place_of_top_k_stay():
    # Logits 2, 1, 1, 0 and k = 2: transformers keeps what ties with the second, so e^2, e, e are renormalized.
    logits = torch.tensor([[2.0, 1.0, 1.0, 0.0]] * 3)
    found = Decoding(top_k=2).logprobs(logits, torch.tensor([1, 2, 3]))
    one = math.log(math.e / (math.e**2 + 2 * math.e))
    assert found.tolist() == [pytest.approx(one), pytest.approx(one), -math.inf]


def test_the_scheme_reaches_the_scores():
    model, sequences = build("llama"), random_sequences([30, 12])
    scores = score(model, sequences, decoding=Decoding(0.7, 20, 0.9))
    warpers = LogitsProcessorList([TemperatureLogitsWarper(0.7), TopKLogitsWarper(20), TopPLogitsWarper(0.9)])
    for index, sequence in enumerate(sequences):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([sequence])).logits[0, :-1].double()
        expected = warpers(None, logits).log_softmax(-1).gather(-1, torch.tensor(sequence[1:])[:, None]).squeeze(-1)
        np.testing.assert_allclose(scores.split(scores.decoded)[index], expected, rtol=0, atol=1e-4)
    assert np.isinf(scores.decoded).any()


@pytest.mark.parametrize("wrong", [{"temperature": 0}, {"temperature": math.nan}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.1}])
def test_a_scheme_out_of_range_is_an_error(wrong):
    with pytest.raises(MemtaxError, match=next(iter(wrong))):
        Decoding(**wrong)


@given(st.integers(1, 70), st.integers(2, 60), st.integers(0, 2**16), st.booleans())
@settings(max_examples=40, deadline=None)
def test_reduction_of_any_block(rows, vocabulary, seed, ties):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, vocabulary, generator=generator) * 4
    if ties:
        logits = logits.round()
    logits[:, 0] = -math.inf  # excluded: adds nothing to mean and variance
    targets = torch.randint(vocabulary, (rows,), generator=generator)
    found = reduce(logits, targets, Wanted(moments=True, ranks=True))
    logp = logits.double().log_softmax(-1)
    p = logp.exp()
    safe = logp.clamp(min=-1e9)
    mean = (p * safe).sum(-1)
    np.testing.assert_allclose(found["means"], mean, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(found["variances"], (p * (safe - mean[:, None]) ** 2).sum(-1), atol=2e-4, rtol=1e-4)
    np.testing.assert_allclose(found["logprobs"], logp.gather(-1, targets[:, None]).squeeze(-1), atol=1e-5)
    assert torch.equal(found["match"], logits.argmax(-1) == targets)
    assert torch.equal(found["match"], found["ranks"] == 0)
    # The order is total: the ranks of all tokens are 0 .. vocabulary - 1, each once.
    every = reduce(logits[:1].expand(vocabulary, -1), torch.arange(vocabulary), Wanted(logprobs=False, ranks=True))
    assert sorted(every["ranks"].tolist()) == list(range(vocabulary))


def test_a_suppressed_token_is_never_the_argmax_but_keeps_its_probability():
    model, sequences = build("gpt2"), random_sequences([50])
    plain = score(model, sequences)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(sequences)).logits[0, :-1]
    first = int(logits.argmax(-1)[10])
    scores = score(model, sequences, suppressed=first)
    np.testing.assert_array_equal(scores.logprobs, plain.logprobs)
    logits[:, first] = -math.inf
    assert scores.match.tolist() == (logits.argmax(-1) == torch.tensor(sequences[0][1:])).tolist()


@pytest.mark.parametrize("side", ["left", "right"])
def test_scoring_from_a_later_token(side):
    model, sequences = build("gpt_neox"), random_sequences([40, 9, 10, 11, 3])
    whole, late = score(model, sequences), score(model, sequences, start=10, padding_side=side)
    assert late.lengths.tolist() == [30, 0, 0, 1, 0]
    for row in (0, 3):
        np.testing.assert_allclose(late.row(row)[0], whole.row(row)[0][9:], rtol=0, atol=1e-5)
        assert late.row(row)[1].tolist() == whole.row(row)[1][9:].tolist()
    short = score(model, sequences, match_only=True, start=10)
    assert short.match.tolist() == late.match.tolist()
    assert len(short.logprobs) == 0


def test_nan_is_seen_without_log_probabilities_too():
    model = build("llama")
    with torch.no_grad():
        model.get_output_embeddings().weight[0] = math.nan
    with pytest.raises(ModelError, match="row 0 are not numbers"):
        score(model, [[1, 2, 3]], match_only=True)


@pytest.mark.parametrize("name", ["gpt_neox", "gemma2"])
def test_running_out_of_memory_halves_the_batch_and_loses_no_row(name):
    sequences = random_sequences([64] * 20 + [30, 7, 1])
    expected = score(build(name), sequences)
    model, sizes = build(name), []

    def too_small(module, inputs, kwargs):
        sizes.append(kwargs["input_ids"].shape[0])
        if kwargs["input_ids"].numel() > 512:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 TiB")

    score(model, [[1, 2]])  # find the parts without the limit
    model.base_model.register_forward_pre_hook(too_small, with_kwargs=True)
    scores = score(model, sequences)
    np.testing.assert_allclose(scores.logprobs, expected.logprobs, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(scores.match, expected.match)
    # 22 rows of 64 do not fit, nor does half of them; what fits is remembered by the next call.
    assert sizes[0] == 22
    assert max(sizes[3:]) <= 8
    sizes.clear()
    score(model, sequences)
    assert max(sizes) <= 8
    with pytest.raises(ModelError, match="20 sequences of 64 tokens do not fit into memory; leave the batch size automatic"):
        score(model, sequences[:20], batch_tokens=4096)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def fail(*_):
        raise RuntimeError("shapes do not match")

    model = build("gpt2")
    hook = model.base_model.register_forward_pre_hook(fail)
    with pytest.raises(ModelError, match=r"GPT2LMHeadModel cannot run on 1 texts of 8 tokens: shapes do not match$"):
        score(model, [[1, 2]])
    hook.remove()
    decompose(model)
    model.base_model.register_forward_pre_hook(fail)
    with pytest.raises(ModelError, match=r"^GPT2LMHeadModel cannot run on \d+ texts of 8 tokens: shapes do not match$"):
        score(model, [[1, 2]])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_attention_statistics_equal_a_plain_loop(name):
    model, sequences = build(name), random_sequences([24, 5, 1, 2])
    before = model.config._attn_implementation
    plain = score(model, sequences)
    scores = score(model, sequences, attention=True)
    assert model.config._attn_implementation == before
    np.testing.assert_allclose(scores.logprobs, plain.logprobs, rtol=0, atol=1e-5)
    model.set_attn_implementation("eager")
    for index, sequence in enumerate(sequences):
        if len(sequence) < 2:
            assert np.isnan(scores.attention["entropy"][index]).all()
            continue
        with torch.no_grad():
            maps = model(input_ids=torch.tensor([sequence]), output_attentions=True).attentions
        entropy, gini = [], []
        for layer in maps:
            for head in layer[0].double():
                # Token t attends to t + 1 tokens. Gini: mean absolute difference of all pairs over twice the mean.
                rows = [head[t, : t + 1] for t in range(len(sequence))]
                entropy.append(np.mean([-sum(w * math.log(w) for w in row.tolist() if w > 0) for row in rows]))
                differences = [(row[:, None] - row[None, :]).abs().mean() / (2 * row.mean()) for row in rows]
                gini.append(np.mean([value.item() for value in differences]))
        np.testing.assert_allclose(scores.attention["entropy"][index], entropy, rtol=0, atol=1e-5)
        np.testing.assert_allclose(scores.attention["gini"][index], gini, rtol=0, atol=1e-5)


def test_vocabulary_of_one_half_excluded_by_the_model_itself():
    # Some models give -inf to unused ids: the moments stay finite, and those tokens have probability 0.
    logits = torch.tensor([[0.0, 0.0, -math.inf, -math.inf]])
    found = reduce(logits, torch.tensor([2]), Wanted(moments=True))
    assert found["logprobs"].tolist() == [-math.inf]
    assert found["means"].tolist() == [pytest.approx(math.log(0.5))]
    assert found["variances"].tolist() == [0.0]  # both are equally likely
    assert not found["bad"].any()
    assert VOCABULARY > 2


def test_running_out_of_memory_frees_what_the_failed_pass_held(monkeypatch):
    model, alive, cleared = build("gpt_neox"), [], []
    score(model, [[1, 2]])

    def too_small(module, inputs, output):
        if output.numel() > 512 * output.shape[-1]:
            held = output.clone()
            alive.append(weakref.ref(held))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 TiB")

    def clear(garbage_collection):
        # What is held now stays in the accelerator's memory, whatever is cleared.
        cleared.append([reference() is None for reference in alive])

    monkeypatch.setattr("accelerate.utils.memory.clear_device_cache", clear)
    model.get_input_embeddings().register_forward_hook(too_small)
    score(model, random_sequences([64] * 20))
    assert cleared == [[True], [True, True]]


def test_a_backbone_that_stays_in_float32_has_its_parts_too():
    torch.manual_seed(0)
    configuration = MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4)
    model = AutoModelForCausalLM.from_config(configuration).eval().bfloat16()
    assert decompose(model) is not None
    sequences = random_sequences([20, 7])
    scores = score(model, sequences)
    for row, sequence in enumerate(sequences):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([sequence])).logits[0, :-1].double()
        expected = logits.log_softmax(-1)[torch.arange(len(sequence) - 1), sequence[1:]]
        # bfloat16 rounds to 2^-8 of a logit, and these are below 4.
        np.testing.assert_allclose(scores.row(row)[0], expected.numpy(), rtol=0, atol=4 * 2**-7)
