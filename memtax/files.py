"""Writing files so that they appear finished or not at all, and finding the files that ship with memtax."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memtax.errors import MemtaxError

if TYPE_CHECKING:
    import pyarrow as pa


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on failure.

    The temporary name starts with a dot and ends in `.tmp`, so that readers who glob for finished parts never see it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        # mkstemp makes files private; a result should carry the permissions any other new file would.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        # Writers know the temporary file at best; the user knows the one that was to be.
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(error.errno or 0, reason, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(path: Path | str) -> Iterator[Path]:
    """Yield an empty temporary directory beside `path`; it replaces `path` on success and is removed on failure."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
            os.replace(path, old / path.name)
            os.replace(temporary, path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Mapping[str, Any]) -> None:
    """Write JSON atomically, keys in the given order. NaN and infinity are refused: JSON has no such numbers."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_parquet(path: Path | str, table: "pa.Table") -> None:
    """Write a table as Parquet (zstd) atomically. The bytes depend on the table's values and schema only."""
    import pyarrow.parquet as pq

    with atomic_path(path) as temporary:
        # One chunk a column: how a table was assembled must not show in the file.
        pq.write_table(table.combine_chunks(), temporary, compression="zstd", row_group_size=65_536)


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
    """
    names = sorted(folder.name for folder in asset("metrics").iterdir() if (folder / f"{folder.name}.py").is_file())
    if name not in names:
        raise MemtaxError(f"no metric {name!r}; there are {', '.join(names)}")
    return str(asset("metrics") / name)
