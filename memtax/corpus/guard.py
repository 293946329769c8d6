"""What must be known of a file before a reader gets it: some contents take all memory or end the process."""

import codecs
import functools
import gzip
import mmap
import re
from pathlib import Path

from memtax.corpus.nesting import Nesting
from memtax.errors import MemtaxError

LONGEST_LINE = 1 << 28
"""Limit on the bytes of a line in compressed files: a small file may unpack to more than fits into memory."""

BOMB = 100
"""Times its own size to which a file may unpack once that is more than a line may have; text and numbers come to 3 to 10."""

DEEPEST = 100
"""Levels to which JSON may be nested: readers descend by recursion, and the process dies where the stack ends."""

_PIECE = 1 << 20
_NULL = re.compile(rb"\n[ \t\r]*null")
_FIRST_NULL = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:\[\s*)?null")


def check(path: Path) -> None:
    """Refuse a file that a reader could not survive.

    A line `null` of JSON (where an object belongs) at the start of a block crashes the process in Arrow's reader, and so does
    what is nested without end; bytes that are no UTF-8 it lets pass. What unpacks to a line beyond `LONGEST_LINE`, or like no
    data do, would take all memory. Files that are not JSON or text and not compressed are not looked at.

    Raises:
        MemtaxError: it is such a file.
        OSError: it cannot be read.
    """
    kind = Path(path.name.removesuffix(".gz")).suffix
    if path.suffix == ".gz" or kind in (".jsonl", ".json"):
        status = path.stat()
        _check(path, kind, LONGEST_LINE, (status.st_size, status.st_mtime_ns))


@functools.lru_cache(maxsize=4096)
def _check(path: Path, kind: str, most: int, stamp: tuple[int, int]) -> None:
    if path.suffix == ".gz":
        _unpack(path, kind, most, stamp[0])
    elif stamp[0]:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            # Lines of a JSON document that is no JSON lines may begin with a value.
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
    with gzip.open(path, "rb") as file:
        while piece := file.read(_PIECE):
            if kind in (".jsonl", ".json") and not total and _FIRST_NULL.match(piece):
                raise _no_object(path)
            if kind == ".jsonl" and _NULL.search(tail + piece):
                raise _no_object(path)
            if kind in (".jsonl", ".json"):
                _refuse_deep(nesting.read(piece), path)
                text.read(piece)
            tail, total = piece[-16:], total + len(piece)
            # A text file is one document, whatever its lines.
            ends = piece.rfind(b"\n") if kind == ".jsonl" else -1
            line = len(piece) - 1 - ends if ends >= 0 else line + len(piece)
            if kind in (".jsonl", ".txt") and line > most:
                raise MemtaxError(f"{path} unpacks to a line or document of more than {most:,} bytes; cut it into rows")
            if kind not in (".jsonl", ".txt") and total > max(most, BOMB * size):
                raise MemtaxError(f"{path} unpacks to more than {BOMB} times its size, as no data do; unpack it yourself")


class _Utf8:
    """Refuse bytes that are not UTF-8: Arrow's JSON reader accepts them, and decoding the text fails later."""

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
        raise MemtaxError(f"{path} is nested deeper than {DEEPEST} levels, as no data are; drop that row")


def _no_object(path: Path) -> MemtaxError:
    return MemtaxError(f"{path} has a row that is null where an object belongs; drop that line")
