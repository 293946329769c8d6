"""One-line errors for mapped files that are truncated while they are read, instead of a silent crash."""

import ctypes
import os
import re
import signal
import sys
from collections.abc import Iterator

_MAP = re.compile(r"(?P<start>\w+)-(?P<end>\w+) (?P<may>\S+) (?P<offset>\w+) \S+ (?P<inode>\d+) +(?P<path>/.*)")

_kept: list[object] = []
"""The handler, kept alive while the system has its address."""


def answer() -> None:
    """End the process with one line if a page of a mapped file is missing (SIGBUS).

    Corpora, Parquet files and weights are mapped. If such a file shrinks, the next access to the missing pages raises SIGBUS,
    which a Python handler never sees: it would run after the instruction that cannot finish. This native handler runs at that
    instruction, in whichever thread; it must not return.
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
        lost = "; ".join(f"{path} was truncated to {size} bytes while it was read" for path, size in shrunk())
    except Exception:  # nothing may escape from a signal handler
        lost = ""
    line = lost or "the system could not read a page of a mapped file (SIGBUS), an error of the disk or the network"
    os.write(2, f"\nmemtax: {printable(line)}; restore it and run the same command again\n".encode(errors="replace"))
    os._exit(2)


def shrunk() -> Iterator[tuple[str, int]]:
    """Mapped files of this process that end before their mapping: path and size in bytes."""
    needed, code, page = dict[str, int](), set[str](), os.sysconf("SC_PAGESIZE")
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for each in filter(None, map(_MAP.match, maps)):
            path = each["path"]
            if "x" in each["may"]:
                code.add(path)
            # Another file (inode) now has the name of the mapped one.
            if os.path.exists(path) and os.stat(path).st_ino == int(each["inode"]):
                end = int(each["offset"], 16) + int(each["end"], 16) - int(each["start"], 16)
                needed[path] = max(end, needed.get(path, 0))
    for path, end in needed.items():
        size = os.stat(path).st_size
        # Libraries are mapped beyond their end, and the last page of any file may be partly beyond.
        if path not in code and size + page <= end:
            yield path, size
