"""What waits for an accelerator does not grow with the number of blocks, and a failed batch leaves nothing in memory."""

import gc
import weakref
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import OPTConfig, OPTForCausalLM

from helpers import away
from helpers.models import build, random_sequences
from memtax.lm import _kernels, gradients
from memtax.lm.gradients import capture
from memtax.lm.memory import smaller


@pytest.mark.parametrize("parameters", ["head", "embeddings+head", "all-linear"])
@pytest.mark.parametrize("name", ["gpt_neox", "llama_tied", "opt"])
def test_layers_do_not_wait(name, parameters):
    sequences, counts = random_sequences([40, 2, 17, 1, 33]), []
    for layers in (1, 3):
        expected = capture(model_of(name, layers), sequences, parameters=parameters).star()
        with away.device():
            model = away.move(model_of(name, layers))
            capture(model, sequences, parameters=parameters)  # checks the set on its first use
            with away.counted() as captured:
                gradients = capture(model, sequences, parameters=parameters)
            with away.counted() as reduced:
                found = gradients.star()
        counts.append(captured)
        assert "mask" not in captured
        assert reduced == {"fetched": 1}
        # The bias of the keys has a gradient of 0, but for rounding.
        largest = max(values.max() for values in expected[0].values())
        for side, target in zip(found, expected, strict=True):
            for key, values in target.items():
                np.testing.assert_allclose(side[key], values, rtol=1e-4, atol=1e-6 * largest)
    assert counts[0] == counts[1]
    # Underflown probabilities and numbers that are not finite, and with OPT, whose inputs are flattened, their order.
    assert counts[0].total() - counts[0]["sent"] <= 4


def test_autocast_can_be_switched_off_on_the_stand_in():
    with away.device(), torch.autocast("meta", enabled=False):
        pass


def model_of(name, layers):
    if name != "opt":
        return build(name, num_hidden_layers=layers)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "ffn_dim": 48, "num_attention_heads": 4, "word_embed_proj_dim": 32}
    return OPTForCausalLM(OPTConfig(vocab_size=101, num_hidden_layers=layers, init_std=0.3, **sizes)).eval()


class Waits(TorchDispatchMode):
    """Counts operations whose result's shape or value the host needs."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in ("nonzero", "_local_scalar_dense"):
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))


def test_blocks_of_the_vocabulary_and_of_rows_do_not_wait(monkeypatch):
    model, sequences = build("gpt_neox"), random_sequences([40, 33, 64, 9, 25, 17])
    expected = capture(model, sequences).gram()
    counted = []
    for held, chunk in ((2**24, 2**23), (2**9, 2**9)):
        monkeypatch.setattr(_kernels, "_HELD", held)
        monkeypatch.setattr(gradients, "_CHUNK_LOGITS", {"cpu": chunk})
        with Waits() as waits:
            (name,) = (name for name, kernel in capture(model, sequences).kernels.items() if isinstance(kernel, _kernels.Outer))
            head = capture(model, sequences).kernels[name]
            found = head.gram_by_gradients(head)
        counted.append(waits.counts)
        np.testing.assert_allclose(found.numpy(), expected[name], rtol=1e-4, atol=1e-6)
    assert counted[0] == counted[1]


def test_a_failed_batch_leaves_no_tensor_behind_even_if_it_failed_while_another_error_was_handled():
    model, kept = torch.nn.Linear(1, 1), []

    def inner():
        tensor = torch.zeros(9)
        kept.append(weakref.ref(tensor))
        raise ValueError("another way is tried")

    def outer():
        try:
            inner()
        except ValueError:
            raise torch.OutOfMemoryError("CUDA out of memory")  # noqa: B904

    with pytest.raises(torch.OutOfMemoryError) as caught:
        outer()
    assert kept[0]() is not None
    assert smaller(model, "work", caught.value, (8, 4)) == 16
    gc.collect()
    assert kept[0]() is None
