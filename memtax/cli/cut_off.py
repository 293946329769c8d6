"""A mapped file that is cut off while it is read: one line that names it, instead of a process that is gone without a word."""

import ctypes
import os
import re
import signal
import sys
from collections.abc import Iterator

_MAP = re.compile(r"(?P<start>\w+)-(?P<end>\w+) (?P<may>\S+) (?P<offset>\w+) \S+ (?P<inode>\d+) +(?P<path>/.*)")

_kept: list[object] = []
"""The handler, as long as the system knows its address."""


def answer() -> None:
    """End the process by one line where a page of a mapped file is gone (SIGBUS).

    Corpora, Parquet files and weights are mapped. Where such a file shrinks, the next touch of the lost pages raises SIGBUS,
    which a handler of Python's own never sees: it would run after the instruction that cannot be finished. This one is the
    system's, so it runs at that instruction, in whichever thread; it must not return.
    """
    if sys.platform != "linux" or _kept:
        return
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(_end)
    _kept.append(handler)
    libc = ctypes.CDLL(None)
    libc.signal.restype = ctypes.c_void_p
    libc.signal(signal.SIGBUS, handler)


def _end(number: int) -> None:
    from memtax.progress import printable

    try:
        lost = "; ".join(f"{path} was cut off at byte offset {size} while it was read" for path, size in shrunk())
    except Exception:  # nothing may pass through a handler of the system's
        lost = ""
    line = lost or "the system could not read a page of a mapped file (SIGBUS): an error of the disk or the network"
    os.write(2, f"\nmemtax: {printable(line)}; bring it back and run the same command again\n".encode(errors="replace"))
    os._exit(2)


def shrunk() -> Iterator[tuple[str, int]]:
    """Mapped files of this process that end before the map does: path and size in bytes."""
    needed, code, page = dict[str, int](), set[str](), os.sysconf("SC_PAGESIZE")
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for each in filter(None, map(_MAP.match, maps)):
            path = each["path"]
            if "x" in each["may"]:
                code.add(path)
            # A file of another inode has taken the name of the one that is mapped.
            if os.path.exists(path) and os.stat(path).st_ino == int(each["inode"]):
                end = int(each["offset"], 16) + int(each["end"], 16) - int(each["start"], 16)
                needed[path] = max(end, needed.get(path, 0))
    for path, end in needed.items():
        size = os.stat(path).st_size
        # Libraries are mapped beyond their end; and the last page of any file may be partly beyond.
        if path not in code and size + page <= end:
            yield path, size
