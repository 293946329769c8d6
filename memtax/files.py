"""Writing files so that they appear finished or not at all, and finding the files that ship with memtax."""

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memtax import journal, outputs
from memtax.errors import MemtaxError
from memtax.records import read_json as read_json

if TYPE_CHECKING:
    import pyarrow as pa


@contextlib.contextmanager
def atomic_path(path: Path | str, private: bool = False) -> Iterator[Path]:
    """Yield a path of the same name in a temporary directory beside `path`; rename it on success, remove it on failure.

    The name of the temporary directory starts with a dot, so that readers who look for finished parts never see it. What a
    writer leaves beside its file is removed with it.

    Args:
        path: of the finished file.
        private: whether the owner alone may read it; it holds personal data.

    Raises:
        OSError: the system refuses, named by `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with journal.temporary_directory(path) as folder:
            temporary = folder / path.name
            if private:
                temporary.touch(mode=0o600)
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            if private:
                temporary.chmod(0o600)
            os.replace(temporary, path)
    except Exception as error:
        number = system_error(error)
        if number is None:
            raise
        # Writers know the temporary file at best; the user knows the one that was to be.
        reason = os.strerror(number) if number else str(error)
        raise OSError(number, reason, str(destination(path))) from error


def system_error(error: BaseException) -> int | None:
    """The number of the system's error behind an exception (0: not known), None if it is not a system error.

    safetensors has a kind of its own, and tokenizers raises the mere `Exception`. What torch writes ends in a `RuntimeError`
    that keeps the reason to itself; a full disk is the usual one.
    """
    if isinstance(error, OSError):
        return error.errno or 0
    if isinstance(error, RuntimeError) and "inline_container.cc" in str(error) and "unexpected pos" in str(error):
        return errno.ENOSPC
    found = re.search(r"\(os error (\d+)\)$", str(error)) if type(error).__name__ in ("SafetensorError", "Exception") else None
    return int(found[1]) if found else None


@contextlib.contextmanager
def atomic_directory(path: Path | str) -> Iterator[Path]:
    """Yield an empty directory that replaces `path` on success and is removed on failure.

    Files that somebody else put into the former directory are kept: what memtax wrote is listed in it.

    Raises:
        MemtaxError: another run works in the former directory.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with journal.temporary_directory(path) as folder:
        temporary = folder / path.name
        temporary.mkdir()
        yield temporary
        names = sorted(str(each.relative_to(temporary)) for each in temporary.rglob("*") if not each.is_dir())
        (temporary / outputs.LISTING).write_text(json.dumps([name for name in names if name != outputs.LISTING]), "ascii")
        if path.is_dir():
            _keep_others(path, temporary)
            former = folder / outputs.REPLACED
            former.mkdir()
            os.replace(path, former / path.name)
        os.replace(temporary, path)


def _keep_others(former: Path, new: Path) -> None:
    """Bring what memtax did not write from a directory into the one that replaces it."""
    held = outputs.held_inside(former)
    if held is not None:
        raise MemtaxError(f"{held} is in use by another run; wait for it before {former} is replaced")
    own = _listed(former)
    for path in sorted(former.rglob("*")):
        name = path.relative_to(former)
        if os.path.lexists(new / name) or any(journal.is_temporary(part) for part in name.parts):
            continue
        if own is None:
            if path.is_dir() and not path.is_symlink():
                continue
            # A file of an earlier run must not be read with the new ones, and one of somebody else must not be lost.
            raise MemtaxError(
                f"{former} has no readable list of the files that memtax wrote there ({outputs.LISTING}), and holds {name}; "
                "move what you need out of that directory and remove it, or choose another output"
            )
        if str(name) in own:
            continue
        if path.is_dir() and not path.is_symlink():
            if not any(Path(each).is_relative_to(name) for each in own):
                (new / name).mkdir(parents=True)
            continue
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, new / name, follow_symlinks=False)
        except OSError:  # Not every file system has links.
            shutil.copy2(path, new / name, follow_symlinks=False)


def _listed(folder: Path) -> set[str] | None:
    """Names of the files that memtax wrote into a directory that appeared as a whole; None where that is not recorded."""
    try:
        names = json.loads((folder / outputs.LISTING).read_text("ascii"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return {*names, outputs.LISTING}


def destination(path: Path | str) -> Path:
    """Where a path inside a directory that is not finished will be, once that is renamed; any other path as it is."""
    return Path(*(part for part in Path(path).parts if not journal.is_temporary(part)))


def visible_files(folder: Path | str) -> list[Path]:
    """Every file below a folder, sorted, without hidden ones and those in hidden folders."""
    folder = Path(folder)
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


Stamp = tuple[str, int, int, int, int, int]
"""Name, size, times of the last write and change, device and inode of a file: equal as long as the file is unchanged."""


def stamp(path: Path | str) -> Stamp:
    """The stamp of a file; of what does not exist, such as a Hub name, the name alone counts."""
    path = Path(path)
    try:
        status = path.stat()
    except OSError:
        return (str(path), -1, -1, -1, -1, -1)
    return (path.name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_dev, status.st_ino)


def write_text(path: Path | str, text: str, private: bool = False) -> None:
    """Write UTF-8 text atomically; `private` as in `atomic_path`."""
    with atomic_path(path, private) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Mapping[str, Any], private: bool = False) -> None:
    """Write JSON atomically, keys in the given order. NaN and infinity are refused: JSON has no such numbers."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n", private)


def write_parquet(path: Path | str, table: "pa.Table", private: bool = False) -> None:
    """Write a table as Parquet (zstd) atomically. The bytes depend on the table's values and schema only."""
    with atomic_path(path, private) as temporary:
        encode_parquet(temporary, table)


def encode_parquet(path: Path, table: "pa.Table") -> None:
    """Write a table as Parquet (zstd) into a file that is not in use yet; see `write_parquet`."""
    import pyarrow.parquet as pq

    # One chunk per column: how a table was assembled must not show in the file.
    pq.write_table(table.combine_chunks(), path, compression="zstd", row_group_size=65_536)


def link(path: Path, new: Path) -> None:
    """Give a finished file a second name, or copy it where the file system has no links."""
    new.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, new)
    except OSError:
        shutil.copy2(path, new)


def make_private(folder: Path | str, names: Iterable[str] = ()) -> None:
    """Make a directory that only its owner may enter.

    Args:
        folder: the directory; it need not exist.
        names: files and folders in it, as far as they are there, that only their owner may read even where they are moved.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for name in names:
        for path in (folder / name, *(folder / name).rglob("*")):
            if path.exists() and not path.is_symlink():
                path.chmod(0o700 if path.is_dir() else 0o600)


def asset(name: str) -> Path:
    """Path of a file or folder that the repository keeps at its top level (`training/train_lm.py`, `model_cards`).

    In a wheel these live under `memtax/_assets`; in a checkout beside the package.

    Raises:
        FileNotFoundError: neither place has it.
    """
    package = Path(__file__).parent
    for base in (package / "_assets", package.parent):
        if (base / name).exists():
            return base / name
    raise FileNotFoundError(f"{name} is missing from this installation of memtax; reinstall it")


def metric_path(name: str) -> str:
    """Path of one of memtax's `evaluate` modules, for `evaluate.load`; it works in a checkout and in an installed wheel.

    Raises:
        MemtaxError: there is no such module.

    Example:
        >>> import pathlib
        >>> from memtax import metric_path
        >>> pathlib.Path(metric_path("membership_inference")).name
        'membership_inference'
    """
    names = sorted(folder.name for folder in asset("metrics").iterdir() if (folder / f"{folder.name}.py").is_file())
    if name not in names:
        raise MemtaxError(f"no metric {name!r}; there are {', '.join(names)}")
    return str(asset("metrics") / name)
