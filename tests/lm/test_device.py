"""On a device that is not the CPU: no operation mixes devices, and the numbers are those of the CPU."""

import numpy as np
import pytest
import torch

from helpers import away
from helpers.models import build, random_sequences
from memtax.attribution.alignment import align
from memtax.attribution.influence_functions import last_states
from memtax.lm.decoding import Decoding
from memtax.lm.generation import generate
from memtax.lm.gradients import PARAMETERS, capture
from memtax.lm.scores import score

LENGTHS = (40, 2, 17, 33, 1, 25, 9, 64)
NAMES = ("gpt_neox", "llama_tied", "gemma2")


def test_the_stand_in_refuses_what_an_accelerator_refuses():
    there = away.Away(torch.ones(3))
    with away.device():
        assert (there + 1).cpu().tolist() == [2, 2, 2]
        assert torch.arange(3, device=there.device)[torch.tensor([2, 0])].tolist() == [2, 0]
        with pytest.raises(RuntimeError, match="tensors on two devices"):
            there + torch.ones(3)
        with pytest.raises(RuntimeError, match="not supported"):
            there.numpy()


@pytest.mark.parametrize("name", NAMES)
def test_scores_and_generation(name):
    sequences = random_sequences(LENGTHS)
    options = {"moments": True, "ranks": True, "decoding": Decoding(0.8, 20, 0.9), "suppressed": 3}
    model = build(name)
    expected, tokens = score(model, sequences, **options), generate(model, sequences, [6] * len(sequences))
    with away.device():
        model = away.move(build(name))
        found = score(model, sequences, **options, attention=True)
        assert generate(model, sequences, [6] * len(sequences)) == tokens
    for array in ("logprobs", "means", "variances", "decoded"):
        np.testing.assert_allclose(getattr(found, array), getattr(expected, array), rtol=0, atol=1e-4)
    for array in ("match", "ranks"):
        np.testing.assert_array_equal(getattr(found, array), getattr(expected, array))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("parameters", [one for one in PARAMETERS if one != "lora"])
def test_gradients(name, parameters):
    sequences = random_sequences(LENGTHS)
    expected = capture(build(name), sequences, parameters=parameters)
    with away.device():
        model = away.move(build(name))
        found = capture(model, sequences, parameters=parameters)
        grams, (norms, first) = found.gram(), found.star()
        kept = capture(model, sequences, parameters=parameters, keep_errors=True).gram()
    for key, gram in expected.gram().items():
        scale = np.abs(gram).max()
        for values, target in ((grams, gram), (kept, gram), (norms, gram.diagonal()), (first, gram[0])):
            np.testing.assert_allclose(values[key], target, rtol=0, atol=1e-4 * scale)


def test_alignment_and_hidden_states():
    sequences = random_sequences(LENGTHS)
    groups = [(sequences[0], [sequences[2], None, sequences[4]]), (sequences[4], [sequences[3]])]
    model = build("gpt_neox")
    expected, states = align(model, groups), last_states(model, sequences)
    with away.device():
        model = away.move(build("gpt_neox"))
        found = align(model, groups)
        np.testing.assert_allclose(last_states(model, sequences), states, rtol=0, atol=1e-4)
    assert found[0].cosine == pytest.approx(expected[0].cosine, abs=1e-5)
    assert found[1].cosine is None


@pytest.mark.parametrize("parameters", ["embeddings+head", "all-linear"])
def test_gradients_of_a_model_whose_head_is_on_another_device(parameters):
    sequences = random_sequences(LENGTHS)
    expected = capture(build("gpt_neox"), sequences, parameters=parameters).gram()
    with away.device():
        model = build("gpt_neox")
        head = model.get_output_embeddings()
        kept = dict(head._parameters)
        away.move(model)
        head._parameters.update(kept)
        # As accelerate's hooks do for layers spread over devices.
        head.register_forward_pre_hook(lambda _, inputs: (inputs[0].cpu(),))
        found = capture(model, sequences, parameters=parameters)
        grams = found.gram()
    for key, gram in expected.items():
        np.testing.assert_allclose(grams[key], gram, rtol=0, atol=1e-4 * np.abs(gram).max())
