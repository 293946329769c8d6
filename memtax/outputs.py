"""Output directories: one holder at a time, under any name, and only memtax's own files are modified.

The hidden file `.memtax` marks a directory as memtax's and serves as its lock: every writer locks that file, so symlinks, bind
mounts, relative names and letter case lead to the same lock.
"""

import contextlib
import fcntl
import itertools
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from memtax import journal, mounts
from memtax.errors import MemtaxError
from memtax.journal import INHERITED, MARKER
from memtax.records import open_file

LISTING = ".memtax-files"
"""List of the files that memtax wrote into a directory; all others belong to the user."""
REPLACED = ".replaced"
"""Where a temporary directory keeps the directory that it replaces."""
_FIRST_LINE = b'{"memtax": "output"}\n'

_holds: "list[_Hold]" = []
_wait = False
_late: contextlib.ExitStack | None = None


def set_wait(wait: bool) -> None:
    """Make `hold_job` wait for another holder to finish (`--wait`), instead of failing."""
    global _wait
    _wait = wait


@contextlib.contextmanager
def hold_job(output: Path | str, command: str) -> Iterator[None]:
    """Hold the output of a job, in its first process for all; a job inside a held output shares its hold.

    Raises:
        MemtaxError: see `hold`.
    """
    if held_around(output):
        yield
    elif os.environ.get("RANK", "0") != "0":
        with share(output):
            yield
    else:
        with hold(output, command, _wait):
            yield


def held_around(output: Path | str) -> list[Path]:
    """The directories held by this process that are a directory or around it."""
    root = Path(os.path.realpath(output))
    return [hold.root for hold in _holds if any(mounts.is_same(hold.root, folder) for folder in (root, *root.parents))]


@contextlib.contextmanager
def hold(output: Path | str, command: str, wait: bool = False) -> Iterator[None]:
    """Hold an output directory, so that no other run writes into it, a parent or a subdirectory.

    The system releases the lock when the holder dies, so a leftover file locks nothing. Half-written files of a killed holder
    are removed at the first write, so a run that rejects the directory changes nothing in it.

    Args:
        output: the directory; it is created if missing, and removed again if nothing is written.
        command: name of this run in error messages.
        wait: wait for the holder to finish instead of failing.

    Raises:
        MemtaxError: another run holds the directory, or it contains files but none of memtax.
    """
    held = _Hold.take(Path(output), wait)
    used = False
    try:
        words = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        os.ftruncate(held.handle, 0)
        os.pwrite(held.handle, _FIRST_LINE + json.dumps({**words, "command": command}).encode(), 0)
        before = os.environ.get(INHERITED)
        os.environ[INHERITED] = str(held.root)
        _holds.append(held)
        journal.before_writing.append(held.sweep)
        held.recover()
        try:
            yield
            held.sweep()
        finally:
            used = journal.current().used
            journal.current().close()
            _holds.remove(held)
            journal.before_writing.remove(held.sweep)
            _restore(before)
    finally:
        held.release(used)


@contextlib.contextmanager
def holding() -> Iterator[None]:
    """For scripts that learn their output directory late: locks taken by `hold_late` inside are released at the end."""
    global _late
    before = _late
    with contextlib.ExitStack() as stack:
        _late = stack
        try:
            yield
        finally:
            _late = before


def hold_late(output: Path | str, command: str) -> None:
    """Hold a directory until `holding` ends.

    Does nothing outside of `holding`, inside a directory that is already held, and in further processes of a job.

    Raises:
        MemtaxError: as `hold`.
    """
    if _late is not None and INHERITED not in os.environ and os.environ.get("RANK", "0") == "0":
        _late.enter_context(hold(output, command))


@contextlib.contextmanager
def read_job(output: Path | str) -> Iterator[None]:
    """Like `read`, waiting if `set_wait` is on."""
    with read(output, _wait):
        yield


@contextlib.contextmanager
def share(output: Path | str) -> Iterator[None]:
    """Declare that another process of this job holds `output` for this process too."""
    before = os.environ.get(INHERITED)
    os.environ[INHERITED] = os.path.realpath(output)
    try:
        yield
    finally:
        journal.current().close()
        _restore(before)


@contextlib.contextmanager
def read(output: Path | str, wait: bool = False) -> Iterator[None]:
    """Prevent writes to a directory while it is read, without changing anything in it.

    Raises:
        MemtaxError: a writing run holds the directory.
    """
    output = Path(output)
    with contextlib.ExitStack() as locks:
        for handle in _lock_above(Path(os.path.realpath(output)), wait, output):
            locks.callback(os.close, handle)
        if is_marked(output):
            with contextlib.suppress(PermissionError):
                locks.callback(os.close, _lock(output, fcntl.LOCK_SH, wait, output))
        _refuse_inside(output, wait, output)
        yield


def _restore(before: str | None) -> None:
    os.environ.pop(INHERITED)
    if before is not None:
        os.environ[INHERITED] = before


@dataclass
class _Hold:
    """A lock on an output directory.

    Attributes:
        root: the directory's real path.
        handle: the open and locked marker.
        above: the open markers of parent directories that are outputs too, locked in shared mode.
        made: the directories created for it, innermost first.
        marked: whether the marker was created for it, in a directory that already contained files.
    """

    root: Path
    handle: int
    above: list[int]
    made: list[Path]
    marked: bool
    pid: int = field(default_factory=os.getpid)
    swept: bool = False

    @classmethod
    def take(cls, output: Path, wait: bool) -> "_Hold":
        """Lock a directory; see `hold`."""
        root = Path(os.path.realpath(output))
        made = list(itertools.takewhile(lambda path: not os.path.lexists(path), (root, *root.parents)))
        root.mkdir(parents=True, exist_ok=True)
        above: list[int] = []
        try:
            marked = not is_own(root)
            # Lock from the top down, then the directory itself, so that two runs cannot wait for each other.
            above.extend(_lock_above(root, wait, output))
            held = cls(root, _lock(root, fcntl.LOCK_EX, wait, output), above, made, marked)
        except BaseException:
            for handle in above:
                os.close(handle)
            _remove_empty(made)
            raise
        try:
            # Runs inside that started before this directory was marked, or that see no parent of theirs.
            _refuse_inside(root, wait, output)
        except BaseException:
            held.release(False)
            raise
        return held

    def release(self, used: bool) -> None:
        """Release the lock. The marker stays, unless the run left nothing in an existing directory."""
        others = [name for name in os.listdir(self.root) if name != MARKER] if self.root.is_dir() else []
        with contextlib.suppress(OSError):
            os.ftruncate(self.handle, len(_FIRST_LINE))
            # Remove the name before the lock, so that waiting runs see it is gone and create a new file.
            if not others or (self.marked and not used):
                (self.root / MARKER).unlink()
        os.close(self.handle)
        for handle in self.above:
            os.close(handle)
        _remove_empty(self.made)

    def recover(self) -> None:
        """Restore the directories that a killed process had moved away to replace them."""
        for path in itertools.chain(*journal.abandoned(self.root).values()):
            for former in (path / REPLACED).glob("*"):
                if not os.path.lexists(path.parent / former.name):
                    os.replace(former, path.parent / former.name)

    def sweep(self) -> None:
        """Remove half-written files of dead processes, from their journals."""
        if self.swept or self.pid != os.getpid():
            return
        self.swept = True
        for record, paths in journal.abandoned(self.root).items():
            for path in paths:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
            record.unlink(missing_ok=True)


def _lock_above(root: Path, wait: bool, output: Path) -> Iterator[int]:
    """Lock the markers of the parents of a real path, under each of its names, in shared mode."""
    for folder in mounts.above(root):
        if os.path.isfile(folder / MARKER) and is_marked(folder):
            with contextlib.suppress(PermissionError):
                yield _lock(folder, fcntl.LOCK_SH, wait, output)


def _refuse_inside(root: Path, wait: bool, output: Path) -> None:
    """Reject a directory with a run inside it, or wait for that run.

    Raises:
        MemtaxError: a directory inside it is in use.
    """
    while (inner := held_inside(root, root)) is not None:
        if not wait:
            raise MemtaxError(
                f"{inner}, which is inside {output}, is in use by another run; wait for it (memtax --wait ...) or choose "
                "another output"
            )
        time.sleep(0.2)


def _lock(folder: Path, kind: int, wait: bool, output: Path) -> int:
    """Lock a directory's marker, creating it for exclusive locks; returns the open file."""
    path = folder / MARKER
    while True:
        flags = os.O_RDWR | os.O_CREAT if kind == fcntl.LOCK_EX else os.O_RDONLY
        try:
            handle = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:
            if kind == fcntl.LOCK_SH:  # A holder that wrote nothing removed it, so there is nothing to share.
                return os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            # The previous holder removed the directory.
            folder.mkdir(parents=True, exist_ok=True)
            continue
        try:
            fcntl.flock(handle, kind if wait else kind | fcntl.LOCK_NB)
            # The previous holder may have removed the file before it was locked here.
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except BlockingIOError:
            inside = "" if kind == fcntl.LOCK_EX else f" is inside {folder}, which"
            message = (
                f"{output}{inside} is in use by {_holder(handle)}; wait for it (memtax --wait ...) or choose another output"
            )
            os.close(handle)
            raise MemtaxError(message) from None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _holder(handle: int) -> str:
    """Description of the holder in a locked marker."""
    try:
        held = json.loads(os.pread(handle, 4096, len(_FIRST_LINE)).decode())
        return f"process {held['pid']} on {held['host']} since {held['since']} ({held['command']})"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another run, on this directory or one inside it"


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def is_marked(folder: Path) -> bool:
    """Whether a directory has memtax's marker, and not another file of that name."""
    try:
        with open(os.open(folder / MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            start = file.read(len(_FIRST_LINE))
    except OSError:
        return False
    return start in (b"", _FIRST_LINE)


def is_own(folder: Path) -> bool:
    """Whether a directory is marked as memtax's.

    Raises:
        MemtaxError: it contains files, but neither a marker nor a record of memtax.
    """
    if is_marked(folder):
        return True
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:  # Another run removed it.
        names = []
    if names and not _has_record(folder):
        few = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise MemtaxError(
            f"{folder} contains files that are not memtax's ({few}); choose a new or empty directory as the output, "
            "or one that memtax wrote"
        )
    return not names


def _has_record(folder: Path) -> bool:
    """Whether a directory has a verb's output files (earlier versions and Python functions leave no marker)."""
    stages = itertools.islice(itertools.chain(folder.glob("stage.json"), folder.glob("*/stage.json")), 20)
    if any(_starts(path, rb"\s*\{") for path in stages):
        return True
    records = {
        "run.yaml": rb"memtax: \w+\s",
        "training.json": rb'\s*\{\s*"data": "',
        "predictor.json": rb'\s*\{\s*"memtax_predictor":',
        "metrics.json": rb'\s*\{\s*"(run|extraction)":',
        "audit.json": rb'\s*\{\s*"schema": "memtax',
        "summary.json": rb'\s*\{\s*"schema": "memtax-summary',
        "comparison.json": rb'\s*\{\s*"schema": "memtax',
    }
    if any(_starts(folder / name, start) for name, start in records.items()):
        return True
    return (folder / "totals.json").is_file() and (folder / "token_frequencies.parquet").is_file()


def _starts(path: Path, pattern: bytes) -> bool:
    try:
        with open_file(path) as file:
            return re.match(pattern, file.read(200)) is not None
    except OSError:
        return False


def held_inside(folder: Path, own: Path | None = None) -> Path | None:
    """A directory at or below `folder` that another run holds, or None; `own` is one that this process holds."""
    owned = [hold.root for hold in _holds] + ([] if own is None else [own])
    for path in folder.rglob(MARKER):
        if path.is_symlink() or not os.path.isfile(path) or any(mounts.is_same(root, path.parent) for root in owned):
            continue
        with contextlib.suppress(FileNotFoundError, PermissionError):
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return path.parent
            finally:
                os.close(handle)
    return None
