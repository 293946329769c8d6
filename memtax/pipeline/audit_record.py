"""`audit.json`: digests of the model, the data and the figures of an audit, and what was changed since."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memtax.checksums import has_record, without_times
from memtax.corpus.sources import Source, local_files
from memtax.errors import MemtaxError
from memtax.files import own_files, write_json, write_text
from memtax.lm.loading import model_files, split_revision
from memtax.outputs import LISTING
from memtax.pipeline.stages import TOKENIZER_FILES
from memtax.provenance import git_commit, versions
from memtax.record_shapes import AUDIT
from memtax.records import open_file, read_json
from memtax.results import SUMMARY

NAME, SIDECAR = "audit.json", "audit.json.sha256"
SCHEMA = "memtax-audit/1"
_OWN = ("index.html", "run.yaml", "stage.json", SUMMARY)
"""Files without a checksum of their own."""
FIGURES = "figures"
"""The group of files in the audit's own directory; their names are relative to it."""


def write(folder: Path, models: Mapping[str, str], data: Mapping[str, str], names: Iterable[str], figures: Any) -> None:
    """Write the record and, beside it, its own SHA-256 as `sha256sum` does.

    Args:
        folder: output of the audit, with all other files.
        models: role (`model`, `base`) to folder or Hub name.
        data: role (`train`, `held_out`, `canaries`) to source.
        names: files and folders of the output.
        figures: figures of the audit.
    """
    files = {name: [file for part in parts for file in _files(part)] for name, parts in (_groups(models, data)).items()}
    own = [file for name in names for file in _files(folder / name) if file.name not in (NAME, SIDECAR)]
    content = {
        "schema": SCHEMA,
        "memtax": versions()["memtax"],
        "commit": git_commit(),
        "verdicts": figures["verdicts"],
        "inputs": {
            name: {"name": given, "files": [_row(file, str(file.resolve())) for file in files[name]]}
            for name, given in {**models, **data}.items()
        },
        FIGURES: [_row(file, file.relative_to(folder).as_posix()) for file in sorted(set(own))],
    }
    write_json(folder / NAME, content, private=True)
    write_text(folder / SIDECAR, f"{sha256(folder / NAME)}  {NAME}\n", private=True)


def sha256(file: Path) -> str:
    """SHA-256 of a file's bytes; of `run.yaml` without its times."""
    if file.name == "run.yaml":
        return hashlib.sha256(without_times(file)).hexdigest()
    with open_file(file) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@dataclass
class Checked:
    """Result of a check.

    Attributes:
        digest: SHA-256 of `audit.json`.
        same: number of files that are as they were.
        different: one line per file that was changed or is missing.
        unchecked: one line per input that is no file here.
    """

    digest: str
    same: int = 0
    different: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)


def check(folder: Path) -> Checked:
    """Compare the files of an audit with its record.

    Raises:
        MemtaxError: the folder is not the output of an audit.
    """
    record, sidecar = folder / NAME, folder / SIDECAR
    if not record.is_file():
        raise MemtaxError(f"{folder} has no {NAME}; give the output of memtax audit")
    found = Checked(sha256(record))
    if not sidecar.is_file():
        found.different.append(f"missing: {SIDECAR}, the digest of {NAME}")
    elif sidecar.read_bytes()[:200] != f"{found.digest}  {NAME}\n".encode():
        found.different.append(f"changed: {NAME}, or {SIDECAR}: they do not match")
    try:
        content = read_json(record, AUDIT)
    except MemtaxError as error:
        found.different.append(f"unreadable: {error}; no other file can be checked")
        return found
    for name, digest in map(_pair, content[FIGURES]):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            found.different.append(f"changed: {NAME} names a file outside its folder: {name}")
        else:
            _compare(found, folder / name, digest, name)
    for role, given in content["inputs"].items():
        if not given["files"]:
            found.unchecked.append(f"not checked: {role} {given['name']} was no file on the machine of the audit")
        for name, digest in map(_pair, given["files"]):
            _compare(found, Path(name), digest, f"{name} ({role})")
    return found


def _row(file: Path, shown: str) -> dict[str, str]:
    return {"path": shown, "sha256": sha256(file)}


def _pair(row: Mapping[str, str]) -> tuple[str, str]:
    return row["path"], row["sha256"]


def _compare(found: Checked, file: Path, digest: str, shown: str) -> None:
    # Names from elsewhere may be too long for a file system.
    if not os.path.isfile(file):
        found.different.append(f"missing: {shown}")
    elif sha256(file) != digest:
        found.different.append(f"changed: {shown}")
    else:
        found.same += 1


def _groups(models: Mapping[str, str], data: Mapping[str, str]) -> dict[str, list[Path]]:
    """Role to the files and folders that count: weights, configuration and tokenizer of a model, all files of a source."""
    found: dict[str, list[Path]] = {}
    for role, name in models.items():
        folder = Path(split_revision(name)[0])
        own = [*map(Path, model_files(folder)), *(file for pattern in TOKENIZER_FILES for file in folder.glob(pattern))]
        found[role] = sorted({file for file in own if folder.is_dir()})
    return found | {role: local_files(Source.parse(source)) for role, source in data.items()}


def _files(path: Path) -> list[Path]:
    """A file, or the files below a folder that memtax wrote; the user may have put others there."""
    if path.is_file():
        return [path]
    if (path / LISTING).exists():
        # Files of others must not be recorded as the audit's.
        return own_files(path, listed=True)
    found = []
    for each in sorted(path.iterdir()) if path.is_dir() else []:
        if not each.name.startswith(".") and (each.is_dir() or each.name in _OWN or has_record(each)):
            found += _files(each)
    return found
