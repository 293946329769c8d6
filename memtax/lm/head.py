"""A causal language model split into backbone and head, so that the head runs only where its output is needed.

The operations between the head's product and the logits (soft-capping in Gemma 2, a factor in Cohere and Granite) differ
between architectures, and the same configuration name does not always mean the same operation. So the parts are run once on a
few tokens and used only if they reproduce the logits of the model's own forward pass. Otherwise that forward pass is used.
"""

import contextlib
import functools
import inspect
import re
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
"""Tokens of a second probe: some models attend to a few selected tokens only in longer texts."""
_PROBE_ERRORS = (AssertionError, AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Parts:
    """A model's backbone, its linear head, and the operation between the head's product and the logits."""

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
    """The parts of a model, or None if only its own forward pass reproduces its logits.

    Args:
        model: a `transformers` causal language model, or a PEFT model around one; in evaluation mode.

    Raises:
        ModelError: the model is not causal: a token's logits depend on the tokens after it.
    """
    if model not in _KNOWN:
        _KNOWN[model] = _probe(model)
    return _KNOWN[model]


def call(module: Any, **arguments: Any) -> Any:
    """Call a module with those of the arguments that its forward pass accepts."""
    # The cache holds functions of classes only: what Accelerate puts in place of a method holds its module.
    function = getattr(module.forward, "__func__", None)
    accepted = _accepted(function) if function else _parameters(module.forward)
    refused = _REFUSED.get(type(module), frozenset())
    arguments = {
        name: value for name, value in arguments.items() if name not in refused and (accepted is None or name in accepted)
    }
    try:
        return module(**arguments)
    except TypeError as error:
        # Models that take any argument and hand it to a part that does not.
        found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if found is None or found[1] not in arguments:
            raise
    _REFUSED[type(module)] = refused | {found[1]}
    return call(module, **arguments)


_REFUSED: dict[type, frozenset[str]] = {}
"""Classes of models, and arguments that their forward pass seems to accept and does not."""


def _parameters(function: Callable[..., Any]) -> frozenset[str] | None:
    """Names of a function's parameters; None if it accepts any."""
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return frozenset(parameter.name for parameter in parameters)


_accepted = functools.lru_cache(maxsize=64)(_parameters)


@contextlib.contextmanager
def as_it_is(model: Any) -> Iterator[None]:
    """Use the model's own forward pass if Accelerate has replaced it with one that computes in 16 bits."""
    wrapped = vars(model).get("forward") if hasattr(model, "_original_forward") else None
    if wrapped is not None:
        model.forward = model._original_forward
    try:
        yield
    finally:
        if wrapped is not None:
            model.forward = wrapped


def check_padding(model: Any) -> None:
    """Reject padding on the left if the model does not ignore it.

    Raises:
        ModelError: padding before a sequence changes the model's output.
    """
    if not ignores_padding(model):
        raise ModelError(f"{type(model).__name__} does not ignore padding before a sequence; keep the padding on the right")


def ignores_padding(model: Any) -> bool:
    """Whether padding before a sequence changes nothing, with and without a cache.

    A recurrent state remembers padding, and it shifts positions that a model counts itself; the configuration shows neither,
    so it is tested.

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
    """Compare a few tokens alone with the same tokens after padding, and one more token that uses the cache."""
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
    """Whether continuing from the model's own cache equals reading the whole text again.

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
    """Compare the last of a few tokens read at once with the same token read after a cache of the previous ones."""
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
    """Maximum difference from rounding between equal logits computed in other shapes; errors are far larger."""
    return max(2e-3, 8 * torch.finfo(model.dtype).eps) * logits.abs().max().item()


def _product(head: Any, hidden: torch.Tensor) -> torch.Tensor:
    """The head's product; some backbones sum their layers in float32, whatever the dtype of the weights."""
    weight = getattr(head, "weight", None)
    # Quantized weights are integers.
    return head(hidden.to(weight.dtype) if weight is not None and weight.is_floating_point() else hidden)


def _adjustments(model: Any) -> Iterator[Adjustment]:
    """Candidate operations after the head, suggested by the configuration, and finally no operation."""
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
    """Whether an adapter acts in PEFT's own forward pass: with virtual tokens, or after certain token ids (aLoRA)."""
    config = getattr(model, "active_peft_config", None) if hasattr(model, "get_base_model") else None
    return bool(getattr(config, "is_prompt_learning", False) or invocation_tokens(model))


def invocation_tokens(model: Any) -> list[int]:
    """Token ids after which an adapter is active; empty if it is always active."""
    config = getattr(model, "active_peft_config", None) if hasattr(model, "get_base_model") else None
    return list(getattr(config, "alora_invocation_tokens", None) or [])


def _own_logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Logits of the model's own forward pass, without a cache because some architectures cannot create one.

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
    """Whether the first part of a longer text has the same logits by itself.

    This detects sparse attention that breaks ties by later tokens. With 16 bits, rounding alone may select other experts.
    """
    from memtax.lm.special_tokens import positions

    if model.dtype not in (torch.float32, torch.float64) or (positions(model) or _LONG_PROBE) < _LONG_PROBE:
        return True
    tokens = ((torch.arange(_LONG_PROBE, device=model.device) * 7 + 3) % size).unsqueeze(0)
    # Number of tokens that an indexer selects: its handling of ties shows at some lengths only.
    chosen = getattr(model.config.get_text_config(), "index_topk", None)
    try:
        whole = _own_logits(model, tokens)[:, -_LONG_PROBE:]
        for stop in (24, 40, 32, 20, 12) if chosen else (24,):
            alone = _own_logits(model, tokens[:, :stop])[:, -stop:]
            if (whole[:, :stop] - alone).abs().max().item() > _tolerance(model, alone):
                return False
    except ModelError:
        return True  # The batch that fails reports this error.
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
    # Two rows: some forward passes accept no mask with more than one (XLNet's causal one).
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
    # With the same kernels and shapes, only the place of a rounding can differ.
    tolerance = 8 * torch.finfo(product.dtype).eps * expected.abs().max().item()
    for adjust in _adjustments(inner):
        found = adjust(product)
        # A model spread over several devices returns its logits on the first one.
        if found.shape == expected.shape and (found.to(expected.device) - expected).abs().max().item() <= tolerance:
            return Parts(backbone, head, adjust)
    return None
