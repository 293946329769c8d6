"""Where a model's weights are and in which format: devices, dtype and quantization."""

import importlib.util
import os
from typing import Any

from memtax.engine.world import device as shared_device
from memtax.engine.world import is_together, use_cpu
from memtax.errors import ModelError

DTYPES = ("float32", "bfloat16", "float16", "auto", "saved")
"""Supported weight dtypes: `auto` is bfloat16 on an accelerator that supports it, otherwise float32; `saved` is the dtype in
which the weights were saved."""

TENSOR = "tensor"
"""The `device_map` that splits every layer over several processes."""
QUANTIZATIONS = ("8bit", "4bit")
"""Quantized weights, if bitsandbytes is installed."""


def process_device() -> Any:
    """The device of this process: Accelerate's if there are several processes, otherwise the machine's accelerator or CPU."""
    import torch

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return shared_device()
    if use_cpu():
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if torch.cuda._is_in_bad_fork():
        raise ModelError(
            "CUDA cannot be used in processes forked from one that has used it; leave out num_proc, or use torchrun"
        )
    return torch.device("cuda")


def settled_dtype(dtype: str, device: Any = None) -> str:
    """The dtype that `auto` stands for on a device (None: the device of this process); any other one unchanged.

    Raises:
        ModelError: it is unknown.
    """
    if dtype not in DTYPES:
        raise ModelError(f"unknown dtype {dtype!r}; choose one of {', '.join(DTYPES)}")
    if dtype != "auto":
        return dtype
    # Without it, a job that loads no model, such as a fit, has nothing on a device.
    if importlib.util.find_spec("torch") is None:
        return "float32"
    import torch

    target = process_device() if device is None else torch.device(device)
    # Older cards emulate bfloat16, slowly.
    return "bfloat16" if target.type == "cuda" and torch.cuda.get_device_capability(target)[0] >= 8 else "float32"


def check_placement(dtype: str, device_map: str | None, quantization: str | None) -> dict[str, Any]:
    """Options of `from_pretrained` that place the weights while they are loaded; empty for one device.

    Raises:
        ModelError: a value is unknown, `device_map` is used with several processes, or bitsandbytes is missing.
    """
    settled_dtype(dtype)
    if device_map is None and quantization is None:
        return {}
    if device_map == TENSOR:
        return _check_tensor(quantization)
    if device_map is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ModelError(f"device_map={device_map!r} uses all devices in one process; start memtax as one process")
    found: dict[str, Any] = {"device_map": device_map or {"": process_device()}}
    if quantization is not None:
        if quantization not in QUANTIZATIONS:
            raise ModelError(f"unknown quantization {quantization!r}; choose one of {', '.join(QUANTIZATIONS)}")
        if importlib.util.find_spec("bitsandbytes") is None:
            raise ModelError(f"quantization {quantization!r} needs bitsandbytes; install it: pip install bitsandbytes")
        from transformers import BitsAndBytesConfig

        found["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=quantization == "8bit", load_in_4bit=quantization == "4bit"
        )
    return found


def _check_tensor(quantization: str | None) -> dict[str, Any]:
    if not is_together():
        raise ModelError(
            "device_map 'tensor' splits every layer over several processes: start memtax score or mia with torchrun "
            "--nproc_per_node N (N cards), or use device_map auto"
        )
    if quantization is not None:
        raise ModelError(f"quantized weights ({quantization}) cannot be split by device_map 'tensor'; use device_map auto")
    try:
        from transformers.distributed import DistributedConfig

        return {"distributed_config": DistributedConfig(tp_plan="auto")}
    except (ImportError, TypeError) as error:
        from transformers import __version__

        raise ModelError(
            f"device_map 'tensor' needs transformers 5.21 or later, not {__version__}: pip install -U transformers, or use "
            "device_map auto"
        ) from error


def check_gradients(quantization: str | None) -> None:
    """Check that gradients can be computed.

    Raises:
        ModelError: its weights are quantized.
    """
    if quantization is not None:
        raise ModelError(f"quantization {quantization!r}: quantized weights have no gradients; leave it out, or use bfloat16")
