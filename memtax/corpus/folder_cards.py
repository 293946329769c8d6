"""Checks of a local dataset folder's card, which says which files are read: only files in the folder are allowed."""

import itertools
import os
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from memtax.errors import MemtaxError
from memtax.record_shapes import SAVED, SPLITS
from memtax.records import LARGEST, parse_yaml, read_json, read_yaml

CARD, STANDALONE = "README.md", ".huggingface.yaml"
"""Files in which `datasets` looks for `configs:`."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/|.*::", re.DOTALL)
"""Matches what fsspec interprets as an address, or as a chain of them."""
_FRONT_MATTER = re.compile(rb"\s*---[ \t]*(?:\r\n|\r|\n)(.*?)(?:\r\n|\r|\n)---[ \t]*(?:\r|\n|$)", re.DOTALL)
"""The front matter, matched as the Hub client does, with any line endings."""
_INFOS = ("dataset_infos.json", "dataset_info.json")
"""Dataset descriptions that `datasets` reads in addition to data files."""


def check_folder(folder: Path) -> None:
    """Reject a dataset folder whose card or record names an address or files outside the folder.

    Raises:
        MemtaxError: it names one, or the card is not UTF-8, is too large, or has front matter that is not plain YAML.
    """
    named: list[tuple[Path, Any]] = []
    if (folder / CARD).is_file():
        named.append((folder / CARD, _front_matter(folder / CARD)))
    if (folder / STANDALONE).is_file():
        named.append((folder / STANDALONE, read_yaml(folder / STANDALONE)))
    for card, front in named:
        patterns = []
        for config in _configs(front, card):
            if (empty := next((key for key in ("data_files", "data_dir") if config.get(key, "") is None), None)) is not None:
                raise MemtaxError(f"{card}: {empty} is null, not the name of a file")
            files, places = ([*_texts(config.get(key), f"{card}: {key}")] for key in ("data_files", "data_dir"))
            for name in (*files, *places):
                _check_name(name, card)
            pairs = itertools.product(places or [""], files or ["**"])
            patterns += [PurePosixPath(place, name).parts for place, name in pairs if files or places]
        if patterns:
            _check_links(folder, patterns, card)
    _check_saved(folder)


def _front_matter(card: Path) -> Any:
    # Read the whole card: its front matter may end anywhere.
    with card.open("rb") as file:
        text = file.read(LARGEST["JSON"] + 1)
    if len(text) > LARGEST["JSON"]:
        raise MemtaxError(f"{card} is not a valid card: it has more than {LARGEST['JSON']:,} bytes")
    start = _FRONT_MATTER.match(text)
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MemtaxError(f"{card} is not a valid card: it is not UTF-8 ({error.reason} at byte {error.start})") from None
    return parse_yaml(start[1], f"the front matter of {card}") if start else {}


def _configs(front: Any, card: Path) -> list[dict[str, Any]]:
    configs = front.get("configs") if isinstance(front, dict) else None
    if configs is None:
        return []
    if not isinstance(configs, list) or not all(isinstance(config, dict) for config in configs):
        raise MemtaxError(f"{card}: configs is not a list of configurations")
    return configs


def _check_links(folder: Path, patterns: list[tuple[str, ...]], card: Path) -> None:
    """Reject card patterns that match a symbolic link to something outside the folder."""
    root = folder.resolve()
    # A snapshot in the Hub's cache consists of links to the blobs next to it.
    contents = root.parent.parent / "blobs" if root.parent.name == "snapshots" else None
    for link in _links(folder):
        target = Path(os.path.realpath(link))
        if target.is_relative_to(root) or (contents is not None and target.parent == contents):
            continue
        parts = link.relative_to(folder).parts
        if any(_meets(pattern, parts) for pattern in patterns):
            raise MemtaxError(
                f"{card} names {'/'.join(parts)}, a link to {target}, which is outside its folder; files outside a "
                "dataset's folder are not read"
            )


def _links(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        yield from (path for path in (Path(place, name) for name in (*folders, *files)) if path.is_symlink())


def _meets(pattern: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    """Whether a pattern matches a path, or anything below it."""
    for number, part in enumerate(parts):
        if number == len(pattern) or not fnmatchcase(part, pattern[number]):
            return False
        if pattern[number] == "**":
            return True
    return True


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
        raise MemtaxError(f"{name} is {str(value)[:50]!r}, which is not a file name")


def _check_name(name: str, card: Path) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or name.startswith(("~", "file:")) or _ADDRESS.match(name):
        raise MemtaxError(
            f"{card} names {name[:200]!r}, which is outside its folder; files outside a dataset's folder are not read"
        )


def _check_saved(folder: Path) -> None:
    """Check the files named by `save_to_disk`, and that descriptions are JSON of limited size."""
    splits = [folder]
    if (folder / "dataset_dict.json").is_file():
        names = read_json(folder / "dataset_dict.json", SPLITS, finite=False)["splits"]
        for name in _texts(names, f"{folder / 'dataset_dict.json'}: splits"):
            _check_name(name, folder / "dataset_dict.json")
            splits.append(folder / name)
    for split in splits:
        for name in _INFOS:
            if (split / name).is_file():
                read_json(split / name, finite=False)
        if (split / "state.json").is_file():
            files = read_json(split / "state.json", SAVED, finite=False)["_data_files"]
            for name in _texts(files, f"{split / 'state.json'}: _data_files"):
                _check_name(name, split / "state.json")
