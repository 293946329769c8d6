"""A causal language model as a backbone and a head, so that the head runs only where its output is needed.

What stands between the head's product and the logits (soft-capping in Gemma 2, a factor in Cohere and Granite) differs
between architectures, and the same configuration name does not always mean the same operation. So nothing is believed:
the parts are run once on a few tokens and used only if they give the logits of the model's own forward pass. Otherwise
that forward pass is what is used.
"""

import contextlib
import inspect
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from memtax.errors import ModelError
from memtax.lm.memory import cannot_run

Adjustment = Callable[[torch.Tensor], torch.Tensor]

_PROBE_TOKENS = 8
_LONG_PROBE = 48
"""Tokens of a second probe: some models attend to a few chosen tokens of a longer text only."""
_PROBE_ERRORS = (AssertionError, AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Parts:
    """A model's backbone, its linear head, and what happens to the head's product before it is called logits."""

    backbone: torch.nn.Module
    head: torch.nn.Module
    adjust: Adjustment

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """The model's logits, in its own dtype, for hidden states of shape (rows, width)."""
        return self.adjust(_product(self.head, hidden))


_PADDED: "weakref.WeakKeyDictionary[torch.nn.Module, bool]" = weakref.WeakKeyDictionary()
_CACHED: "weakref.WeakKeyDictionary[torch.nn.Module, bool]" = weakref.WeakKeyDictionary()
_KNOWN: "weakref.WeakKeyDictionary[torch.nn.Module, Parts | None]" = weakref.WeakKeyDictionary()


def decompose(model: Any) -> Parts | None:
    """The parts of a model, or None where only its own forward pass is known to give its logits.

    Args:
        model: a `transformers` causal language model, or a PEFT model around one; in evaluation mode.

    Raises:
        ModelError: it is not a causal language model: a token's logits depend on the tokens after it.
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


@contextlib.contextmanager
def as_it_is(model: Any) -> Iterator[None]:
    """The model's own forward pass where Accelerate has put one in its place that computes in 16 bits."""
    wrapped = vars(model).get("forward") if hasattr(model, "_original_forward") else None
    if wrapped is not None:
        model.forward = model._original_forward
    try:
        yield
    finally:
        if wrapped is not None:
            model.forward = wrapped


def check_padding(model: Any) -> None:
    """Refuse padding on the left where it is not ignored.

    Raises:
        ModelError: the model takes padding before a sequence for a part of it.
    """
    if not ignores_padding(model):
        raise ModelError(
            f"{type(model).__name__} takes padding before a sequence for a part of it; leave the padding on the right"
        )


def ignores_padding(model: Any) -> bool:
    """Whether padding before a sequence changes nothing, with and without a cache.

    A recurrent state remembers it, and positions that a model counts for itself are shifted by it; neither can be told from a
    configuration, so it is tried out.

    Args:
        model: a `transformers` causal language model, or a PEFT model around one; in evaluation mode.
    """
    if model not in _PADDED:
        try:
            _PADDED[model] = _try_padding(model)
        except _PROBE_ERRORS:
            return False
    return _PADDED[model]


@torch.inference_mode()
def _try_padding(model: Any) -> bool:
    """Compare a few tokens alone with the same tokens after padding, and one token more by way of the cache."""
    parts = decompose(model)
    size = model.get_input_embeddings().weight.shape[0]
    tokens = (torch.arange(_PROBE_TOKENS + 1, device=model.device) + 1).remainder(size).unsqueeze(0)
    mask = torch.ones_like(tokens)

    def logits(**arguments: Any) -> tuple[torch.Tensor, Any]:
        output = call(parts.backbone if parts else model, **arguments)
        return (parts.logits(output[0]) if parts else output.logits)[0].float(), output

    expected, _ = logits(input_ids=tokens, attention_mask=mask, use_cache=False)
    ids, mask = (torch.nn.functional.pad(values, (2 * _PROBE_TOKENS, 0)) for values in (tokens, mask))
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    before, output = logits(input_ids=ids[:, :-1], attention_mask=mask[:, :-1], position_ids=positions[:, :-1], use_cache=True)
    cache = getattr(output, "past_key_values", None)
    fresh = slice(None) if cache is None else slice(-1, None)
    after, _ = logits(
        input_ids=ids[:, fresh],
        attention_mask=mask,
        position_ids=positions[:, fresh],
        past_key_values=cache,
        use_cache=True,
    )
    found = torch.stack([before[-1], after[-1]])
    return bool((found - expected[-2:]).abs().max().item() <= _tolerance(model, expected))


def keeps_cache(model: Any) -> bool:
    """Whether the model continues from its own cache as if it read the whole text again.

    Args:
        model: a `transformers` causal language model, or a PEFT model around one; in evaluation mode.
    """
    if model not in _CACHED:
        try:
            _CACHED[model] = _try_cache(model)
        except _PROBE_ERRORS:
            _CACHED[model] = False
    return _CACHED[model]


@torch.inference_mode()
def _try_cache(model: Any) -> bool:
    """Compare the last of a few tokens read at once with the same token after a cache of the others."""
    parts = decompose(model)
    if parts is None:
        return False
    size = model.get_input_embeddings().weight.shape[0]
    tokens = (torch.arange(_PROBE_TOKENS, device=model.device) + 1).remainder(size).unsqueeze(0)
    mask, places = torch.ones_like(tokens), torch.arange(_PROBE_TOKENS, device=model.device).unsqueeze(0)

    def last(fresh: slice, stop: int, cache: Any, use_cache: bool) -> tuple[torch.Tensor, Any]:
        output = call(
            parts.backbone,
            input_ids=tokens[:, fresh],
            attention_mask=mask[:, :stop],
            position_ids=places[:, fresh],
            past_key_values=cache,
            use_cache=use_cache,
        )
        return parts.logits(output[0][:, -1]).float(), getattr(output, "past_key_values", None)

    expected, _ = last(slice(None), _PROBE_TOKENS, None, False)
    _, cache = last(slice(0, -1), _PROBE_TOKENS - 1, None, True)
    if cache is None:
        return False
    found, _ = last(slice(-1, None), _PROBE_TOKENS, cache, True)
    return bool((found - expected).abs().max().item() <= _tolerance(model, expected))


def _tolerance(model: Any, logits: torch.Tensor) -> float:
    """How far the same logits from passes of other shapes may be apart, by rounding; what a wrong pass does is far more."""
    return max(2e-3, 8 * torch.finfo(model.dtype).eps) * logits.abs().max().item()


def _product(head: Any, hidden: torch.Tensor) -> torch.Tensor:
    """The head's product; some backbones keep the sum of their layers in float32, whatever the type of the weights."""
    weight = getattr(head, "weight", None)
    # Quantized weights are integers.
    return head(hidden.to(weight.dtype) if weight is not None and weight.is_floating_point() else hidden)


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


def reads_ids(model: Any) -> bool:
    """Whether an adapter acts in PEFT's own forward pass: by virtual tokens, or from certain token ids on (aLoRA)."""
    config = getattr(model, "active_peft_config", None) if hasattr(model, "get_base_model") else None
    return bool(getattr(config, "is_prompt_learning", False) or invocation_tokens(model))


def invocation_tokens(model: Any) -> list[int]:
    """Token ids after which an adapter is active; empty where it always is."""
    config = getattr(model, "active_peft_config", None) if hasattr(model, "get_base_model") else None
    return list(getattr(config, "alora_invocation_tokens", None) or [])


def _own_logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Logits of the model's own forward pass. No cache: some architectures cannot make one.

    Raises:
        ModelError: that forward pass fails.
    """
    try:
        output = call(model, input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False)
        logits: torch.Tensor = output.logits
    except torch.cuda.OutOfMemoryError:
        raise
    except _PROBE_ERRORS as error:
        raise cannot_run(model, (len(tokens), tokens.shape[1]), error) from error
    return logits


def _keeps_long(model: Any, size: int) -> bool:
    """Whether the first part of a longer text has the same logits alone.

    Sparse attention that breaks ties by what follows is found so. With 16 bits, rounding alone may choose other experts.
    """
    from memtax.lm.special_tokens import positions

    if model.dtype not in (torch.float32, torch.float64) or (positions(model) or _LONG_PROBE) < _LONG_PROBE:
        return True
    tokens = ((torch.arange(_LONG_PROBE, device=model.device) * 7 + 3) % size).unsqueeze(0)
    # How many tokens an indexer chooses: what it does with equals shows at some lengths only.
    chosen = getattr(model.config.get_text_config(), "index_topk", None)
    try:
        whole = _own_logits(model, tokens)[:, -_LONG_PROBE:]
        for stop in (24, 40, 32, 20, 12) if chosen else (24,):
            alone = _own_logits(model, tokens[:, :stop])[:, -stop:]
            if (whole[:, :stop] - alone).abs().max().item() > _tolerance(model, alone):
                return False
    except ModelError:
        return True  # Said of the batch that it cannot take.
    return True


@torch.inference_mode()
def _probe(model: Any) -> Parts | None:
    """Find the parts that reproduce the model's own logits on a few tokens.

    Raises:
        ModelError: a token's logits depend on the tokens after it.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    size = inner.get_input_embeddings().weight.shape[0]
    tokens = (torch.arange(_PROBE_TOKENS, device=model.device) % size).unsqueeze(0)
    mask = torch.ones_like(tokens)
    expected = _own_logits(model, tokens)
    half = _PROBE_TOKENS // 2
    # Two rows: some forward passes take no mask with more than one (XLNet's causal one).
    alone = _own_logits(model, tokens[:, :half].repeat(2, 1))[:1, -1]
    wrong = (alone - expected[:, half - _PROBE_TOKENS - 1]).abs().max().item() > _tolerance(model, alone)
    if wrong or not _keeps_long(model, size):
        raise ModelError(
            f"{type(inner).__name__} attends to later tokens, so its log-probabilities are meaningless; pass a causal model"
        )
    backbone, head = getattr(inner, "base_model", inner), inner.get_output_embeddings()
    if backbone is inner or not isinstance(head, torch.nn.Module) or reads_ids(model):
        return None
    try:
        hidden = call(backbone, input_ids=tokens, attention_mask=mask, use_cache=False)[0]
        product = _product(head, hidden)
    except _PROBE_ERRORS:
        return None
    # The same kernels on the same shapes: only the place of a rounding can differ.
    tolerance = 8 * torch.finfo(product.dtype).eps * expected.abs().max().item()
    for adjust in _adjustments(inner):
        found = adjust(product)
        # Spread over several devices, a model brings its logits back to the first.
        if found.shape == expected.shape and (found.to(expected.device) - expected).abs().max().item() <= tolerance:
            return Parts(backbone, head, adjust)
    return None
