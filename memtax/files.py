"""Atomic writing of files, and access to files that are installed with memtax."""

import contextlib
import errno
import glob
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
    """Yield a path of the same name in a temporary directory next to `path`; rename it on success, remove it on failure.

    The temporary directory's name starts with a dot, so that readers looking for finished parts never see it. Other files that
    a writer leaves there are removed with it.

    Args:
        path: path of the finished file.
        private: whether only the owner may read it, because it contains personal data.

    Raises:
        OSError: the system rejects the operation; the error names `path`.
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
        # Writers know at best the temporary file; the user knows the target.
        reason = os.strerror(number) if number else str(error)
        raise OSError(number, reason, str(destination(path))) from error


def system_error(error: BaseException) -> int | None:
    """The system error number behind an exception (0: unknown), None if it is not a system error.

    safetensors has its own type, and tokenizers raises a plain `Exception`. Failed writes in torch end in a `RuntimeError`
    without the reason, which is usually a full disk.
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

    Files that others added to the former directory are kept: the directory lists the files written by memtax.

    Raises:
        MemtaxError: another run is using the former directory.
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
    """Move files that memtax did not write from a directory to the one that replaces it."""
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
            # Files of an earlier run must not be mixed with the new ones, and files of others must not be lost.
            raise MemtaxError(
                f"{former} has no readable list of the files that memtax wrote there ({outputs.LISTING}), and contains {name}; "
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
        except OSError:  # Some file systems have no links.
            shutil.copy2(path, new / name, follow_symlinks=False)


def _listed(folder: Path) -> set[str] | None:
    """Names of the files that memtax wrote into an atomic directory; None if not recorded."""
    try:
        names = json.loads((folder / outputs.LISTING).read_text("ascii"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return {*names, outputs.LISTING}


def destination(path: Path | str) -> Path:
    """Final location of a path inside an unfinished directory; any other path unchanged."""
    return Path(*(part for part in Path(path).parts if not journal.is_temporary(part)))


def visible_files(folder: Path | str) -> list[Path]:
    """Every file below a folder, sorted, without hidden ones and those in hidden folders."""
    folder = Path(folder)
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def own_files(folder: Path | str, listed: bool = False) -> list[Path]:
    """The visible files below a folder without those of others, if memtax has listed its own there.

    Args:
        folder: the folder.
        listed: whether a damaged list is an error; otherwise all visible files are returned then.

    Raises:
        MemtaxError: the list is damaged.
    """
    files, own = visible_files(folder), _listed(Path(folder))
    # A listing that names what is not there is damaged.
    if own is None or not all(Path(folder, name).exists() for name in own):
        if listed:
            raise MemtaxError(
                f"{Path(folder, outputs.LISTING)}, the list of the files that memtax wrote there, is damaged; run the "
                "command again after you moved your own files out of that directory and removed it"
            )
        return files
    return [file for file in files if str(file.relative_to(folder)) in own]


def matching_files(pattern: Path | str) -> list[Path]:
    """The files that a pattern with `*`, `?` or `[...]` matches, sorted; `NAME.bin` and `NAME.idx` for the name of this pair.

    Empty for any other name.
    """
    pattern = os.path.expanduser(str(pattern))
    if glob.has_magic(pattern):
        return sorted(map(Path, glob.glob(pattern, recursive=True)))
    pair = [Path(f"{pattern}.bin"), Path(f"{pattern}.idx")]
    return pair if all(map(os.path.isfile, pair)) else []


Stamp = tuple[str, int, int, int, int, int]
"""Name, size, modification and change times, device and inode of a file: equal while the file is unchanged."""


def stamp(path: Path | str) -> Stamp:
    """The stamp of a file; for something that does not exist, such as a Hub name, only the name counts."""
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
    """Write JSON atomically, keys in the given order. NaN and infinity raise an error, because JSON has no such numbers."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n", private)


def write_parquet(path: Path | str, table: "pa.Table", private: bool = False) -> None:
    """Write a table as Parquet (zstd) atomically. The bytes depend on the table's values and schema only."""
    with atomic_path(path, private) as temporary:
        encode_parquet(temporary, table)


def encode_parquet(path: Path, table: "pa.Table") -> None:
    """Write a table as Parquet (zstd) into a new file; see `write_parquet`."""
    import pyarrow.parquet as pq

    # One chunk per column, so that the file does not depend on how the table was assembled.
    pq.write_table(table.combine_chunks(), path, compression="zstd", row_group_size=65_536)


def link(path: Path, new: Path) -> None:
    """Hard-link a finished file under a second name, or copy it if the file system has no links."""
    new.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, new)
    except OSError:
        shutil.copy2(path, new)


def make_private(folder: Path | str, names: Iterable[str] = ()) -> None:
    """Create a directory that only its owner can enter.

    Args:
        folder: the directory; it need not exist.
        names: existing files and folders in it that only their owner may read, even after they are moved.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for name in names:
        for path in (folder / name, *(folder / name).rglob("*")):
            if path.exists() and not path.is_symlink():
                path.chmod(0o700 if path.is_dir() else 0o600)


def asset(name: str) -> Path:
    """Path of a top-level file or folder of the repository (`training/train_lm.py`, `model_cards`).

    In a wheel these are in `memtax/_assets`; in a checkout, next to the package.

    Raises:
        FileNotFoundError: it is in neither place.
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
