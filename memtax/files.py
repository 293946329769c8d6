"""Writing files so that they appear finished or not at all, and finding the files that ship with memtax."""

import contextlib
import errno
import fcntl
import glob
import json
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memtax.errors import MemtaxError

if TYPE_CHECKING:
    import pyarrow as pa


_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}\.(?P<kind>tmp|old)|\.tmp[A-Za-z0-9]{6}")
"""Names that `atomic_path` and `atomic_directory` give to what is not finished; the last form is that of safetensors."""


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on failure.

    The temporary name starts with a dot and ends in `.tmp`, so that readers who glob for finished parts never see it.

    Raises:
        OSError: the system refuses, named by `path`.
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
    except Exception as error:
        number = system_error(error)
        if number is None:
            raise
        # Writers know the temporary file at best; the user knows the one that was to be.
        reason = os.strerror(number) if number else str(error)
        raise OSError(number, reason, str(destination(path))) from error
    finally:
        temporary.unlink(missing_ok=True)


def system_error(error: BaseException) -> int | None:
    """The number of the system's error behind an exception (0: not told), None if it is none.

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


def destination(path: Path | str) -> Path:
    """Where a path inside a directory that is not finished will be, once that is renamed; any other path as it is."""
    parts = []
    for part in Path(path).parts:
        found = _TEMPORARY.fullmatch(part)
        parts.append(found["name"] if found and found["name"] and found["kind"] == "tmp" else part)
    return Path(*parts)


@contextlib.contextmanager
def hold(output: Path | str, command: str, wait: bool = False) -> Iterator[None]:
    """Hold an output directory, so that no second run writes into it.

    The lock is a file beside the directory (`.NAME.lock`; inside, where its parent is read-only), with the holder's words in
    it. The system frees it when the holder dies, however it dies: a file that was left behind holds nothing.

    Args:
        output: the directory; it need not exist.
        command: how a refusal calls this run.
        wait: wait for the holder to end instead of refusing.

    Raises:
        MemtaxError: another run holds the directory.
    """
    handle, path = _locked(Path(output), wait)
    try:
        held = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "command": command,
        }
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(held).encode(), 0)
        _sweep(Path(output))
        yield
    finally:
        # First the name, then the lock: whoever waits finds the name gone and makes a new file.
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(handle)


def _sweep(output: Path) -> None:
    """Remove what a killed run left half-written. Only the holder may: nobody else writes here."""
    # The other processes of a job start together with the first and may be writing already.
    before = time.time() - (60 if int(os.environ.get("WORLD_SIZE", "1")) > 1 else 0)
    beside = output.parent.glob(f".{glob.escape(output.name)}.*") if output.parent.is_dir() else ()
    for path in sorted({*beside, *(output.rglob(".*") if output.is_dir() else ())}):
        found = _TEMPORARY.fullmatch(path.name)
        if found is None or not path.exists() or path.stat().st_mtime > before:
            continue
        name = found["name"] or ""
        if found["kind"] == "old" and (path / name).exists() and not (path.parent / name).exists():
            # Killed between the two renames of `atomic_directory`: the former directory is still the one.
            os.replace(path / name, path.parent / name)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _locked(output: Path, wait: bool) -> tuple[int, Path]:
    output = Path(os.path.abspath(output))
    output.parent.mkdir(parents=True, exist_ok=True)
    path = output.parent / f".{output.name}.lock"
    if output.is_dir() and not os.access(output.parent, os.W_OK):
        path = output / ".lock"
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder before may have removed the file between our opening and locking it.
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                return handle, path
        except BlockingIOError:
            message = f"{output} is in use by {_holder(handle)}; wait for it (memtax --wait ...) or choose another output"
            os.close(handle)
            raise MemtaxError(message) from None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _holder(handle: int) -> str:
    """What a lock file says of its holder."""
    try:
        held = json.loads(os.pread(handle, 4096, 0))
        return f"process {held['pid']} on {held['host']} since {held['since']} ({held['command']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another run"


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Mapping[str, Any]) -> None:
    """Write JSON atomically, keys in the given order. NaN and infinity are refused: JSON has no such numbers."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path | str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        MemtaxError: the file holds something else.
        OSError: it cannot be read.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise MemtaxError(f"{path} is not JSON ({error}); run the stage that writes it again") from error
    if not isinstance(found, dict):
        raise MemtaxError(f"{path} holds a {type(found).__name__}, not an object; run the stage that writes it again")
    return found


def write_parquet(path: Path | str, table: "pa.Table") -> None:
    """Write a table as Parquet (zstd) atomically. The bytes depend on the table's values and schema only."""
    import pyarrow.parquet as pq

    with atomic_path(path) as temporary:
        # One chunk a column: how a table was assembled must not show in the file.
        pq.write_table(table.combine_chunks(), temporary, compression="zstd", row_group_size=65_536)


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
    """
    names = sorted(folder.name for folder in asset("metrics").iterdir() if (folder / f"{folder.name}.py").is_file())
    if name not in names:
        raise MemtaxError(f"no metric {name!r}; there are {', '.join(names)}")
    return str(asset("metrics") / name)
