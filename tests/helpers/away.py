"""A stand-in for an accelerator, so that mistakes about devices show without one, and what would wait for it is counted.

Tensors `Away` keep their numbers in the memory of the CPU but say that their device is "meta". An operation that mixes them
with tensors of the CPU is refused, as CUDA refuses it, and so is `.numpy()` on one.
"""

import contextlib
from collections import Counter
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
MOVES = ("aten::copy_", "aten::_to_copy")
INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
"""Their indices may stay on the CPU."""
IN_PLACE = ("aten::copy_", "aten::index_put_", "aten::_index_put_impl_")


WAITING = ("nonzero", "_local_scalar_dense", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount")
"""Operations whose result's shape or value the host needs."""
_counts: list[Counter] = []


class Away(torch.Tensor):
    """A tensor on the device."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner):
        facts = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, inner.size(), **facts, device=DEVICE, requires_grad=False)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


class _Tensors(TorchFunctionMode):
    """`torch.tensor(..., device=...)` and `tolist` do their work where no dispatch mode sees it."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function is torch.Tensor.tolist and isinstance(args[0], Away):
            if _counts:
                _counts[-1]["fetched"] += 1
            return args[0].inner.tolist()
        if function is torch.tensor and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return function(*args, **kwargs).to(device)
        return function(*args, **kwargs)


@contextlib.contextmanager
def device():
    """While this lasts, `meta` is the stand-in."""
    patches = (("autocast", _autocast), ("is_autocast_enabled", _is_autocast_enabled))
    with contextlib.ExitStack() as stack:
        for context in (_Tensors(), _Dispatch(), *(mock.patch.object(torch, name, other) for name, other in patches)):
            stack.enter_context(context)
        yield


def _autocast(device_type, *args, plain=torch.autocast, **kwargs):
    """PyTorch has no autocast on "meta"; transformers 4 switches it off there while it computes positions."""
    if device_type == DEVICE.type and not kwargs.get("enabled", True):
        return contextlib.nullcontext()
    return plain(device_type, *args, **kwargs)


def _is_autocast_enabled(*device_type, plain=torch.is_autocast_enabled):
    """Some versions of PyTorch refuse to answer for "meta", which transformers 5 asks first."""
    return False if device_type == (DEVICE.type,) else plain(*device_type)


@contextlib.contextmanager
def counted():
    """Count by name what waits for an accelerator: also copies in both directions, and indexing by masks."""
    _counts.append(Counter())
    try:
        yield _counts[-1]
    finally:
        _counts.pop()


def _wait(name, args, kwargs, to_here):
    """The name of a wait, or None."""
    base = name.removeprefix("aten::")
    if base in WAITING or (base == "repeat_interleave" and kwargs.get("output_size") is None):
        return base
    if base in ("_to_copy", "copy_"):
        source = args[1] if base == "copy_" else args[0]
        ends = isinstance(source, Away), not to_here
        return {(True, False): "fetched", (False, True): "sent"}.get(ends)
    if name in INDEXING:
        masks = [index for index in args[1] if index is not None and index.dtype == torch.bool]
        # A mask with one value for all places is no selection.
        return "mask" if masks and not (base != "index" and args[2].numel() == 1) else None
    return None


def move(model):
    """Put a model there; tied weights stay tied."""
    moved = {}
    for module in model.modules():
        for values in (module._parameters, module._buffers):
            for name, value in values.items():
                if value is not None and id(value) not in moved:
                    put = Away(value.detach())
                    # The old one is kept: another with its id must not come up meanwhile.
                    moved[id(value)] = value, torch.nn.Parameter(put) if values is module._parameters else put
                values[name] = None if value is None else moved[id(value)][1]
    return model


def _run(function, args, kwargs):
    name = function._schema.name
    if torch._C._dispatch_has_kernel_for_dispatch_key(function.name(), "CompositeImplicitAutograd"):
        # Inference mode does not take these apart by itself.
        with _Dispatch():
            found = function.decompose(*args, **kwargs)
        if found is not NotImplemented:
            return found
    tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
    away = [value for value in tensors if isinstance(value, Away)]
    here = [value for value in tensors if not isinstance(value, Away) and value.dim()]
    if away and here and name not in MOVES and not (name in INDEXING and isinstance(args[0], Away)):
        raise RuntimeError(f"{function}: tensors on two devices")
    there = bool(away)
    if name in IN_PLACE:
        there = isinstance(args[0], Away)
    elif kwargs.get("device") is not None:
        there = torch.device(kwargs["device"]) == DEVICE
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if _counts and (away or there) and (wait := _wait(name, args, kwargs, not there)):
        _counts[-1][wait] += 1
    args, kwargs = tree_map(lambda value: value.inner if isinstance(value, Away) else value, (args, kwargs))
    known = {id(value.inner): value for value in away} | {id(value): value for value in tensors}

    def wrap(value):
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) in known or not there:
            return known.get(id(value), value)
        # In inference mode, a view of a tensor made outside of it is no inference tensor.
        with torch.inference_mode(value.is_inference()):
            return Away(value)

    return tree_map(wrap, function(*args, **kwargs))
