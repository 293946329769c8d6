"""One job at a time in an output directory."""

import contextlib
import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memtax.errors import MemtaxError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NAME = ".memtax-lock"
"""The lock's file inside the directory. The kernel frees the lock of a process that dies, so a stale file locks nothing."""

_held: set[Path] = set()


@contextlib.contextmanager
def hold(output: Path | str, command: str) -> Iterator[None]:
    """Keep other jobs out of a directory until the block ends.

    The directory is made if need be, and removed again if the block leaves it empty. Of the processes of one distributed job
    only the first holds the lock. Where the file system has no locks the block runs without one.

    Args:
        output: the directory. If it is a file, or cannot be written, the block runs: its own error says so better.
        command: what the holder is, for those who are refused.

    Raises:
        MemtaxError: another process holds the directory; its name, machine and start are in the message.
    """
    path = Path(output).absolute()
    if fcntl is None or path in _held or int(os.environ.get("RANK", "0")) or (path.exists() and not path.is_dir()):
        yield
        return
    made = _make(path)
    handle = _open(path)
    if handle is None:
        yield
        return
    _held.add(path)
    try:
        os.ftruncate(handle, 0)
        holder = {"pid": os.getpid(), "host": platform.node(), "started": time.strftime("%F %T"), "command": command}
        with contextlib.suppress(OSError):  # a full disk
            os.write(handle, json.dumps(holder).encode())
        yield
    finally:
        _held.discard(path)
        (path / NAME).unlink(missing_ok=True)
        os.close(handle)
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _make(path: Path) -> list[Path]:
    """Make a directory; what had to be made, innermost first."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    with contextlib.suppress(OSError):
        path.mkdir(parents=True, exist_ok=True)
    return made


def _open(path: Path) -> int | None:
    """The locked file's descriptor, or None where nothing can be locked."""
    while True:
        try:
            handle = os.open(path / NAME, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(handle)
            os.close(handle)
            raise MemtaxError(f"{path} is in use by {holder}; wait for it, stop it, or give another --output") from None
        except OSError:  # a file system without locks
            os.close(handle)
            return None
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path / NAME).st_ino == os.fstat(handle).st_ino:
                return handle
        # The holder before has removed the file between our opening and our locking.
        os.close(handle)


def _holder(handle: int) -> str:
    try:
        known: dict[str, Any] = json.loads(os.pread(handle, 4096, 0))
        return f"process {known['pid']} on {known['host']} since {known['started']} ({known['command']})"
    except (ValueError, KeyError):
        return "another process"
