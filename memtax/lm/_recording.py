"""Where a model uses the tensors of a parameter set, and recording of their inputs and output errors."""

import contextlib
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from memtax.errors import ModelError
from memtax.lm._kernels import Flat, Held, Kernel, Outer, Table, Tied
from memtax.lm._targets import Targets
from memtax.lm.head import call
from memtax.lm.scores import sent


@dataclass(frozen=True)
class Sites:
    """The modules that contain a parameter set's tensors.

    Attributes:
        linear: linear maps other than the head, to the names of weight and bias (None: not in the set, or absent).
        head: the output layer and its names, if it is in the set.
        embedding: the input embedding and the name of its weight; recorded if the name is in `names`.
        names: all parameters of the set.
        sizes: parameter name to number of elements.
        entrance: the input embedding, at whose output the backward pass ends.
    """

    linear: Mapping[torch.nn.Module, tuple[str, str | None]]
    head: torch.nn.Module | None
    head_names: tuple[str | None, str | None]
    embedding_name: str | None
    names: tuple[str, ...]
    sizes: Mapping[str, int]
    entrance: torch.nn.Module

    @property
    def deep(self) -> bool:
        """Whether the backward pass must continue below the head."""
        return bool(self.linear) or self.embedding_name is not None


def find_sites(model: Any, parameters: str) -> Sites:
    """Find the sites of a parameter set.

    Raises:
        ModelError: the set is unknown or absent from the model, or one of its tensors is not in a linear map or embedding.
    """
    from memtax.lm.gradients import PARAMETERS

    if parameters not in PARAMETERS:
        raise ModelError(f"unknown parameter set {parameters!r}; choose one of {', '.join(PARAMETERS)}")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    entrance, head = _own(model.get_input_embeddings()), _own(model.get_output_embeddings())
    if not isinstance(entrance, torch.nn.Embedding):
        raise ModelError(f"the model's input embedding is a {type(entrance).__name__}, whose gradient memtax cannot compute")
    # The original of a module that PEFT trains as a copy is unused.
    maps = {module: name for name, module in model.named_modules() if _is_linear(module) and ".original_module" not in name}
    if parameters == "lora":
        chosen = {module for module, name in maps.items() if ".lora_A." in name or ".lora_B." in name}
    elif parameters == "all-linear":
        # An adapter's own maps are not layers of the model.
        chosen = {module for module, name in maps.items() if ".lora_" not in name}
        _refuse_stacked(model)
    else:
        chosen = {head} & set(maps)
    if not chosen:
        raise ModelError(f"the model has no tensors of the set {parameters!r}; it is a {type(model).__name__}")
    tensors: dict[str, torch.Tensor] = {}
    linear = {}
    for module in (module for module in maps if module in chosen):
        weight, bias = names[id(module.weight)], None if module.bias is None else names[id(module.bias)]
        tensors |= {weight: module.weight} | ({} if bias is None else {bias: module.bias})
        linear[module] = (weight, bias)
    if parameters == "lora":
        missing = [name for name in names.values() if "lora_" in name and name not in tensors]
        if missing:
            raise ModelError(f"{missing[0]} is a LoRA tensor that does not belong to a linear map; memtax has no kernel for it")
    head_names = linear.pop(head, (None, None))
    embedding = names[id(entrance.weight)]
    tied = embedding == head_names[0]
    if parameters == "embeddings+head" or tied:
        tensors = {embedding: entrance.weight, **tensors}
    sizes = {name: tensor.numel() for name, tensor in tensors.items()}
    return Sites(
        linear,
        head if head_names[0] else None,
        head_names,
        embedding if embedding in tensors else None,
        tuple(tensors),
        sizes,
        entrance,
    )


def _own(module: Any) -> Any:
    """The layer inside PEFT's wrappers: the layer that an adapter modifies, or the trained copy that replaces it."""
    kept = getattr(module, "modules_to_save", None)
    if kept is not None:
        active = [name for name in module.active_adapters if name in kept]
        return kept[active[0]] if active else module.original_module
    return getattr(module, "base_layer", module)


def _refuse_stacked(model: Any) -> None:
    """Reject a mixture of experts whose linear maps are stacked in one parameter outside any linear layer.

    Raises:
        ModelError: the model is one.
    """
    for name, parameter in model.named_parameters():
        if parameter.dim() > 2 and "experts" in name.split("."):
            raise ModelError(
                f"{name} contains the linear maps of all experts, for which memtax has no kernel; "
                "choose another parameter set than 'all-linear'"
            )


def check_uncalled(model: Any, modules: Mapping[torch.nn.Module, str], ids: torch.Tensor) -> None:
    """Check that layers which were not called do not affect the logits in another way, so that their gradients are indeed 0.

    Some models read a layer's weight without calling the layer (Mamba's step sizes).

    Args:
        model: the model, with frozen parameters.
        modules: layers that were not called, and the names of their weights.
        ids: (examples, length), the input for which they were not called.

    Raises:
        ModelError: a weight is used.
    """
    missing = {module: name for module, name in modules.items() if module not in _UNUSED}
    if not missing:
        return
    weights: list[Any] = [module.weight for module in missing]
    for weight in weights:
        weight.requires_grad_(True)
    try:
        with torch.enable_grad():
            total = call(model, input_ids=ids, use_cache=False).logits.sum()
            found = torch.autograd.grad(total, weights, allow_unused=True) if total.requires_grad else [None]
    finally:
        for weight in weights:
            weight.requires_grad_(False)
    used = [name for name, gradient in zip(missing.values(), found, strict=False) if gradient is not None]
    if used:
        raise ModelError(f"the model reads {used[0]} without calling its layer, for which memtax has no kernel")
    _UNUSED.update(missing)


_UNUSED: "weakref.WeakSet[torch.nn.Module]" = weakref.WeakSet()
"""Layers known to be used only by calling them."""


@contextlib.contextmanager
def frozen(model: Any) -> Iterator[None]:
    """Disable `requires_grad` of all parameters, and restore it afterwards."""
    asking = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


@dataclass
class _Call:
    """One call of a module: its input and, after the backward pass, the error at its output."""

    entered: torch.Tensor
    error: torch.Tensor | None = None


@dataclass
class Recorder:
    """Records inputs and output errors at the sites while a batch is processed."""

    sites: Sites
    deep: bool
    calls: dict[torch.nn.Module, list[_Call]] = field(default_factory=dict)
    _hooks: list[Any] = field(default_factory=list)
    _disordered: list[tuple[torch.nn.Module, torch.Size, torch.Tensor]] = field(default_factory=list)

    def __enter__(self) -> "Recorder":
        if not self.deep:
            return self
        self._hooks.append(self.sites.entrance.register_forward_hook(self._enter))
        for module in self.sites.linear:
            self._hooks.append(module.register_forward_hook(self._pass))
        if self.sites.head is not None:
            # Called only if head and backbone are not run separately.
            self._hooks.append(self.sites.head.register_forward_hook(self._pass))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _enter(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        # With frozen weights the graph begins here. The model gets a copy because some models scale it in place.
        output.requires_grad_()
        self._pass(module, inputs, output)
        return output.clone()

    def _pass(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if not output.requires_grad:
            raise ModelError(
                f"the output of a {type(module).__name__} layer does not depend on the text; choose another parameter set"
            )
        found = _Call(inputs[0].detach())
        self.calls.setdefault(module, []).append(found)

        def back(error: torch.Tensor) -> None:
            found.error = error.detach()

        output.register_hook(back)  # type: ignore[no-untyped-call]

    def uncalled(self) -> dict[torch.nn.Module, str]:
        """Linear layers of the set that were not called, and the names of their weights."""
        return {module: weight for module, (weight, _) in self.sites.linear.items() if module not in self.calls}

    def kernels(
        self,
        targets: Targets,
        dtype: torch.dtype,
        flat: int,
        head: Outer | None = None,
        head_bias: Flat | None = None,
    ) -> dict[str, Kernel]:
        """The gradients of each tensor in the set.

        Args:
            targets: the batch's positions.
            dtype: dtype of the kernels.
            flat: see `memtax.lm.gradients._FLAT`.
            head: the head's gradients, if already computed.
            head_bias: the gradients of the head's bias, if already computed.

        Raises:
            ModelError: the examples of a layer's input cannot be separated.
        """
        sites, found = self.sites, dict[str, Kernel]()
        for module, (weight, bias) in sites.linear.items():
            outer = self._outer(module, targets, dtype)
            numbers = outer.left.shape[1], outer.errors.width
            small = numbers[0] * numbers[1] <= flat * sum(numbers)
            _add(found, weight, Flat(outer.gradients(slice(None))) if small else outer)
            if bias is not None:
                _add(found, bias, _bias(outer, targets))
        if sites.head is not None:
            if head is None:
                head = self._outer(sites.head, targets, dtype)
                head_bias = None if sites.head_names[1] is None else _bias(head, targets)
            assert sites.head_names[0] is not None
            found[sites.head_names[0]] = head
            if sites.head_names[1] is not None and head_bias is not None:
                found[sites.head_names[1]] = head_bias
        if sites.embedding_name is not None:
            table = self._table(targets, dtype)
            tied = found.get(sites.embedding_name)
            found[sites.embedding_name] = Tied(tied, table) if isinstance(tied, Outer) else table
        self._check_order()
        return {name: found[name] for name in sites.names}

    def _outer(self, module: torch.nn.Module, targets: Targets, dtype: torch.dtype) -> Outer:
        """Gradients of a linear map, summed over its calls."""
        calls = [self._by_example(one, targets, module) for one in self.calls.get(module, []) if one.error is not None]
        lengths, device = targets.lengths, targets.device
        if not calls:
            inputs, outputs = _shape(module)
            zeros = torch.zeros(len(targets), inputs + outputs, dtype=dtype, device=device)
            return Outer(lengths, zeros[:, :inputs], Held(zeros[:, inputs:]))
        left = [targets.of(one.entered).to(device, dtype) for one in calls]
        right = [targets.of(one.error).to(device, dtype) for one in calls if one.error is not None]
        if len(calls) == 1:
            return Outer(lengths, left[0], Held(right[0]))
        return Outer(
            tuple(length * len(calls) for length in lengths), _interleave(left, lengths), Held(_interleave(right, lengths))
        )

    def _table(self, targets: Targets, dtype: torch.dtype) -> Table:
        """The embedding's gradients."""
        entrance: Any = self.sites.entrance
        weight = entrance.weight
        calls = self.calls[entrance]
        if len(calls) != 1 or calls[0].entered.shape != targets.mask.shape:
            raise ModelError("the model reads its input embedding in a way for which memtax has no kernel")
        error = calls[0].error
        if error is None:
            zeros = torch.zeros(len(targets), weight.shape[1], dtype=dtype, device=targets.device)
            return Table(targets.lengths, sent(targets.ids, targets.device), zeros)
        values = targets.of(error).to(targets.device, dtype)
        if (scale := getattr(entrance, "embed_scale", None)) is not None:
            values = values * torch.as_tensor(scale, device=values.device).to(weight.dtype).to(dtype)
        if entrance.padding_idx is not None:
            # PyTorch gives the padding token's row no gradient.
            values = values * sent(targets.ids != entrance.padding_idx, values.device)[:, None]
        return _gathered(targets, values)

    def _by_example(self, one: _Call, targets: Targets, module: torch.nn.Module) -> _Call:
        """A call with inputs of shape (batch, length, width), so that examples are separate.

        Raises:
            ModelError: the examples cannot be separated.
        """
        if one.entered.shape[:-1] == targets.mask.shape:
            return one
        if one.entered.shape[:-1] != (targets.mask.size,) or one.error is None:
            raise _inseparable(module, one.entered.shape)
        # Flattened, as in OPT. Errors are exactly 0 where no target follows, which reveals rows in another order.
        entered, error = (values.reshape(*targets.mask.shape, -1) for values in (one.entered, one.error))
        self._disordered.append((module, one.entered.shape, targets.outside(error)))
        return _Call(entered, error)

    def _check_order(self) -> None:
        """Reject flattened inputs whose rows are in another order: once for all layers, as it waits for an accelerator.

        Raises:
            ModelError: there is one.
        """
        if not self._disordered:
            return
        device = self._disordered[0][2].device
        found = torch.stack([flag.to(device) for _, _, flag in self._disordered]).tolist()
        for (module, shape, _), disordered in zip(self._disordered, found, strict=True):
            if disordered:
                raise _inseparable(module, shape)


def _inseparable(module: torch.nn.Module, shape: torch.Size) -> ModelError:
    return ModelError(
        f"a {type(module).__name__} layer receives inputs of shape {tuple(shape)}, in which examples cannot "
        "be separated; choose another parameter set"
    )


def _gathered(targets: Targets, values: torch.Tensor) -> Table:
    """A table with each distinct token of an example once: long texts repeat most of their tokens."""
    highest = int(targets.ids.max()) + 1 if len(targets) else 1
    keys, places = np.unique(
        np.repeat(np.arange(len(targets.lengths)), targets.lengths) * highest + targets.ids, return_inverse=True
    )
    counts = np.bincount(keys // highest, minlength=len(targets.lengths))
    sums = values.new_zeros(len(keys), values.shape[1]).index_add_(0, sent(places, values.device), values)
    return Table(tuple(counts.tolist()), sent(keys % highest, values.device), sums)


def _is_linear(module: torch.nn.Module) -> bool:
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, torch.nn.Linear | Conv1D)


def _shape(module: torch.nn.Module) -> tuple[int, int]:
    """Input and output width of a linear map."""
    weight: Any = module.weight
    rows, columns = weight.shape
    return (columns, rows) if isinstance(module, torch.nn.Linear) else (rows, columns)


def _bias(outer: Outer, targets: Targets) -> Flat:
    """Gradients of a bias: the sum of the errors."""
    errors = outer.errors.columns(slice(None))
    calls = len(errors) // max(len(targets), 1)
    owner = targets.owners if calls == 1 else targets.owners.repeat_interleave(calls)
    return Flat(errors.new_zeros(len(outer), errors.shape[1]).index_add_(0, owner, errors))


def _interleave(rows: list[torch.Tensor], lengths: tuple[int, ...]) -> torch.Tensor:
    """The rows of each example from all calls, ordered by example."""
    pieces = zip(*(torch.split(one, list(lengths)) for one in rows), strict=True)
    return torch.cat([torch.cat(example) for example in pieces])


def _add(found: dict[str, Kernel], name: str, kernel: Kernel) -> None:
    """Store a kernel; a tensor used in two places (tied layers) gets the sum of both gradients."""
    if name not in found:
        found[name] = kernel
        return
    other = found[name]
    if isinstance(other, Flat) and isinstance(kernel, Flat):
        found[name] = Flat(other.values + kernel.values)
        return
    raise ModelError(f"{name} is the weight of several layers, for which memtax has no kernel")
