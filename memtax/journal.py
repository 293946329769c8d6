"""Temporary directories whose names and journals prove which process created them.

Before a process creates anything temporary in or next to an output directory, it writes the name to
`.memtax-PID-TOKEN.journal` there, a file that it keeps locked while it runs. The next holder of the directory removes
what the journals of dead processes list, and nothing else.
"""

import atexit
import contextlib
import fcntl
import itertools
import json
import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

MARKER = ".memtax"
"""Marks an output directory as memtax's; the lock of its holder. See `memtax.outputs`."""
INHERITED = "MEMTAX_OUTPUT"
"""Environment variable with the output directory that this process, or its parent, holds."""
_TEMPORARY = re.compile(r"\..*\.memtax-(?P<pid>\d+)-(?P<token>[0-9a-f]{16})-\d+\.tmp", re.DOTALL)
_JOURNAL = re.compile(r"\.memtax-(?P<pid>\d+)-(?P<token>[0-9a-f]{16})\.journal")
_LONGEST = 100
"""Number of characters of a file's name that its temporary name repeats."""

before_writing: list[Callable[[], None]] = []
"""Functions called before something temporary is created; holders of output directories then clean up."""


@dataclass
class _Journal:
    """This process's list of temporary names in one output directory.

    Attributes:
        root: the output directory.
        pid: id of the process; a fork needs its own journal.
        token: part of each temporary name.
        handle: the open and locked file; None outside a held output directory.
    """

    root: Path | None
    pid: int
    token: str
    handle: int | None = None
    live: int = 0
    used: bool = False
    numbers: Iterator[int] = field(default_factory=itertools.count)
    guard: threading.Lock = field(default_factory=threading.Lock)

    @property
    def path(self) -> Path:
        assert self.root is not None
        return self.root / f".memtax-{self.pid}-{self.token}.journal"

    def add(self, directory: Path, label: str) -> Path:
        """A temporary name in `directory`, recorded before anything with that name can exist."""
        path = directory / f".{label[:_LONGEST]}.memtax-{self.pid}-{self.token}-{next(self.numbers)}.tmp"
        relative = None if self.root is None else _relative(path, self.root)
        # Contents of another temporary directory are removed with it.
        inside = relative is not None and any(is_temporary(part) for part in Path(relative).parts[:-1])
        with self.guard:
            if relative is not None and not inside and (handle := self._opened()) is not None:
                self.used = True
                os.write(handle, (json.dumps(relative) + "\n").encode())
            self.live += 1
        return path

    def remove(self) -> None:
        """Record that a temporary name was removed."""
        with self.guard:
            self.live -= 1
            if self.live == 0 and self.handle is not None:
                os.ftruncate(self.handle, 0)

    def _opened(self) -> int | None:
        while self.handle is None and self.root is not None and (self.root / MARKER).exists():
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            fcntl.flock(handle, fcntl.LOCK_EX)
            # Before it was locked, the holder may have mistaken it for a dead process's journal.
            if self.path.exists() and os.path.samestat(os.fstat(handle), self.path.stat()):
                self.handle = handle
                atexit.register(self.close)
            else:
                os.close(handle)
        return self.handle

    def close(self) -> None:
        """Remove the file, unless something that it lists may still exist."""
        if self.handle is not None and self.pid == os.getpid():
            if self.live == 0:
                self.path.unlink(missing_ok=True)
            os.close(self.handle)
            self.handle = None


_journal: _Journal | None = None


def current() -> _Journal:
    """The journal of this process."""
    global _journal
    root = Path(os.environ[INHERITED]) if os.environ.get(INHERITED) else None
    if _journal is None or _journal.pid != os.getpid() or _journal.root != root:
        if _journal is not None:
            _journal.close()
        _journal = _Journal(root, os.getpid(), secrets.token_hex(8))
    return _journal


def _relative(path: Path, root: Path) -> str | None:
    """Relative path to the output directory, for paths in it or next to it; None for others."""
    for name in (os.path.abspath(path), os.path.join(os.path.realpath(path.parent), path.name)):
        relative = os.path.relpath(name, root)
        if not relative.startswith("../") or relative == f"../{path.name}":
            return relative
    return None


@contextlib.contextmanager
def temporary_directory(beside: Path) -> Iterator[Path]:
    """Yield a new directory next to a path, private to this process; it is removed at the end, even if the process is killed.

    Its name contains memtax, process id and token, which the output directory's journal confirms.
    """
    for prepare in list(before_writing):
        prepare()
    journal = current()
    path = journal.add(beside.parent, beside.name)
    try:
        path.mkdir(0o700)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        journal.remove()


def is_temporary(name: str) -> bool:
    """Whether a file name has the format used by `temporary_directory`."""
    return _TEMPORARY.fullmatch(name) is not None


def abandoned(root: Path) -> dict[Path, list[Path]]:
    """The journals of dead processes in an output directory, each with the temporary directories that it lists."""
    found = {}
    for journal in sorted(root.glob(f"{MARKER}-*.journal")):
        named = _JOURNAL.fullmatch(journal.name)
        if named is None or journal.is_symlink() or not journal.is_file():
            continue
        with journal.open(encoding="ascii", errors="replace") as lines:
            try:
                fcntl.flock(lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # Its process is alive.
                continue
            found[journal] = [root / name for line in lines if (name := _named(line, named)) is not None]
    return found


def _named(line: str, journal: "re.Match[str]") -> str | None:
    """The path in a line of a journal; None unless the journal's own process can have created it."""
    try:
        name = json.loads(line)
    except (ValueError, RecursionError):  # The last line of a killed process may be incomplete.
        return None
    if not isinstance(name, str) or "\0" in name:
        return None
    path = Path(name)
    made = _TEMPORARY.fullmatch(path.name)
    beside = name == f"../{path.name}"
    if made is None or made.groups() != journal.groups() or path.is_absolute() or (".." in path.parts and not beside):
        return None
    return name
