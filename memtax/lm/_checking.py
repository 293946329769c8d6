"""Checks of a parameter set's gradients against autograd on one short example, once per model, before their first use."""

import contextlib
import math
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from memtax.errors import ModelError
from memtax.lm._kernels import Flat, Kernel, Outer, Table, Tied
from memtax.lm._recording import Sites
from memtax.lm.head import call, invocation_tokens
from memtax.lm.special_tokens import positions

_TOKENS = 8
_NUMBERS = 2**24
"""Entries of a gradient computed at once."""
_TOLERANCES = {torch.float64: 1e-4, torch.float32: 5e-3}
"""Tolerance for float32 and wider; some models compute parts in float32, whatever the dtype of their weights."""
_COARSE = 0.1
"""Tolerance for 16-bit dtypes."""
_CHECKED: "weakref.WeakKeyDictionary[Any, set[tuple[object, ...]]]" = weakref.WeakKeyDictionary()

Capture = Callable[[Sequence[Sequence[int]]], Mapping[str, Kernel]]


def check_gradients(model: Any, sites: Sites, key: tuple[str, str], capture: Capture) -> None:
    """Compare every tensor's gradient with autograd's on one short example, the first time that a set is used.

    Args:
        model: the model, in evaluation mode, with frozen parameters.
        sites: sites of the parameter set.
        key: name of the parameter set, and the padding side.
        capture: returns the kernels of some sequences.

    Raises:
        ModelError: the gradient of a tensor differs.
    """
    active = getattr(model, "active_adapters", None)
    # `active_adapters` is a method in `transformers` and a property in PEFT.
    state = (*key, tuple(active) if isinstance(active, list) else ())
    checked = _CHECKED.setdefault(model, set())
    if state in checked:
        return
    example = _example(model)
    # The longer second sequence adds padding to the first. With 16-bit dtypes, other shapes would only add rounding.
    both = model.dtype in _TOLERANCES and positions(model) not in (None, len(example))
    kernels = capture([example, [*example, example[0]]] if both else [example])
    differences, norms = _compare(model, sites, {name: kernel.part(0, 1) for name, kernel in kernels.items()}, example)
    tolerance = _TOLERANCES.get(model.dtype, _COARSE)
    # A gradient that is exactly zero (a key's bias) shows rounding noise as large as the rounding of other gradients.
    noise = 64 * torch.finfo(model.dtype).eps * max(norms.values(), default=0.0) / 8
    for name, difference in differences.items():
        if not math.isfinite(norms[name]):
            continue  # Overflow of the dtype; code that reads the kernels reports it.
        if not difference <= tolerance * norms[name] + noise:
            raise ModelError(
                f"the gradient of {name} differs from autograd's on a short example (norm of the difference {difference:.2g}, "
                f"of the gradient {norms[name]:.2g}); choose another parameter set than {key[0]!r}"
            )
    checked.add(state)


def _example(model: Any) -> list[int]:
    """A few token ids, including those that activate an adapter."""
    size = int(model.get_input_embeddings().weight.shape[0])
    ids = [(7 * place + 3) % size for place in range(_TOKENS)]
    invocation = invocation_tokens(model)
    ids = [*ids[: _TOKENS // 2], *invocation, *ids[_TOKENS // 2 :]]
    return ids[: positions(model) or len(ids)]


def _compare(
    model: Any, sites: Sites, kernels: Mapping[str, Kernel], example: Sequence[int]
) -> tuple[dict[str, float], dict[str, float]]:
    """Norm of the difference from autograd's gradient, and of that gradient, per tensor; one gradient in memory at a time."""
    # Quantized weights are integers, which have no gradient in autograd.
    tensors = {name: tensor for name, tensor in model.named_parameters() if name in kernels and tensor.is_floating_point()}
    turned = {weight for module, (weight, _) in sites.linear.items() if not isinstance(module, torch.nn.Linear)}
    differences: dict[str, float] = {}
    norms: dict[str, float] = {}

    def take(name: str, gradient: torch.Tensor) -> None:
        kernel = kernels[name]
        expected = gradient.detach().to(_dtype(kernel))
        norms[name] = float(expected.norm())
        rest = expected.T.clone() if name in turned else expected.clone()
        _subtract(rest, kernel)
        differences[name] = float(rest.norm())

    with _asking(tensors, take), torch.enable_grad():
        ids = torch.tensor([list(example)], device=model.device)
        output = call(model, input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        logits = output.logits[0, -ids.shape[1] :][:-1]
        wide = logits.double() if model.dtype == torch.float64 else logits.float()
        torch.nn.functional.cross_entropy(wide, ids[0, 1:].to(wide.device)).backward()  # type: ignore[no-untyped-call]
    for name, tensor in tensors.items():
        if name not in differences:
            take(name, torch.zeros_like(tensor))
    return differences, norms


@contextlib.contextmanager
def _asking(tensors: Mapping[str, torch.nn.Parameter], take: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
    """Make tensors pass on their gradient as soon as it is complete, and restore their own `.grad` afterwards."""
    before = {name: tensor.grad for name, tensor in tensors.items()}
    handles = []

    def hook(name: str) -> Callable[[torch.Tensor], None]:
        def taken(tensor: torch.Tensor) -> None:
            assert tensor.grad is not None
            take(name, tensor.grad)
            tensor.grad = None

        return taken

    for name, tensor in tensors.items():
        tensor.grad = None
        tensor.requires_grad_(True)
        handles.append(tensor.register_post_accumulate_grad_hook(hook(name)))  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for name, tensor in tensors.items():
            tensor.requires_grad_(False)
            tensor.grad = before[name]


def _dtype(kernel: Kernel) -> torch.dtype:
    if isinstance(kernel, Tied):
        return kernel.head.left.dtype
    return kernel.left.dtype if isinstance(kernel, Outer) else kernel.values.dtype


def _subtract(rest: torch.Tensor, kernel: Kernel) -> None:
    """Subtract one example's gradient from a tensor, (outputs, inputs) for a linear map, in place."""
    if isinstance(kernel, Tied):
        _subtract(rest, kernel.head)
        _subtract(rest, kernel.embedding)
    elif isinstance(kernel, Flat):
        rest -= kernel.values[0].reshape(rest.shape).to(rest.device)
    elif isinstance(kernel, Table):
        rest.index_add_(0, kernel.ids.to(rest.device), -kernel.values.to(rest.device))
    else:
        block = max(_NUMBERS // rest.shape[1], 1)
        for start in range(0, rest.shape[0], block):
            part = rest[start : start + block]
            part -= kernel.gradients(slice(start, start + len(part)))[0].reshape(part.shape).to(rest.device)
