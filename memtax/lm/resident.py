"""The models that this process keeps in memory, shared by stages, attacks and pages.

A model is kept under its role until the role requests another one; it is released before the next is loaded, so two models of
one role are never in memory together. Its key consists of its files (name, size, times, inode), so that changed weights are
reloaded, and of dtype and placement. The base model of a loaded LoRA adapter is served by the same weights with the adapter
switched off, if that is exact.
"""

import gc
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memtax.errors import ModelError
from memtax.files import Stamp, stamp, visible_files
from memtax.lm.folders import ADAPTER, adapter_base, check_folder, find_file, first_line
from memtax.lm.loading import attach_adapter, is_lora_alone, load_model, model_files
from memtax.lm.placement import check_placement, process_device, settled_dtype
from memtax.lm.served_names import is_served
from memtax.lm.special_tokens import bos_ids, set_bos
from memtax.lm.weights import read_encoder, read_weights
from memtax.provenance import digest, fingerprint_path

MODEL, REFERENCE = "model", "reference"
"""Roles of causal models: the measured model, and the reference model of membership attacks; batches alternate between them."""


@dataclass(frozen=True)
class Placement:
    """The dtype of a model's weights, and the devices that hold them.

    Attributes:
        dtype: one of `memtax.lm.placement.DTYPES`.
        device_map: `auto` spreads the layers over all devices; None uses the device of this process.
        quantization: one of `memtax.lm.placement.QUANTIZATIONS`, or None.
    """

    dtype: str = "float32"
    device_map: str | None = None
    quantization: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", settled_dtype(self.dtype))

    @property
    def is_plain(self) -> bool:
        """Whether the whole model is on the device of this process, without quantization."""
        return self.device_map is None and self.quantization is None


@dataclass(frozen=True)
class _Key:
    kind: str
    name: str
    files: tuple[Stamp, ...]
    placement: Placement
    device: str


@dataclass
class _Held:
    key: _Key
    model: Any
    base: _Key | None = None
    """The base model obtained by switching off the adapter; None if there is no adapter, or the result is not exact."""


_HELD: dict[str, _Held] = {}
_LOCK = threading.RLock()


def get(
    path: str | Path,
    revision: str | None = None,
    placement: Placement | None = None,
    bos: str | Sequence[int] = "auto",
    *,
    role: str = MODEL,
    expected: str | None = None,
) -> Any:
    """A causal language model in evaluation mode, without gradients.

    The returned model is valid until the next call for the same role: call again instead of keeping it.

    Args:
        path: a folder (`save_pretrained`, a Trainer's checkpoint, a PEFT adapter) or a Hub name.
        revision: branch, tag or commit on the Hub.
        placement: dtype and devices; None for float32 on the device of this process.
        bos: tokens put before every row: one of `memtax.lm.special_tokens.BOS`, or token ids.
        role: `MODEL` or `REFERENCE`.
        expected: digest of the weights (`weights_digest`) used for earlier batches; None for any.

    Raises:
        ModelError: the model does not exist, is incomplete or damaged, has only pickled weights, cannot be placed as
            requested, or has changed since `expected`.
    """
    if is_served(path):
        raise ModelError(f"{path} is a served model, which only gives log-probabilities; name a folder or a Hub model here")
    placement = placement or Placement()
    check_placement(placement.dtype, placement.device_map, placement.quantization)
    if not Path(path).is_dir():
        check_folder(path)
    if expected is not None and expected != weights_digest(path):
        raise ModelError(
            f"{path} changed while it was being used; finished parts used its former weights: restore them, or choose "
            "another output"
        )
    with _LOCK:
        opening = bos_ids(path, revision, bos)
        key = _causal_key(path, revision, placement)
        model = _shared(role, key)
        if model is None:
            model = _read_causal(role, key, path, revision, placement)
        set_bos(model, opening)
        return model


def scorer(
    path: str | Path,
    revision: str | None = None,
    placement: Placement | None = None,
    bos: str | Sequence[int] = "auto",
    *,
    role: str = MODEL,
    expected: str | None = None,
    tokenizer: str | None = None,
    requests: int | None = None,
) -> Any:
    """A model for `memtax.lm.scores.score`: as `get`, or a served model (`memtax.lm.served`) after its self-check.

    Args:
        path: as for `get`, or the name of a served model.
        revision: as for `get`.
        placement: as for `get`.
        bos: as for `get`.
        role: as for `get`.
        expected: as for `get`.
        tokenizer: tokenizer of a served model; None takes its name.
        requests: concurrent requests to a served model.

    Raises:
        ModelError: as for `get`, or the server cannot be reached or used.
    """
    if not is_served(path):
        return get(path, revision, placement, bos, role=role, expected=expected)
    from memtax.lm.served import REQUESTS, connect

    name, opening = str(path), bos_ids(path, None, bos, tokenizer)
    key = _Key(f"served {tokenizer} {opening}", name, (), placement or Placement(), "")
    model = _resident(role, key, lambda: connect(name, tokenizer, opening))
    model.requests = requests or REQUESTS
    return model


def weights_digest(path: str | Path) -> str:
    """Digest of everything that determines a model's output, including its base model; unchanged files are hashed once."""
    return digest([fingerprint_path(file) for file in model_files(path)])


def sequence_to_sequence(path: str, revision: str | None = None, placement: Placement | None = None) -> Any:
    """An encoder-decoder model, such as a paraphraser; it replaces the causal model in memory.

    Raises:
        ModelError: it cannot be loaded.
    """
    from transformers import AutoModelForSeq2SeqLM

    placement = placement or Placement()
    options = check_placement(placement.dtype, placement.device_map, placement.quantization)

    def load() -> Any:
        try:
            model, _ = read_weights(AutoModelForSeq2SeqLM, path, revision, dtype=placement.dtype, **options)
        except Exception as error:  # each architecture fails in its own way
            raise ModelError(f"the model in {path} cannot be loaded: {first_line(error)}") from error
        model = model.requires_grad_(False).eval()
        return model if options else model.to(process_device())

    return _resident(MODEL, _key("sequence to sequence", path, revision, placement), load)


def masked(path: str, revision: str | None = None) -> Any:
    """A masked language model.

    Raises:
        ModelError: it cannot be loaded.
    """
    from transformers import AutoModelForMaskedLM

    def load() -> Any:
        try:
            model, _ = read_weights(AutoModelForMaskedLM, path, revision, dtype="float32")
        except Exception as error:  # each architecture fails in its own way
            raise ModelError(f"no masked language model can be loaded from {path}: {first_line(error)}") from error
        return model.requires_grad_(False).eval().to(process_device())

    return _resident("masked", _key("masked", path, revision), load)


def classifier(path: str, revision: str | None = None) -> Any:
    """A classifier of texts.

    Raises:
        ModelError: it cannot be loaded, or its head was never trained.
    """
    from transformers import AutoModelForSequenceClassification

    def load() -> Any:
        try:
            model, report = read_weights(AutoModelForSequenceClassification, path, revision, dtype="float32")
        except Exception as error:  # missing or damaged files, no connection: each raises its own type
            raise ModelError(
                f"the classifier {path} cannot be loaded ({first_line(error)}); give a folder written by "
                "training/train_code_vs_nl.py"
            ) from error
        if report["missing_keys"]:
            raise ModelError(f"{path} has no trained classifier: {sorted(report['missing_keys'])[0]} is missing")
        return model.requires_grad_(False).eval().to(process_device())

    return _resident("classifier", _key("classifier", path, revision), load)


def encoder(path: str, revision: str | None = None) -> Any:
    """A sentence-transformers model.

    Raises:
        MemtaxError: sentence-transformers is not installed.
        ModelError: it cannot be loaded.
    """
    return _resident("encoder", _key("encoder", path, revision), lambda: read_encoder(path, revision, process_device()))


def release(role: str | None = None) -> None:
    """Release the model of a role; None: of all roles."""
    with _LOCK:
        for name in list(_HELD) if role is None else [role]:
            _release(name)


def _release(role: str) -> None:
    held = _HELD.pop(role, None)
    if held is None:
        return
    alive = weakref.ref(held.model)
    del held
    if alive() is not None:
        # Wrappers of peft and hooks of accelerate form reference cycles.
        gc.collect()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _key(kind: str, path: str | Path, revision: str | None, placement: Placement | None = None) -> _Key:
    """The key of a model that is not causal, built from every file in its folder."""
    folder = Path(path)
    files = [str(file) for file in visible_files(folder)] if folder.is_dir() else []
    return _key_of_files(kind, path, revision, placement or Placement(), files)


def _causal_key(path: str | Path, revision: str | None, placement: Placement) -> _Key:
    return _key_of_files("causal", path, revision, placement, model_files(path) if Path(path).is_dir() else [])


def _key_of_files(kind: str, path: str | Path, revision: str | None, placement: Placement, files: Sequence[str]) -> _Key:
    # A folder is identified by its files, independent of the path; an adapter's base may be a Hub name.
    name = "" if files else f"{path}@{revision or ''}"
    return _Key(kind, name, tuple(stamp(file) for file in files), placement, str(process_device()))


def _resident(role: str, key: _Key, load: Callable[[], Any]) -> Any:
    with _LOCK:
        held = _HELD.get(role)
        if held is None or held.key != key:
            del held
            _release(role)
            _HELD[role] = held = _Held(key, load())
        return held.model


def _shared(role: str, key: _Key) -> Any:
    """The model, if the models in memory provide it; None if it must be loaded."""
    if role in _HELD and _HELD[role].base == key:
        # The same role continues with the base model alone.
        _HELD[role] = _Held(key, _HELD[role].model.unload())
    holder = next((name for name in (role, *_HELD) if name in _HELD and key in (_HELD[name].key, _HELD[name].base)), None)
    if holder is None:
        return None
    if holder != role:
        _release(role)
    held = _HELD[holder]
    if held.base is None:
        return held.model
    if key == held.key:
        held.model.base_model.enable_adapter_layers()
        return held.model
    held.model.base_model.disable_adapter_layers()
    return held.model.get_base_model()


def _read_causal(role: str, key: _Key, path: str | Path, revision: str | None, placement: Placement) -> Any:
    config = find_file(path, revision, ADAPTER)
    base = None if config is None else _causal_key(*adapter_base(config), placement)
    held = _HELD.get(role)
    if held is not None and held.key == base and placement.is_plain:
        # The base model is in memory, so only the adapter is loaded.
        check_folder(path)
        del _HELD[role]
        model = attach_adapter(held.model, path, revision).requires_grad_(False).eval()
    else:
        del held
        _release(role)
        where = placement.device_map, placement.quantization
        model = load_model(path, revision, placement.dtype, device_map=where[0], quantization=where[1], bos=())
    is_exact = config is not None and placement.is_plain and is_lora_alone(model, config.with_name("adapter_model.safetensors"))
    _HELD[role] = _Held(key, model, base if is_exact else None)
    return model
