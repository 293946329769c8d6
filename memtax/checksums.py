"""Checksums of finished files: a file is reused only if it has the bytes that were written, for the same work.

Each part has its own record next to it (`.NAME.sum`), so that processes writing different parts share nothing. The final files
of a directory share one record (`.memtax-checksums.json`). Both identify the work that the files belong to. Records are hidden
files, which dataset readers and uploads skip.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memtax.errors import MemtaxError
from memtax.files import atomic_path, encode_parquet, read_json, write_text
from memtax.progress import report_warning
from memtax.provenance import digest
from memtax.records import open_file

if TYPE_CHECKING:
    import pyarrow as pa

RECORD = ".memtax-checksums.json"
CHECKPOINT = "checksums.json"
"""Sizes and digests of the files in a training checkpoint; see `memtax.hub.checkpoints`."""
_SUFFIX = ".sum"
_LEVELS = 4
"""Number of parent folders searched for a record: `dataset/CONFIG/SPLIT.parquet` is three levels below its run."""
_MOST = 2**24
"""Maximum size of a record or `run.yaml`."""
_CHECKSUM = re.compile(r"[0-9a-f]{32} [0-9]{1,18}")
_TIMES = (b"finished:", b"seconds:")
"""Lines of `run.yaml` that differ between runs; all other bytes of a directory are the same."""


def checksum(path: Path) -> str:
    """A file's xxh3 digest (128 bits, hexadecimal), a space, and its size in bytes; `run.yaml` is hashed without its times."""
    import xxhash

    if path.name == "run.yaml" and path.is_file() and path.stat().st_size <= _MOST:
        content = without_times(path)
        return f"{xxhash.xxh3_128_hexdigest(content)} {len(content)}"
    with open_file(path) as file:
        found = hashlib.file_digest(file, xxhash.xxh3_128)
        return f"{found.hexdigest()} {file.tell()}"


def without_times(path: Path) -> bytes:
    """The bytes of a `run.yaml` without the lines that differ between runs."""
    with open_file(path) as file:
        return b"".join(line for line in file.read(_MOST).splitlines(True) if not line.startswith(_TIMES))


@dataclass(frozen=True)
class Parts:
    """The parts of one piece of work in one directory.

    Attributes:
        folder: the directory.
        work: digest of the inputs and parameters; see `of`.
    """

    folder: Path
    work: str

    @classmethod
    def of(cls, folder: Path | str, identity: Any) -> "Parts":
        """The parts made from `identity`: JSON values of inputs, parameters and versions."""
        return cls(Path(folder), digest(identity))

    def is_usable(self, name: str) -> bool:
        """Whether the part exists, is intact, and belongs to this work; if not, a warning names it."""
        path = self.folder / name
        if not path.exists():
            return False
        if self._matches(path):
            return True
        reason = "does not match its checksum" if _record_of(path).exists() else "has no checksum"
        report_warning(f"{path} {reason}; it is made again")
        return False

    def prove(self) -> bool:
        """Whether there are parts, and all parts with a record are intact and belong to this work."""
        names = self.names()
        return bool(names) and all(self._matches(self.folder / name) for name in names)

    def _matches(self, path: Path) -> bool:
        # The record is never parsed: any changed byte makes a difference.
        try:
            with open_file(_record_of(path)) as file:
                return file.read(1000) == self._line(path, path.name).encode()
        except OSError:
            return False

    def _line(self, path: Path, name: str) -> str:
        return f"xxh3_128 {checksum(path)} {digest(self.work, name)}\n"

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield a temporary path; on success, write the record and rename the path to the part."""
        path = self.folder / name
        with atomic_path(path) as temporary:
            yield temporary
            write_text(_record_of(path), self._line(temporary, name))

    def write_parquet(self, name: str, table: "pa.Table") -> None:
        """Write a table as a part."""
        with self.writing(name) as temporary:
            encode_parquet(temporary, table)

    def names(self) -> list[str]:
        """Existing parts that have a record, intact or not."""
        names = sorted(record.name[1 : -len(_SUFFIX)] for record in self.folder.glob(f".*{_SUFFIX}"))
        return [name for name in names if (self.folder / name).exists()]

    def remove(self, name: str) -> None:
        """Remove a part and its record, if they exist."""
        (self.folder / name).unlink(missing_ok=True)
        _record_of(self.folder / name).unlink(missing_ok=True)


def has_record(path: Path) -> bool:
    """Whether a file is a part with a record, intact or not."""
    return _record_of(path).exists()


def _record_of(path: Path) -> Path:
    return path.with_name(f".{path.name}{_SUFFIX}")


def seal(folder: Path | str, command: str, identity: Any, names: Iterable[str] | None = None) -> None:
    """Record the files of a finished directory.

    Args:
        folder: the directory.
        command: command that recreates the files, for messages: `the same memtax score command`.
        identity: JSON values of inputs and parameters.
        names: files, and folders with all their files, relative to the directory; None takes all. Hidden files are omitted.
    """
    folder = Path(folder)
    chosen = [folder] if names is None else [folder / name for name in names]
    files = sorted({file for path in chosen for file in _visible(path, folder)})
    sums = {file.relative_to(folder).as_posix(): _sum(file) for file in files}
    write_text(folder / RECORD, _text(command, digest(identity), sums))


def _visible(path: Path, folder: Path) -> Iterable[Path]:
    files = path.rglob("*") if path.is_dir() else [path]
    return (file for file in files if file.is_file() and not any(n.startswith(".") for n in file.relative_to(folder).parts))


def _sum(file: Path) -> str:
    """The checksum; for a part, which was just checked or written, the recorded one."""
    with contextlib.suppress(OSError, ValueError):
        _, found, size, _ = _read_record(file).split(" ")
        return f"{found} {size}"
    return checksum(file)


def _read_record(file: Path) -> str:
    with open_file(_record_of(file)) as record:
        return record.read(1000).decode("utf-8")


def _text(command: str, work: str, sums: dict[str, str]) -> str:
    content = {"memtax": command, "work": work, "files": sums}
    return json.dumps({**content, "record": digest(content)}, indent=1) + "\n"


@dataclass(frozen=True)
class Record:
    """The record of a finished directory.

    Attributes:
        folder: the directory.
        command: command that made it.
        work: digest of its inputs and parameters.
        files: relative name to checksum.
    """

    folder: Path
    command: str
    work: str
    files: dict[str, str]

    @classmethod
    def read(cls, folder: Path) -> "Record | None":
        """The record of a directory; None if there is none.

        Raises:
            MemtaxError: the record is damaged.
        """
        path = folder / RECORD
        try:
            with open_file(path) as file:
                text = file.read(_MOST).decode("utf-8")
            found = json.loads(text)
            record = cls(folder, found["memtax"], found["work"], found["files"])
            if record._is_sound() and text == _text(record.command, record.work, record.files):
                return record
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
        raise MemtaxError(f"{path} is damaged; run the command that made the folder again, or remove that file")

    def _is_sound(self) -> bool:
        """Whether the record has the format written by `seal`; it may come from anyone."""
        named = all(".." not in Path(name).parts and not Path(name).is_absolute() for name in self.files)
        return named and isinstance(self.command, str) and all(map(_CHECKSUM.fullmatch, self.files.values()))

    def names(self, path: Path) -> list[str]:
        """Recorded files that equal `path` or are below it."""
        return [name for name in self.files if path == self.folder / name or path in (self.folder / name).parents]

    def difference(self, name: str) -> str | None:
        """Describe what is wrong with a file; None if it is as recorded."""
        path = self.folder / name
        if not path.is_file():
            return f"{path} is missing"
        size = self.files[name].rpartition(" ")[2]
        # Check the size first: this is cheap, and limits how much is read.
        if path.name != "run.yaml" and size != str(path.stat().st_size):
            return f"{path} has {path.stat().st_size:,} bytes and not the {int(size):,} that were written"
        return None if checksum(path) == self.files[name] else f"{path} does not match its checksum"


def damage(folder: Path, identity: Any, names: Iterable[str] | None = None) -> str | None:
    """Why the files of a finished directory cannot be reused.

    Args:
        folder: a sealed directory.
        identity: required inputs and parameters.
        names: files that must be recorded.

    Returns:
        A reason that names the file; None if every recorded file is intact.
    """
    try:
        record = Record.read(folder)
    except MemtaxError:
        return f"{folder / RECORD} is damaged"
    if record is None:
        return f"{folder} has no checksums"
    if record.work != digest(identity) or any(name not in record.files for name in names or ()):
        return f"{folder / RECORD} is of other work"
    return next((reason for name in record.files if (reason := record.difference(name))), None)


def is_of(folder: Path, identity: Any) -> bool:
    """Whether a directory's record is intact and belongs to this work."""
    with contextlib.suppress(MemtaxError):
        record = Record.read(folder)
        return record is not None and record.work == digest(identity)
    return False


def verify(path: Path | str) -> None:
    """Check a file or folder that a verb reads, if its directory has a record.

    A card (`README.md`) may be edited by hand: a changed card gives a warning on standard error, and is used.

    Args:
        path: a file or folder; it is not checked if it does not exist or is not in any record.

    Raises:
        MemtaxError: a file is missing or differs from what was written, or the record is damaged.
    """
    path = Path(path).absolute()
    if not path.exists():
        return
    _verify_checkpoint(path)
    for folder in [path, *path.parents][: _LEVELS + 1]:
        record = Record.read(folder) if folder.is_dir() else None
        names = record.names(path) if record is not None else []
        if record is None or not names:
            continue
        for name in names:
            reason = record.difference(name)
            if reason is None:
                continue
            if name.endswith("README.md") and (folder / name).is_file():
                report_warning(f"{folder / name} was changed since memtax wrote it; it is used as it is")
                continue
            raise MemtaxError(f"{reason}; run {record.command} again, or remove {folder / RECORD} to use the files as they are")
        return


def _verify_checkpoint(folder: Path) -> None:
    """Check the model files of a finished checkpoint, but not the optimizer's state.

    Raises:
        MemtaxError: a file is missing or differs from what was written, or the record is damaged.
    """
    if not (folder / CHECKPOINT).is_file() or not (folder / "trainer_state.json").is_file():
        return
    files = read_json(folder / CHECKPOINT, {"files": {"*": list}})["files"]
    again = f"train again, or remove {folder / CHECKPOINT} to use the files as they are"
    for name, value in files.items():
        if Path(name).suffix in (".safetensors", ".json") and Path(name).name == name and name != "trainer_state.json":
            path = folder / name
            found, _, size = checksum(path).partition(" ") if path.is_file() else ("", "", "")
            if value != [int(size or -1), found]:
                raise MemtaxError(f"{path} {'does not match its checksum' if size else 'is missing'}; {again}")
