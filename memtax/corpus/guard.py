"""Checks of a file before a reader opens it: some contents exhaust the memory or crash the process."""

import codecs
import functools
import mmap
import re
from pathlib import Path

from memtax.corpus import formats
from memtax.corpus.nesting import Nesting
from memtax.errors import MemtaxError

LONGEST_LINE = 1 << 28
"""Maximum bytes per line in compressed files: a small file may decompress to more than fits into memory."""

BOMB = 100
"""Maximum decompression ratio, checked once the output exceeds the limit for a line; text and numbers reach 3 to 10."""

DEEPEST = 100
"""Maximum nesting depth of JSON: readers are recursive, and a stack overflow kills the process."""

_PIECE = 1 << 20
_NULL = re.compile(rb"\n[ \t\r]*null")
_FIRST_NULL = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:\[\s*)?null")


def check(path: Path) -> None:
    """Reject a file that would crash a reader.

    A JSON line `null` (instead of an object) at the start of a block crashes Arrow's reader, as does unlimited nesting; the
    reader also accepts bytes that are not UTF-8. A file that decompresses to a line longer than `LONGEST_LINE`, or at an
    implausible ratio, would exhaust the memory. Files that are neither JSON, text nor compressed are not checked.

    Raises:
        MemtaxError: the file is rejected.
        OSError: the file cannot be read.
    """
    kind = formats.extension(path)
    if path.suffix in formats.COMPRESSED or kind in (".jsonl", ".json"):
        status = path.stat()
        _check(path, kind, LONGEST_LINE, (status.st_size, status.st_mtime_ns))


@functools.lru_cache(maxsize=4096)
def _check(path: Path, kind: str, most: int, stamp: tuple[int, int]) -> None:
    if path.suffix in formats.COMPRESSED:
        _unpack(path, kind, most, stamp[0])
    elif stamp[0]:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            # Lines of a JSON document that is not JSON lines may start with a value.
            by_lines = kind == ".jsonl" or mapped[:_PIECE].partition(b"\n")[0].rstrip().endswith(b"}")
            if _FIRST_NULL.match(mapped) or (by_lines and _NULL.search(mapped)):
                raise _no_object(path)
            nesting, text = Nesting(), _Utf8(path)
            for start in range(0, stamp[0], _PIECE):
                piece = mapped[start : start + _PIECE]
                _refuse_deep(nesting.read(piece), path)
                text.read(piece)
            text.read(b"", final=True)


def _unpack(path: Path, kind: str, most: int, size: int) -> None:
    line = total = 0
    tail = b""
    nesting, text = Nesting(), _Utf8(path)
    with formats.open_bytes(path) as file:
        while piece := file.read(_PIECE):
            if kind in (".jsonl", ".json") and not total and _FIRST_NULL.match(piece):
                raise _no_object(path)
            if kind == ".jsonl" and _NULL.search(tail + piece):
                raise _no_object(path)
            if kind in (".jsonl", ".json"):
                _refuse_deep(nesting.read(piece), path)
                text.read(piece)
            tail, total = piece[-16:], total + len(piece)
            # A text file is one document, regardless of its lines.
            ends = piece.rfind(b"\n") if kind == ".jsonl" else -1
            line = len(piece) - 1 - ends if ends >= 0 else line + len(piece)
            if kind in (".jsonl", ".txt") and line > most:
                raise MemtaxError(f"{path} decompresses to a line or document of more than {most:,} bytes; split it into rows")
            if kind not in (".jsonl", ".txt") and total > max(most, BOMB * size):
                raise MemtaxError(f"{path} decompresses to more than {BOMB} times its size; if you trust it, decompress it")


class _Utf8:
    """Rejects bytes that are not UTF-8: Arrow's JSON reader accepts them, but decoding the text fails later."""

    def __init__(self, path: Path) -> None:
        self._path, self._decoder, self._before = path, codecs.getincrementaldecoder("utf-8")(), 0

    def read(self, piece: bytes, final: bool = False) -> None:
        waiting = len(self._decoder.getstate()[0])
        try:
            self._decoder.decode(piece, final)
        except UnicodeDecodeError as error:
            at = self._before - waiting + error.start
            raise MemtaxError(
                f"{self._path} cannot be read: byte offset {at} is not UTF-8 ({error.reason}); convert it, or drop that row"
            ) from error
        self._before += len(piece)


def _refuse_deep(levels: int, path: Path) -> None:
    if levels > DEEPEST:
        raise MemtaxError(f"{path} is nested deeper than {DEEPEST} levels, as no real data is; drop that row")


def _no_object(path: Path) -> MemtaxError:
    return MemtaxError(f"{path} has a null row instead of an object; drop that line")
