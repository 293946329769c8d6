"""Attention entropy and Gini coefficient of each head, computed layer by layer while the model runs."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from memtax.errors import ModelError

_MOST_WEIGHTS = 2**26
"""Maximum number of attention weights of one layer in memory."""


class AttentionRecorder:
    """Entropy and Gini coefficient of the attention weights of one batch at a time.

    Attributes:
        mask: (batch, length), True on tokens; set before the model runs. Padding must be on the right.
    """

    def __init__(self) -> None:
        self.mask: torch.Tensor | None = None
        self._layers: list[torch.Tensor] = []

    def hook(self, module: Any, inputs: Any, output: Any) -> Any:
        """Reduce the weights of a layer and drop them, so that weights of two layers are never in memory together."""
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if not isinstance(weights, torch.Tensor) or weights.dim() != 4 or self.mask is None:
            return None
        self._layers.append(_statistics(weights.float(), self.mask))
        return (output[0], None, *output[2:])

    def take(self, rows: int) -> dict[str, npt.NDArray[np.float32]]:
        """The statistics of the last batch: `entropy` and `gini`, each (rows, layers * heads).

        Raises:
            ModelError: no layer returned attention weights.
        """
        if not self._layers:
            raise ModelError("the model returns no attention weights; leave out the attention statistics")
        # The layers may be on several devices.
        both = torch.stack([layer.cpu() for layer in self._layers])[:, :, :rows].numpy()  # (layers, 2, rows, heads)
        self._layers.clear()
        entropy, gini = (np.moveaxis(both[:, kind], 0, 1).reshape(rows, -1) for kind in (0, 1))
        return {"entropy": entropy, "gini": gini}

    def clear(self) -> None:
        """Discard what a failed batch left behind."""
        self._layers.clear()


@contextlib.contextmanager
def recording(model: Any) -> Iterator[AttentionRecorder]:
    """Make the model compute its attention weights explicitly, and reduce them as they are computed."""
    recorder = AttentionRecorder()
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    before = inner.config._attn_implementation
    handles = [
        module.register_forward_hook(recorder.hook)
        for module in inner.modules()
        if type(module).__name__.endswith(("Attention", "SdpaAttention"))
    ]
    inner.set_attn_implementation("eager")
    try:
        yield recorder
    finally:
        inner.set_attn_implementation(before)
        for handle in handles:
            handle.remove()


def batch_limit(model: Any, longest: int) -> int:
    """Positions per forward pass such that one layer's weights stay below the limit."""
    heads = int(getattr(model.config.get_text_config(), "num_attention_heads", 1))
    return max(_MOST_WEIGHTS // (heads * max(longest, 1)), 1)


def _statistics(weights: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over a sequence's tokens of the entropy (nats) and the Gini coefficient of their attention weights.

    Args:
        weights: (batch, heads, length, length); each row sums to 1 over the tokens up to and including its own.
        mask: (batch, length), True on tokens.

    Returns:
        (2, batch, heads): entropy, Gini. The Gini coefficient of token t covers the t + 1 tokens that it can attend to.
    """
    length = weights.shape[-1]
    entropy = torch.special.entr(weights).sum(-1)
    keys = torch.arange(1, length + 1, device=weights.device, dtype=weights.dtype)
    # After sorting, tokens that cannot be attended to are zeros in front; ranks of the others are counted without them.
    place = (weights.sort(-1).values * keys).sum(-1) - (length - keys)
    gini = 2 * place / keys - (keys + 1) / keys
    valid = mask.to(weights.device, weights.dtype)[:, None, :]
    both = torch.stack([entropy, gini.clamp(min=0)])
    return (both * valid).sum(-1) / valid.sum(-1).clamp(min=1)
