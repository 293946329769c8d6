"""Gradients as safetensors files, shared between processes and used to resume interrupted runs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from memtax.lm._kernels import Flat, Head, Held, Kernel, Outer, Recomputed, Table, Tied
from memtax.lm.gradients import Gradients
from memtax.lm.head import decompose

Tensors = dict[str, torch.Tensor]


def save_gradients(path: Path | str, gradients: Gradients, more: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write gradients and additional tensors into one new file."""
    from safetensors.torch import save_file

    tensors = {f"{name}|{key}": value for name, kernel in gradients.kernels.items() for key, value in _fields(kernel).items()}
    tensors |= {f"|{name}": value for name, value in (more or {}).items()}
    # Views share memory, which the format does not allow.
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    facts = json.dumps({"sizes": dict(gradients.sizes), "targets": gradients.targets})
    # One entry: the format writes several in random order, and equal gradients should give equal bytes.
    save_file(tensors, path, metadata={"gradients": facts})


def facts_of(file: Any) -> dict[str, Any]:
    """`sizes` and `targets` of an open gradient file."""
    found: dict[str, Any] = json.loads(file.metadata()["gradients"])
    return found


def load_gradients(path: Path | str, model: Any) -> tuple[Gradients, Tensors]:
    """Read a file written by `save_gradients`, onto the model's device.

    Args:
        path: the file.
        model: the model of the gradients: a head's errors are recomputed from its weights.
    """
    from safetensors import safe_open

    with safe_open(str(path), "pt", device=str(model.device)) as file:
        facts = facts_of(file)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is not a mapping)
    sizes = facts["sizes"]
    fields: dict[str, Tensors] = {name: {} for name in sizes}
    more: Tensors = {}
    for key, value in tensors.items():
        name, field = key.rsplit("|", 1)
        (fields[name] if name else more)[field] = value
    kernels = {name: _kernel(fields[name], model) for name in sizes}
    return Gradients(kernels, sizes, tuple(facts["targets"])), more


def _fields(kernel: Kernel) -> Tensors:
    if isinstance(kernel, Flat):
        return {"values": kernel.values}
    if isinstance(kernel, Tied):
        found = {f"head.{name}": value for name, value in _fields(kernel.head).items()}
        return found | {f"embedding.{name}": value for name, value in _fields(kernel.embedding).items()}
    lengths = torch.tensor(kernel.lengths, dtype=torch.int64)
    if isinstance(kernel, Table):
        return {"lengths": lengths, "ids": kernel.ids, "values": kernel.values}
    found = {"lengths": lengths, "left": kernel.left}
    if isinstance(kernel.errors, Held):
        return found | {"errors": kernel.errors.values}
    return found | {name: getattr(kernel.errors, name) for name in ("hidden", "targets", "normalizers")}


def _kernel(fields: Tensors, model: Any) -> Kernel:
    if "head.lengths" in fields:
        head, embedding = (
            _kernel({name.removeprefix(part): value for name, value in fields.items() if name.startswith(part)}, model)
            for part in ("head.", "embedding.")
        )
        return Tied(head, embedding)  # type: ignore[arg-type]
    if "lengths" not in fields:
        return Flat(fields["values"])
    lengths = tuple(fields["lengths"].tolist())
    if "ids" in fields:
        return Table(lengths, fields["ids"], fields["values"])
    if "errors" in fields:
        return Outer(lengths, fields["left"], Held(fields["errors"]))
    output = head_of(model)
    # With layers on several devices, the head may be on another one than the model's input.
    left, *rest = (fields[name].to(output.weight.device) for name in ("left", "hidden", "targets", "normalizers"))
    return Outer(lengths, left, Recomputed(output, *rest))


def head_of(model: Any) -> Head:
    """The head of a model that `decompose` supports."""
    parts = decompose(model)
    assert parts is not None
    layer: Any = parts.head
    return Head(layer.weight.detach(), None if layer.bias is None else layer.bias.detach(), parts.adjust)
