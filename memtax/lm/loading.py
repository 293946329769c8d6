"""Causal language models and tokenizers from a folder, the Hub, a training checkpoint or a PEFT adapter.

Weights are read from safetensors only: the older `.bin` files are pickles, which run code when they are opened.
"""

import functools
import importlib.util
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memtax.checksums import verify
from memtax.engine.world import device as shared_device
from memtax.errors import ModelError
from memtax.files import Stamp, stamp
from memtax.lm.folders import ADAPTER, adapter_base, check_folder, find_file, first_line, is_path, reason
from memtax.lm.weights import read_weights
from memtax.record_shapes import TOKENIZER
from memtax.records import read_json

DTYPES = ("float32", "bfloat16", "float16", "auto")
"""Weights' types that can be asked for; `auto` is the type they were saved in."""

_TOKENIZER_FILES = ("*.json", "*.jinja", "*.model", "*.tiktoken", "*.txt")

QUANTIZATIONS = ("8bit", "4bit")
"""Weights of fewer bits, where bitsandbytes is installed."""


def load_model(
    path: str | Path,
    revision: str | None = None,
    dtype: str = "float32",
    device: Any = None,
    trust_remote_code: bool = False,
    device_map: str | None = None,
    quantization: str | None = None,
    bos: str | Sequence[int] = "auto",
) -> Any:
    """Load a causal language model for scoring: in evaluation mode, without gradients.

    Args:
        path: a folder (`save_pretrained`, a Trainer's checkpoint, a PEFT adapter) or a Hub name.
        revision: branch, tag or commit of a Hub name.
        dtype: one of `DTYPES`.
        device: where to; None takes the device that Accelerate gives this process, else the machine's accelerator or CPU.
        trust_remote_code: whether code that comes with the model may run.
        device_map: `auto` spreads the layers over all devices and the memory of the machine; it takes the place of `device`.
        quantization: one of `QUANTIZATIONS`; the weights that are not quantized have `dtype`.
        bos: what stands before every row that memtax shows the model: one of `memtax.lm.special_tokens.BOS`, by the tokenizer
            that lies beside the model, or token ids.

    Returns:
        The `transformers` model, or the `peft` model around it.

    Raises:
        ModelError: nothing is found there, it is incomplete or damaged, holds pickled weights only, or needs its own code.
    """
    placement = check_placement(dtype, device_map, quantization)
    check_folder(path)
    from memtax.lm.special_tokens import bos_ids, set_bos

    opening = bos_ids(path, revision, bos)
    if find_file(path, revision, ADAPTER) is not None:
        model = _load_adapter(path, revision, dtype, trust_remote_code, placement)
    else:
        model = _load_weights(path, revision, dtype, trust_remote_code, placement)
    model = model.requires_grad_(False).eval()
    set_bos(model, opening)
    return model if placement else model.to(process_device() if device is None else device)


def split_revision(name: str) -> tuple[str, str | None]:
    """Name and revision of `NAME@REVISION`; a path that exists is taken whole."""
    if os.path.exists(name) or "@" not in name:
        return name, None
    path, _, revision = name.rpartition("@")
    return path, revision or None


def check_model(path: str | Path, revision: str | None, longest: int, bos: int = 0) -> None:
    """Say what is wrong with a model before hours are spent on its corpus: only its configuration is read.

    Args:
        path: a folder or a Hub name.
        revision: branch, tag or commit of a Hub name.
        longest: tokens of the longest sequence that it is to score.
        bos: tokens that are put before it.

    Raises:
        ModelError: no model is there, or its positions are fewer than the tokens.
    """
    from transformers import AutoConfig

    from memtax.lm.special_tokens import position_limit

    check_folder(path)
    if find_file(path, revision, ADAPTER) is not None:
        return
    longest += bos
    try:
        config = AutoConfig.from_pretrained(str(path), revision=revision, trust_remote_code=False)
    except Exception as error:
        raise ModelError(reason(path, revision, error)) from error
    positions = position_limit(config)
    if positions is not None and longest > positions:
        raise ModelError(
            f"sequences of {longest} tokens{' (BOS included)' if bos else ''} "
            f"are longer than the {positions} positions of {path}; ask for shorter ones"
        )


def vocabulary_size(path: str | Path, revision: str | None = None) -> int | None:
    """Token ids that a model knows, from its configuration alone; None for an adapter, or where that does not tell."""
    from transformers import AutoConfig

    if find_file(path, revision, ADAPTER) is not None:
        return None
    try:
        config = AutoConfig.from_pretrained(str(path), revision=revision, trust_remote_code=False)
    except Exception:  # load_model says why
        return None
    found = getattr(config.get_text_config(), "vocab_size", None)
    return found if isinstance(found, int) else None


def load_tokenizer(path: str | Path, revision: str | None = None, own: str = "") -> Any:
    """The tokenizer of a model folder or Hub name, loaded once per process and as long as its files stay the same.

    Args:
        path: folder or Hub name.
        revision: branch, tag or commit of a Hub name.
        own: callers share the tokenizer; whoever changes it, its padding for example, names its use here and gets another one.

    Raises:
        ModelError: there is none, or it cannot be read.
        MemtaxError: `tokenizer_config.json` has a value of another type.
    """
    if not Path(path).is_dir() and is_path(path):
        raise ModelError(f"{path} does not exist; give a tokenizer's folder or its name on the Hub")
    files = sorted(file for pattern in _TOKENIZER_FILES for file in Path(path).glob(pattern))
    return _load_tokenizer(str(path), revision, tuple(map(stamp, files)), own)


@functools.lru_cache(maxsize=8)
def _load_tokenizer(path: str, revision: str | None, files: tuple[Stamp, ...], own: str) -> Any:
    from transformers import AutoTokenizer

    for file in sorted(Path(path).glob("*.json")):
        verify(file)
    if (record := Path(path) / "tokenizer_config.json").is_file():
        read_json(record, TOKENIZER, finite=False)
    try:
        found = AutoTokenizer.from_pretrained(str(path), revision=revision, trust_remote_code=False)
        ids = found("a", add_special_tokens=False)["input_ids"]
    except Exception as error:  # each tokenizer class fails in its own way
        raise ModelError(f"no tokenizer can be loaded from {path}: {first_line(error)}") from error
    if not ids:
        # transformers makes one from the model's configuration alone, and it turns every text into nothing.
        raise ModelError(f"no tokenizer can be loaded from {path}: its files are missing; copy them there, or name another")
    return found


def parameter_count(path: str | Path, revision: str | None = None) -> int | None:
    """Parameters of a model, from its configuration alone; None where that does not tell (an adapter, unknown code)."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if find_file(path, revision, ADAPTER) is not None:
        return None
    try:
        config = AutoConfig.from_pretrained(str(path), revision=revision, trust_remote_code=False)
        with torch.device("meta"):
            return int(AutoModelForCausalLM.from_config(config).num_parameters())
    except Exception:  # whatever an architecture raises: the count is a label, not a result
        return None


def model_files(path: str | Path) -> list[str]:
    """What decides a model's output: the configuration and weights in its folder, or the Hub name as it stands.

    A training checkpoint also holds optimizer and random states, which do not matter. An adapter's base model does.
    """
    folder = Path(path)
    if not folder.is_dir():
        return [str(path)]
    found = sorted(str(file) for file in (*folder.glob("*config.json"), *folder.glob("*.safetensors")))
    if (folder / ADAPTER).exists():
        found += model_files(adapter_base(folder / ADAPTER)[0])
    return found


def process_device() -> Any:
    """The device of this process: Accelerate's when there are several, else the accelerator of the machine, else the CPU."""
    import torch

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return shared_device()
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def check_placement(dtype: str, device_map: str | None, quantization: str | None) -> dict[str, Any]:
    """The options of `from_pretrained` that place the weights while they are read; empty for one device.

    Raises:
        ModelError: an unknown value, several processes with `device_map`, or bitsandbytes is missing.
    """
    if dtype not in DTYPES:
        raise ModelError(f"unknown dtype {dtype!r}; choose one of {', '.join(DTYPES)}")
    if device_map is None and quantization is None:
        return {}
    if device_map is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ModelError(f"device_map={device_map!r} takes all devices for one process; start memtax as one process")
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


def check_gradients(quantization: str | None) -> None:
    """Check that a model has gradients.

    Raises:
        ModelError: its weights are quantized.
    """
    if quantization is not None:
        raise ModelError(f"quantization {quantization!r}: quantized weights have no gradients; leave it out, or use bfloat16")


def _load_weights(
    path: str | Path, revision: str | None, dtype: str, trust_remote_code: bool, placement: Mapping[str, Any]
) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        model, report = read_weights(
            AutoModelForCausalLM, path, revision, dtype=dtype, trust_remote_code=trust_remote_code, **placement
        )
    except Exception as error:  # missing files, damaged ones, unknown architectures: each raises a type of its own
        raise ModelError(reason(path, revision, error)) from error
    if report["missing_keys"]:
        # transformers would go on with random values.
        missing = sorted(report["missing_keys"])
        raise ModelError(f"the weights in {path} are incomplete: {missing[0]} and {len(missing) - 1} others are missing")
    return model


def _load_adapter(
    path: str | Path, revision: str | None, dtype: str, trust_remote_code: bool, placement: Mapping[str, Any]
) -> Any:
    config = find_file(path, revision, ADAPTER)
    assert config is not None
    name, base_revision = adapter_base(config)
    check_folder(name)
    _check_adapter(path, revision)
    return attach_adapter(_load_weights(name, base_revision, dtype, trust_remote_code, placement), path, revision)


def _check_adapter(path: str | Path, revision: str | None) -> None:
    if find_file(path, revision, "adapter_model.safetensors") is None:
        raise ModelError(f"{path} holds no adapter_model.safetensors; pickled weights are not loaded, save it again")


def attach_adapter(base: Any, path: str | Path, revision: str | None = None) -> Any:
    """The `peft` model of an adapter around its base model, which it may change.

    Raises:
        ModelError: the adapter does not load onto it.
    """
    from peft import PeftModel

    config = find_file(path, revision, ADAPTER)
    assert config is not None
    _check_adapter(path, revision)
    name, _ = adapter_base(config)
    _resize(base, Path(config).with_name("adapter_model.safetensors"), name, path)
    try:
        with warnings.catch_warnings():
            # peft 0.21 asks transformers 5 for an attribute by its old name; nobody but peft can do anything about it.
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            return PeftModel.from_pretrained(base, str(path), revision=revision)
    except Exception as error:
        raise ModelError(f"the adapter {path} does not load onto its base model: {first_line(error)}") from error


def is_lora_alone(model: Any, saved: Path) -> bool:
    """Whether the base model is exactly what a `peft` model is with its adapter switched off.

    That holds for low-rank matrices beside linear layers, and not where the adapter holds or changes weights of the base model
    itself (`modules_to_save`, biases, embeddings of new tokens, initializations that take from the weights).

    Args:
        model: the `peft` model.
        saved: the adapter's weights.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from safetensors import safe_open

    config = model.active_peft_config
    if config.peft_type != "LORA" or config.init_lora_weights not in (True, False, "gaussian"):
        return False
    if config.modules_to_save or config.bias != "none" or config.use_dora or config.layer_replication:
        return False
    inner = model.get_base_model()
    if any(isinstance(layer, BaseTunerLayer) for layer in (inner.get_input_embeddings(), inner.get_output_embeddings())):
        return False
    with safe_open(str(saved), "pt") as file:
        return all(key.endswith((".lora_A.weight", ".lora_B.weight")) for key in file.keys())  # noqa: SIM118


def _resize(base: Any, saved: Path, name: str, path: str | Path) -> None:
    """Give the base model as many token embeddings as the adapter was saved with, whose weights then replace them.

    Raises:
        ModelError: the adapter holds the embedding or the head alone, in another size than the base model's.
    """
    from safetensors import safe_open

    wanted: dict[str, tuple[int, int]] = {}
    names = {id(module): part for part, module in base.named_modules()}
    layers = {"in": base.get_input_embeddings(), "out": base.get_output_embeddings()}
    parts = {kind: names.get(id(layer)) for kind, layer in layers.items() if layer is not None}
    try:
        with safe_open(str(saved), "pt") as file:
            for key in file.keys():  # noqa: SIM118
                inner = key.removeprefix("base_model.model.").replace(".base_layer", "")
                for kind, part in parts.items():
                    if part is not None and inner == f"{part}.weight":
                        wanted[kind] = (file.get_slice(key).get_shape()[0], layers[kind].weight.shape[0])
    except Exception as error:  # a damaged file
        raise ModelError(f"the adapter {path} does not load onto its base model: {first_line(error)}") from error
    rows = {new for new, _ in wanted.values()}
    if all(new == old for new, old in wanted.values()):
        return
    tied = layers["out"] is None or layers["in"].weight is layers["out"].weight
    if len(rows) != 1 or not (tied or len(wanted) == 2):
        new, old = next(sizes for sizes in wanted.values() if sizes[0] != sizes[1])
        raise ModelError(
            f"the adapter {path} was saved with {new} token embeddings but {name} has {old}, and the adapter does not hold "
            "both embedding and head; save it again with save_embedding_layers=True, or resize and save the base model"
        )
    base.resize_token_embeddings(rows.pop(), mean_resizing=False)
