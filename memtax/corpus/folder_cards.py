"""The card of a local dataset folder says which files are read: only those of the folder itself may be named."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from memtax.errors import MemtaxError
from memtax.records import LARGEST, parse_yaml, read_json, read_yaml

CARD, STANDALONE = "README.md", ".huggingface.yaml"
"""Where `datasets` looks for `configs:`."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/|.*::", re.DOTALL)
"""What fsspec takes for an address, or for a chain of them."""


def check_folder(folder: Path) -> None:
    """Refuse a dataset folder whose card or record names files outside of it, or an address.

    Raises:
        MemtaxError: it does, or the card is not UTF-8, too large, or its front matter is not plain YAML.
    """
    named: list[tuple[Path, Any]] = []
    if (folder / CARD).is_file():
        named.append((folder / CARD, _front_matter(folder / CARD)))
    if (folder / STANDALONE).is_file():
        named.append((folder / STANDALONE, read_yaml(folder / STANDALONE)))
    for card, front in named:
        for name in _names(front, card):
            _check_name(name, card)
    _check_saved(folder)


def _front_matter(card: Path) -> Any:
    with card.open("rb") as file:
        text = file.read(LARGEST["YAML"])
    start = re.match(rb"\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|$)", text, re.DOTALL)
    try:
        text.decode("utf-8", "strict" if len(text) < LARGEST["YAML"] else "ignore")
    except UnicodeDecodeError as error:
        raise MemtaxError(f"{card} is not a card: it is not UTF-8 ({error.reason} at byte {error.start})") from None
    return parse_yaml(start[1], f"the front matter of {card}") if start else {}


def _names(front: Any, card: Path) -> Iterator[str]:
    """Every file pattern in the configurations of a card."""
    configs = front.get("configs") if isinstance(front, dict) else None
    if configs is None:
        return
    if not isinstance(configs, list) or not all(isinstance(config, dict) for config in configs):
        raise MemtaxError(f"{card}: configs is not a list of configurations")
    for config in configs:
        for key in ("data_files", "data_dir"):
            yield from _texts(config.get(key), f"{card}: {key}")


def _texts(value: Any, name: str) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for entry in value:
            yield from _texts(entry, name)
    elif isinstance(value, dict):
        # Splits and their paths, as a mapping or as {split: ..., path: ...}.
        for key, entry in value.items():
            if key != "split":
                yield from _texts(entry, name)
    elif value is not None:
        raise MemtaxError(f"{name} is {str(value)[:50]!r}, not the name of a file")


def _check_name(name: str, card: Path) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or name.startswith(("~", "file:")) or _ADDRESS.match(name):
        raise MemtaxError(
            f"{card} names {name[:200]!r}, which is not a file of its folder; nothing outside a dataset's folder is read for it"
        )


def _check_saved(folder: Path) -> None:
    """The same of what `save_to_disk` wrote."""
    splits = [folder]
    if (folder / "dataset_dict.json").is_file():
        names = read_json(folder / "dataset_dict.json", finite=False).get("splits")
        for name in _texts(names, f"{folder / 'dataset_dict.json'}: splits"):
            _check_name(name, folder / "dataset_dict.json")
            splits.append(folder / name)
    for split in splits:
        if (split / "state.json").is_file():
            files = read_json(split / "state.json", finite=False).get("_data_files") or []
            for name in _texts(files, f"{split / 'state.json'}: _data_files"):
                _check_name(name, split / "state.json")
