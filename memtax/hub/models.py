"""Cards of language models and adapters, from the contents of their folders."""

import re
from pathlib import Path
from typing import Any

from memtax.files import destination, read_json, write_text
from memtax.hub.cards import render
from memtax.record_shapes import ADAPTER, MODEL

_SHAPE = ("model_type", "architectures", "hidden_size", "num_hidden_layers", "vocab_size", "max_position_embeddings")


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds a PEFT adapter."""
    return (folder / "adapter_config.json").is_file()


def write_card(folder: Path) -> None:
    """Write the folder's README.md, replacing PEFT's own, which is full of placeholders."""
    write_text(folder / "README.md", adapter_card(folder) if is_adapter(folder) else language_model_card(folder))


def language_model_card(folder: Path) -> str:
    """The card of a causal language model."""
    config = read_json(folder / "config.json", MODEL, finite=False)
    metadata = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["memorization", "memtax"],
        "base_model": hub_name(config.get("_name_or_path")),
    }
    shape = {name: _listed(config[name]) for name in _SHAPE if config.get(name) is not None}
    return render("language_model.md.j2", metadata, folder, name=destination(folder).name, shape=shape)


def adapter_card(folder: Path) -> str:
    """The card of an adapter."""
    config = read_json(folder / "adapter_config.json", ADAPTER, finite=False)
    base = hub_name(config.get("base_model_name_or_path"))
    metadata = {"library_name": "peft", "tags": ["lora", "memorization", "memtax"], "base_model": base}
    shape = {name: config[name] for name in ("peft_type", "r", "lora_alpha", "lora_dropout") if config.get(name) is not None}
    targets = config.get("target_modules") or []
    shape["target_modules"] = targets if isinstance(targets, str) else _listed(sorted(targets))
    return render("adapter.md.j2", metadata, folder, name=destination(folder).name, base=base, shape=shape)


def _listed(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def hub_name(name: Any) -> str | None:
    """The name if it is a valid Hub name and not a local path."""
    return name if isinstance(name, str) and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) and not Path(name).exists() else None
