"""On a CUDA device: the same scores as on the CPU, and running out of memory for real."""

import numpy as np
import pytest
import torch

from helpers.models import build, random_sequences
from memtax.lm import fused
from memtax.lm.generation import greedy_continuations, match_lengths
from memtax.lm.memory import fitting
from memtax.lm.scores import BATCH_TOKENS, score

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("name", ["gpt_neox", "llama_tied", "gemma2", "recurrent_gemma"])
def test_scores_are_those_of_the_cpu(name):
    sequences = random_sequences([64, 5, 33, 2, 1, 12])
    expected = score(build(name), sequences, moments=True)
    model = build(name).cuda()
    scores = score(model, sequences, moments=True)
    for array in ("logprobs", "means", "variances"):
        np.testing.assert_allclose(getattr(scores, array), getattr(expected, array), rtol=1e-3, atol=1e-3)
    assert match_lengths(model, sequences, 2, 10) == match_lengths(build(name), sequences, 2, 10)
    assert greedy_continuations(model, sequences, scores, 2, 10) == greedy_continuations(
        build(name), sequences, expected, 2, 10
    )


def test_a_batch_that_does_not_fit_is_made_smaller():
    model = build("gpt_neox").cuda()
    sequences = random_sequences([64] * 4096)
    expected = score(model, sequences)
    torch.cuda.empty_cache()
    room = torch.cuda.memory_reserved() + 16 * 2**20
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(0).total_memory)
    try:
        scores = score(model, sequences)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert fitting(model, "scores", BATCH_TOKENS["accelerator"]) < BATCH_TOKENS["accelerator"]
    np.testing.assert_allclose(scores.logprobs, expected.logprobs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_batches_give_the_same_bits(dtype):
    model, sequences = build("llama_tied").cuda().to(dtype), random_sequences([64, 5, 33, 2, 1, 12] * 20)
    first, second = (score(model, sequences, moments=True, ranks=True) for _ in range(2))
    for array in ("logprobs", "match", "means", "variances", "ranks"):
        np.testing.assert_array_equal(getattr(first, array), getattr(second, array))


def test_the_kernel_gives_the_decisions_and_values_of_the_plain_reduction(monkeypatch):
    model, sequences = build("llama_tied").cuda(), random_sequences([64, 5, 33, 2, 1, 12])
    assert fused.usable(torch.device("cuda", 0)), fused.WHY
    found = score(model, sequences, moments=True, ranks=True)
    monkeypatch.setattr(fused, "usable", lambda device: False)
    expected = score(model, sequences, moments=True, ranks=True)
    for array in ("match", "ranks"):
        np.testing.assert_array_equal(getattr(found, array), getattr(expected, array))
    for array in ("logprobs", "means", "variances"):
        np.testing.assert_allclose(getattr(found, array), getattr(expected, array), rtol=1e-5, atol=1e-5)
