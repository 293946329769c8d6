"""Causal language models and tokenizers from a folder, the Hub, a training checkpoint or a PEFT adapter.

Weights are read from safetensors only: the older `.bin` files are pickles, which run code when they are opened.
"""

import functools
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memtax.checksums import verify
from memtax.errors import ModelError
from memtax.files import Stamp, stamp
from memtax.lm.folders import ADAPTER, adapter_base, check_folder, find_file, first_line, is_path, reason
from memtax.lm.placement import check_placement, process_device, settled_dtype
from memtax.lm.served_names import is_served, parse
from memtax.lm.weights import read_weights
from memtax.progress import silence_transformers
from memtax.record_shapes import TOKENIZER
from memtax.records import read_json

_TOKENIZER_FILES = ("*.json", "*.jinja", "*.model", "*.tiktoken", "*.txt")


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
        revision: branch, tag or commit on the Hub.
        dtype: one of `DTYPES`.
        device: target device; None uses the device that Accelerate gives this process, or the machine's accelerator or CPU.
        trust_remote_code: whether code that comes with the model may run.
        device_map: `auto` spreads the layers over all devices and CPU memory; it replaces `device`.
        quantization: one of `QUANTIZATIONS`; weights that are not quantized have `dtype`.
        bos: tokens put before every row that the model reads: one of `memtax.lm.special_tokens.BOS`, resolved with the
            tokenizer stored with the model, or token ids.

    Returns:
        The `transformers` model, or the `peft` model around it.

    Raises:
        ModelError: the model does not exist, is incomplete or damaged, has only pickled weights, or needs its own code.
    """
    dtype = settled_dtype(dtype, device)
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
    """Name and revision of `NAME@REVISION`; an existing path is not split."""
    if os.path.exists(name) or "@" not in name or is_served(name):
        return name, None
    path, _, revision = name.rpartition("@")
    return path, revision or None


def check_model(path: str | Path, revision: str | None, longest: int, bos: int = 0) -> None:
    """Report model problems before hours are spent on its corpus, from its configuration alone.

    Args:
        path: a folder or a Hub name.
        revision: branch, tag or commit on the Hub.
        longest: tokens in the longest sequence to score.
        bos: number of tokens put before it.

    Raises:
        ModelError: the model does not exist, or has fewer positions than tokens are needed.
    """
    from transformers import AutoConfig

    from memtax.lm.special_tokens import position_limit

    check_folder(path)
    if is_served(path) or find_file(path, revision, ADAPTER) is not None:
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
            f"are longer than the {positions} positions of {path}; choose shorter ones"
        )


def vocabulary_size(path: str | Path, revision: str | None = None) -> int | None:
    """Number of token ids that a model knows, from its configuration alone; None for adapters and unknown configurations."""
    from transformers import AutoConfig

    if is_served(path) or find_file(path, revision, ADAPTER) is not None:
        return None
    try:
        config = AutoConfig.from_pretrained(str(path), revision=revision, trust_remote_code=False)
    except Exception:  # load_model raises the specific error
        return None
    found = getattr(config.get_text_config(), "vocab_size", None)
    return found if isinstance(found, int) else None


def load_tokenizer(path: str | Path, revision: str | None = None, own: str = "") -> Any:
    """The tokenizer of a model folder or Hub name, loaded once per process and as long as its files stay the same.

    Args:
        path: folder or Hub name; of a served model, its name at the server is the tokenizer's.
        revision: branch, tag or commit on the Hub.
        own: callers share the tokenizer; a caller that modifies it, for example its padding, passes a name to get its own.

    Raises:
        ModelError: it does not exist, or cannot be read.
        MemtaxError: `tokenizer_config.json` has a value of another type.
    """
    if is_served(path):
        name = parse(str(path)).model
        try:
            return load_tokenizer(name, None, own)
        except ModelError as error:
            raise ModelError(f"{path} needs its tokenizer; name it with --tokenizer ({error})") from error
    if not Path(path).is_dir() and is_path(path):
        raise ModelError(f"{path} does not exist; give a tokenizer's folder or its name on the Hub")
    files = sorted(file for pattern in _TOKENIZER_FILES for file in Path(path).glob(pattern))
    return _load_tokenizer(str(path), revision, tuple(map(stamp, files)), own)


@functools.lru_cache(maxsize=8)
def _load_tokenizer(path: str, revision: str | None, files: tuple[Stamp, ...], own: str) -> Any:
    from transformers import AutoTokenizer

    silence_transformers()
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
        # transformers creates one from the model's configuration alone, which turns every text into no tokens.
        raise ModelError(f"no tokenizer can be loaded from {path}: its files are missing; copy them there, or name another")
    return found


def parameter_count(path: str | Path, revision: str | None = None) -> int | None:
    """Number of parameters, from the configuration alone; None if that is not possible (an adapter, unknown code)."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if is_served(path) or find_file(path, revision, ADAPTER) is not None:
        return None
    try:
        config = AutoConfig.from_pretrained(str(path), revision=revision, trust_remote_code=False)
        with torch.device("meta"):
            return int(AutoModelForCausalLM.from_config(config).num_parameters())
    except Exception:  # any error of an architecture: the count is a label, not a result
        return None


def model_files(path: str | Path) -> list[str]:
    """Everything that determines a model's output: the configuration and weights in its folder, or the Hub name.

    Optimizer and random states of a training checkpoint are irrelevant. An adapter's base model is included.
    """
    folder = Path(path)
    if not folder.is_dir():
        return [str(path)]
    found = sorted(str(file) for file in (*folder.glob("*config.json"), *folder.glob("*.safetensors")))
    if (folder / ADAPTER).exists():
        found += model_files(adapter_base(folder / ADAPTER)[0])
    return found


def _load_weights(
    path: str | Path, revision: str | None, dtype: str, trust_remote_code: bool, placement: Mapping[str, Any]
) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        model, report = read_weights(
            AutoModelForCausalLM, path, revision, dtype=dtype, trust_remote_code=trust_remote_code, **placement
        )
    except Exception as error:  # missing or damaged files, unknown architectures: each raises its own type
        raise ModelError(reason(path, revision, error)) from error
    if report["missing_keys"]:
        # transformers would continue with random values.
        missing = sorted(report["missing_keys"])
        raise ModelError(f"the weights in {path} are incomplete: {missing[0]} and {len(missing) - 1} others are missing")
    if "distributed_config" in placement and not getattr(model, "_tp_plan", None):
        raise ModelError(f"{type(model).__name__} has no plan for tensor parallelism; use device_map auto")
    return model


def _load_adapter(
    path: str | Path, revision: str | None, dtype: str, trust_remote_code: bool, placement: Mapping[str, Any]
) -> Any:
    config = find_file(path, revision, ADAPTER)
    assert config is not None
    name, base_revision = adapter_base(config)
    if "distributed_config" in placement:
        raise ModelError(f"{path} is an adapter, which device_map 'tensor' cannot split; merge it into its base, or use auto")
    check_folder(name)
    _check_adapter(path, revision)
    return attach_adapter(_load_weights(name, base_revision, dtype, trust_remote_code, placement), path, revision)


def _check_adapter(path: str | Path, revision: str | None) -> None:
    if find_file(path, revision, "adapter_model.safetensors") is None:
        raise ModelError(f"{path} contains no adapter_model.safetensors; pickled weights are not loaded, save it again")


def attach_adapter(base: Any, path: str | Path, revision: str | None = None) -> Any:
    """The `peft` model of an adapter around its base model, which may be modified.

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
            # peft 0.21 reads an attribute of transformers 5 by its old name; users cannot fix this warning.
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            return PeftModel.from_pretrained(base, str(path), revision=revision)
    except Exception as error:
        raise ModelError(f"the adapter {path} does not load onto its base model: {first_line(error)}") from error


def is_lora_alone(model: Any, saved: Path) -> bool:
    """Whether a `peft` model with its adapter switched off is exactly its base model.

    This is true for low-rank matrices added to linear layers, and false if the adapter contains or changes weights of the base
    model itself (`modules_to_save`, biases, embeddings of new tokens, initializations computed from the weights).

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
    """Resize the base model's token embeddings to the size that the adapter was saved with; the adapter then replaces them.

    Raises:
        ModelError: the adapter contains only the embedding or only the head, in another size than the base model's.
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
            f"the adapter {path} was saved with {new} token embeddings but {name} has {old}, and the adapter does not contain "
            "both embedding and head; save it again with save_embedding_layers=True, or resize and save the base model"
        )
    base.resize_token_embeddings(rows.pop(), mean_resizing=False)
