"""A causal language model as a backbone and a head, so that the head runs only where its output is needed.

What stands between the head's product and the logits (soft-capping in Gemma 2, a factor in Cohere and Granite) differs
between architectures, and the same configuration name does not always mean the same operation. So nothing is believed:
the parts are run once on a few tokens and used only if they give the logits of the model's own forward pass. Otherwise
that forward pass is what is used.
"""

import inspect
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

Adjustment = Callable[[torch.Tensor], torch.Tensor]

_PROBE_TOKENS = 8
_PROBE_ERRORS = (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Parts:
    """A model's backbone, its linear head, and what happens to the head's product before it is called logits."""

    backbone: torch.nn.Module
    head: torch.nn.Module
    adjust: Adjustment

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """The model's logits, in its own dtype, for hidden states of shape (rows, width)."""
        return self.adjust(self.head(hidden))


_KNOWN: "weakref.WeakKeyDictionary[torch.nn.Module, Parts | None]" = weakref.WeakKeyDictionary()


def decompose(model: Any) -> Parts | None:
    """The parts of a model, or None where only its own forward pass is known to give its logits.

    Args:
        model: a `transformers` causal language model, or a PEFT model around one; in evaluation mode.
    """
    if model not in _KNOWN:
        _KNOWN[model] = _probe(model)
    return _KNOWN[model]


def call(module: Any, **arguments: Any) -> Any:
    """Call a module with those of the arguments that its forward pass names, or with all if it takes any."""
    parameters = inspect.signature(module.forward).parameters.values()
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        names = {parameter.name for parameter in parameters}
        arguments = {name: value for name, value in arguments.items() if name in names}
    return module(**arguments)


def _adjustments(model: Any) -> Iterator[Adjustment]:
    """The operations after the head that the configuration hints at, then none at all."""
    config = model.config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None)
    if cap:
        yield lambda logits: torch.tanh(logits / cap) * cap
    scale = getattr(config, "logit_scale", None)
    if scale:
        yield lambda logits: logits * scale
    scaling = getattr(config, "logits_scaling", None)
    if scaling:
        yield lambda logits: logits / scaling
        yield lambda logits: logits * scaling
    yield lambda logits: logits


@torch.inference_mode()
def _probe(model: Any) -> Parts | None:
    """Find the parts that reproduce the model's own logits on a few tokens."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    backbone, head = getattr(inner, "base_model", inner), inner.get_output_embeddings()
    if backbone is inner or not isinstance(head, torch.nn.Module):
        return None
    size = inner.get_input_embeddings().weight.shape[0]
    tokens = (torch.arange(_PROBE_TOKENS, device=model.device) % size).unsqueeze(0)
    mask = torch.ones_like(tokens)
    expected = model(input_ids=tokens, attention_mask=mask).logits
    try:
        hidden = call(backbone, input_ids=tokens, attention_mask=mask, use_cache=False)[0]
        product = head(hidden)
    except _PROBE_ERRORS:
        return None
    # The same kernels on the same shapes: only the place of a rounding can differ.
    tolerance = 8 * torch.finfo(product.dtype).eps * expected.abs().max().item()
    for adjust in _adjustments(inner):
        found = adjust(product)
        if found.shape == expected.shape and (found - expected).abs().max().item() <= tolerance:
            return Parts(backbone, head, adjust)
    return None
