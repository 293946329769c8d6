"""Files of a model's folder or Hub repository, and checks of them before `transformers` loads any."""

import os
from pathlib import Path

from memtax.checksums import verify
from memtax.errors import MemtaxError, ModelError
from memtax.lm.served_names import is_served, parse
from memtax.record_shapes import BASE
from memtax.records import read_json

ADAPTER = "adapter_config.json"
"""The file that identifies an adapter folder."""
_MOST_LAYERS = 10_000


def base_model(path: str | Path, revision: str | None = None) -> tuple[str, str | None] | None:
    """Name and revision of an adapter's base model; None if it is not an adapter, or gives no base model."""
    config = find_file(path, revision, ADAPTER)
    if config is None:
        return None
    try:
        return adapter_base(config)
    except ModelError:
        return None  # load_model raises the specific error


def adapter_base(adapter: Path) -> tuple[str, str | None]:
    """Name and revision of the base model in an adapter configuration."""
    try:
        found = read_json(adapter, BASE, finite=False)
        base, revision = found["base_model_name_or_path"], found.get("revision")
    except (OSError, MemtaxError) as error:
        raise ModelError(f"{adapter} cannot be read or names no base model ({first_line(error)})") from error
    if (Path(base) / ADAPTER).exists():
        raise ModelError(f"{adapter} names {base} as its base model, which is itself an adapter; merge that one into its base")
    return base, revision


def check_folder(path: str | Path) -> None:
    """Check a model folder before `transformers` is called.

    Raises:
        ModelError: the path does not exist, or the folder lacks a configuration or safetensors weights.
    """
    folder = Path(path)
    if is_served(path):
        parse(str(path))
        return
    if not folder.exists():
        if is_path(path):
            raise ModelError(f"{path} does not exist; give a model's folder or its name on the Hub")
        return
    if not folder.is_dir():
        raise ModelError(f"{path} is a file; give the folder that contains the model's config.json and weights")
    verify(folder)
    if (folder / ADAPTER).exists():
        return
    if not (folder / "config.json").exists():
        checkpoints = sorted(child.name for child in folder.iterdir() if (child / "config.json").exists())
        hint = f"did you mean {folder / checkpoints[-1]}?" if checkpoints else "give a folder written by save_pretrained"
        raise ModelError(f"{path} contains no config.json; {hint}")
    _check_layers(folder / "config.json")
    if (folder / "generation_config.json").is_file():
        _check_layers(folder / "generation_config.json")
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern))
        found = f"only {pickled[0]}, a pickle, which is never loaded" if pickled else "no weights"
        raise ModelError(f"{path} contains {found}; save the model again with save_pretrained (safetensors)")


def _check_layers(path: Path) -> None:
    """Reject a configuration with too many layers, which `transformers` would take forever to list."""
    try:
        found = read_json(path, finite=False)
    except (OSError, MemtaxError) as error:
        raise ModelError(f"the model in {path.parent} cannot be loaded: {first_line(error)}") from error
    parts = [found, *(value for value in found.values() if isinstance(value, dict))]
    for key, value in ((key, value) for part in parts for key, value in part.items()):
        if "layer" in key and isinstance(value, int) and value > _MOST_LAYERS:
            raise ModelError(f"{path}: {key} is {value}, above the limit of {_MOST_LAYERS:,} layers")


def is_path(path: str | Path) -> bool:
    """Whether a nonexistent name was meant as a path; a Hub name is `name` or `org/name`."""
    return isinstance(path, Path) or str(path).startswith(("/", ".", "~")) or str(path).count("/") > 1


def find_file(path: str | Path, revision: str | None, name: str) -> Path | None:
    """A file of a model folder or Hub repository; None if it does not exist or the repository cannot be reached."""
    if is_served(path):
        return None
    if Path(path).is_dir():
        file = Path(path) / name
        return file if file.exists() else None
    from transformers.utils import cached_file

    try:
        found = cached_file(
            str(path),
            name,
            revision=revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except Exception:  # proxy clients raise their own types, and from_pretrained raises the specific error
        return None
    return Path(found) if found else None


def reason(path: str | Path, revision: str | None, error: Exception) -> str:
    """One line that says why a model did not load, and what to do."""
    text = str(error)
    name = f"{path} (revision {revision})" if revision else str(path)
    if "trust_remote_code" in text:
        return f"{name} needs code that comes with it; review that code, then allow it with trust_remote_code"
    if Path(path).is_dir():
        return f"the model in {name} cannot be loaded: {first_line(error)}"
    offline = " (offline mode is on: HF_HUB_OFFLINE)" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else ""
    return f"no model {name} in this directory or on the Hub{offline}: {first_line(error)}"


def first_line(error: Exception) -> str:
    """The first line of an exception's message, or its type."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
