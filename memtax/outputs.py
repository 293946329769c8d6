"""Output directories: one holder each, under whatever name, and only memtax's own files touched.

The hidden file `.memtax` marks a directory as memtax's and is its lock: whoever writes into the directory locks that file, so
that symlinks, bind mounts, relative names and letter case lead to the same lock.
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
"""Names of the files that memtax wrote into a directory; others in it are the user's."""
REPLACED = ".replaced"
"""Where a temporary directory keeps the directory that it replaces."""
_FIRST_LINE = b'{"memtax": "output"}\n'

_holds: "list[_Hold]" = []
_wait = False
_late: contextlib.ExitStack | None = None


def set_wait(wait: bool) -> None:
    """Let `hold_job` wait for another holder to end (`--wait`), instead of refusing."""
    global _wait
    _wait = wait


@contextlib.contextmanager
def hold_job(output: Path | str, command: str) -> Iterator[None]:
    """Hold the output of a job: the first of its processes does, for all; one inside an output that is held is held with it.

    Raises:
        MemtaxError: see `hold`.
    """
    root = Path(os.path.realpath(output))
    if any(mounts.is_same(hold.root, folder) for hold in _holds for folder in (root, *root.parents)):
        yield
    elif os.environ.get("RANK", "0") != "0":
        with share(output):
            yield
    else:
        with hold(output, command, _wait):
            yield


@contextlib.contextmanager
def hold(output: Path | str, command: str, wait: bool = False) -> Iterator[None]:
    """Hold an output directory, so that no second run writes into it, nor into one above or below it.

    The system frees the lock when the holder dies, however it dies: a file that was left behind holds nothing. What a killed
    holder left half-written is removed at the first write, so that a run that refuses the directory changes nothing in it.

    Args:
        output: the directory; it is made if it is not there, and removed again if nothing is written.
        command: how a refusal calls this run.
        wait: wait for the holder to end instead of refusing.

    Raises:
        MemtaxError: another run holds the directory, or it holds files and nothing of memtax.
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
    """For a script that learns its output directory late: what `hold_late` locks inside is free again at the end."""
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

    Outside of `holding`, inside a directory that is held already, and in further processes of a job, nothing is done.

    Raises:
        MemtaxError: as `hold`.
    """
    if _late is not None and INHERITED not in os.environ and os.environ.get("RANK", "0") == "0":
        _late.enter_context(hold(output, command))


@contextlib.contextmanager
def read_job(output: Path | str) -> Iterator[None]:
    """As `read`, and wait as `set_wait` says."""
    with read(output, _wait):
        yield


@contextlib.contextmanager
def share(output: Path | str) -> Iterator[None]:
    """Say that another process of this job holds `output`, for this process too."""
    before = os.environ.get(INHERITED)
    os.environ[INHERITED] = os.path.realpath(output)
    try:
        yield
    finally:
        journal.current().close()
        _restore(before)


@contextlib.contextmanager
def read(output: Path | str, wait: bool = False) -> Iterator[None]:
    """Keep others from writing into a directory while it is read. Nothing in it changes.

    Raises:
        MemtaxError: a run that writes holds the directory.
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
        above: the open markers of directories above it that are outputs too, locked together with other runs inside them.
        made: the directories that were made for it, innermost first.
        marked: whether the marker was made for it, in a directory that held files already.
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
            # From the top down, then the directory itself: two runs cannot wait for each other.
            above.extend(_lock_above(root, wait, output))
            held = cls(root, _lock(root, fcntl.LOCK_EX, wait, output), above, made, marked)
        except BaseException:
            for handle in above:
                os.close(handle)
            _remove_empty(made)
            raise
        try:
            # Runs inside that began before this directory was marked, or that see no directory above theirs.
            _refuse_inside(root, wait, output)
        except BaseException:
            held.release(False)
            raise
        return held

    def release(self, used: bool) -> None:
        """Free the lock. The marker stays, unless the run left nothing in a directory that it was given."""
        others = [name for name in os.listdir(self.root) if name != MARKER] if self.root.is_dir() else []
        with contextlib.suppress(OSError):
            os.ftruncate(self.handle, len(_FIRST_LINE))
            # First the name, then the lock: whoever waits finds the name gone and makes a new file.
            if not others or (self.marked and not used):
                (self.root / MARKER).unlink()
        os.close(self.handle)
        for handle in self.above:
            os.close(handle)
        _remove_empty(self.made)

    def recover(self) -> None:
        """Give back the directories that a killed process had moved away to replace them."""
        for path in itertools.chain(*journal.abandoned(self.root).values()):
            for former in (path / REPLACED).glob("*"):
                if not os.path.lexists(path.parent / former.name):
                    os.replace(former, path.parent / former.name)

    def sweep(self) -> None:
        """Remove what dead processes left half-written, by their journals."""
        if self.swept or self.pid != os.getpid():
            return
        self.swept = True
        for record, paths in journal.abandoned(self.root).items():
            for path in paths:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
            record.unlink(missing_ok=True)


def _lock_above(root: Path, wait: bool, output: Path) -> Iterator[int]:
    """Lock the markers of the directories above a real path, under each of its names, together with other runs inside them."""
    for folder in mounts.above(root):
        if os.path.isfile(folder / MARKER) and is_marked(folder):
            with contextlib.suppress(PermissionError):
                yield _lock(folder, fcntl.LOCK_SH, wait, output)


def _refuse_inside(root: Path, wait: bool, output: Path) -> None:
    """Refuse a directory with a run inside it, or wait for that.

    Raises:
        MemtaxError: one inside it is in use.
    """
    while (inner := held_inside(root, root)) is not None:
        if not wait:
            raise MemtaxError(
                f"{inner}, which is inside {output}, is in use by another run; wait for it (memtax --wait ...) or choose "
                "another output"
            )
        time.sleep(0.2)


def _lock(folder: Path, kind: int, wait: bool, output: Path) -> int:
    """Lock a directory's marker, which is made where the lock is exclusive; returns the open file."""
    path = folder / MARKER
    while True:
        flags = os.O_RDWR | os.O_CREAT if kind == fcntl.LOCK_EX else os.O_RDONLY
        try:
            handle = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:
            if kind == fcntl.LOCK_SH:  # A holder that wrote nothing has removed it; there is nothing to share.
                return os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            # The holder before removed the directory.
            folder.mkdir(parents=True, exist_ok=True)
            continue
        try:
            fcntl.flock(handle, kind if wait else kind | fcntl.LOCK_NB)
            # The holder before may have removed the file between our opening and locking it.
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
    """What a locked marker says of its holder."""
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
    """Whether a directory has memtax's marker; a file of that name that somebody else made is none."""
    try:
        with open(os.open(folder / MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            start = file.read(len(_FIRST_LINE))
    except OSError:
        return False
    return start in (b"", _FIRST_LINE)


def is_own(folder: Path) -> bool:
    """Whether a directory is marked as memtax's.

    Raises:
        MemtaxError: it holds files, and neither a marker nor a record of memtax.
    """
    if is_marked(folder):
        return True
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:  # Another run removed it again.
        names = []
    if names and not _has_record(folder):
        few = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise MemtaxError(
            f"{folder} holds files that are not memtax's ({few}); choose a new or empty directory as the output, "
            "or one that memtax wrote"
        )
    return not names


def _has_record(folder: Path) -> bool:
    """Whether a directory has what a verb writes into its output (earlier versions and Python functions leave no marker)."""
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
