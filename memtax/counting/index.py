"""Index of the requested windows for exact counting, one for each token dtype of the corpus."""

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from memtax.corpus.contract import Block
from memtax.counting import kernels
from memtax.counting.places import NOWHERE, Where
from memtax.errors import MemtaxError

Windows = npt.NDArray[np.int32]

Int64 = npt.NDArray[np.int64]

LINE = 64
"""Bytes per cache line."""


def checked_windows(windows: npt.NDArray[Any] | None, vocabulary_size: int | None) -> Windows:
    """Windows as a contiguous int32 matrix; None gives shape (0, 1).

    Raises:
        MemtaxError: the windows are not a matrix of token ids in the vocabulary.
    """
    if windows is None:
        return np.empty((0, 1), np.int32)
    windows = np.asarray(windows)
    if windows.ndim != 2 or windows.shape[1] < 1 or not np.issubdtype(windows.dtype, np.integer):
        raise MemtaxError(f"windows must be a matrix of integers with at least one column, got {windows.dtype} {windows.shape}")
    limit = min(vocabulary_size or 2**31, 2**31)
    if windows.size and (int(windows.min()) < 0 or int(windows.max()) >= limit):
        row, column = (int(i) for i in np.argwhere((windows < 0) | (windows >= limit))[0])
        raise MemtaxError(
            f"token id {int(windows[row, column])} in window {row} is not in 0..{limit - 1}; was another tokenizer used?"
        )
    return np.ascontiguousarray(windows, np.int32)


def anchor_shape(width: int) -> tuple[int, int]:
    """Tokens per chunk (c) and chunks per anchor (k) for windows of `width` tokens: the largest c with two chunks, if any.

    An occurrence starts at most c - 1 tokens before a multiple of c, so w - c + 1 tokens remain for whole chunks.
    """
    for chunk in (8, 4, 2):
        if (width - chunk + 1) // chunk >= 2:
            return chunk, min(kernels.LARGEST_ANCHOR, (width - chunk + 1) // chunk)
    return 1, width


class WindowIndex:
    """Windows of one length, indexed for each token dtype on first use; threads can share it."""

    def __init__(self, windows: Windows, multiplier: int = kernels.MULTIPLIER, separator: int | None = None) -> None:
        """Store the windows.

        Args:
            windows: shape (n, w).
            multiplier: hash multiplier; any value gives the same counts (tests force collisions with 0).
            separator: token that windows must not contain to be counted; None for no separator.
        """
        self.windows = windows
        self._multiplier = multiplier
        self._separator = separator
        self._tables: dict[np.dtype[Any], _Tables] = {}
        self._lock = threading.Lock()

    def tables(self, dtype: "np.dtype[Any]") -> "_Tables":
        """The tables for one token dtype, built by the first thread that needs them."""
        with self._lock:
            if dtype not in self._tables:
                self._tables[dtype] = _Tables(self.windows, dtype, self._multiplier, self._separator)
            return self._tables[dtype]

    def scan(self, block: Block, frequencies: Int64, found: Int64, where: Where = NOWHERE) -> None:
        """Add a block's tokens to `frequencies` (vocabulary), and its window occurrences to `found` (n) and its places (n)."""
        self.tables(block.tokens.dtype).scan(block, frequencies, found, where)

    def counts(self, found: Int64) -> Int64:
        """Occurrences of each requested window, shape (n), from the summed `found`; equal windows share one entry."""
        return np.where(self.owners < 0, 0, found[self.owners])

    @property
    def owners(self) -> Int64:
        """The entry of each requested window, shape (n), which equal windows share; -1 for one that can never occur."""
        owners = np.full(len(self.windows), -1, np.int64)
        if not self._tables:
            # Another process did the scanning. Which windows are equal does not depend on the dtype.
            self.tables(np.dtype(np.int32))
        for tables in self._tables.values():
            rows = slice(None) if tables.rows is None else tables.rows
            # With both dtypes in a corpus, the wider one has the windows that the narrower one omits.
            owners[rows] = tables.owners if tables.rows is None else tables.rows[tables.owners]
        return owners


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A view that cannot be written through."""
    view = array.view()
    view.flags.writeable = False
    return view


def on_lines(windows: Windows, dtype: "np.dtype[Any]") -> npt.NDArray[Any]:
    """A copy of the windows aligned to a cache line: a row of 32 uint16 fills one line instead of parts of two."""
    room = np.empty(windows.size * dtype.itemsize + LINE, np.uint8)
    start = -room.ctypes.data % LINE
    copy = room[start : start + windows.size * dtype.itemsize].view(dtype).reshape(windows.shape)
    copy[...] = windows
    return copy


class _Tables:
    """Hash table and filter over the windows that can occur in a corpus of one token dtype."""

    def __init__(self, windows: Windows, dtype: "np.dtype[Any]", multiplier: int, separator: int | None) -> None:
        usable = np.ones(len(windows), np.bool_)
        if dtype == np.uint16 and windows.size and int(windows.max()) > 0xFFFF:
            usable &= (windows <= 0xFFFF).all(axis=1)
        if separator is not None:
            # A document contains no separator, so a window with one never occurs inside a document.
            usable &= (windows != separator).all(axis=1)
        self.rows = None if usable.all() else np.flatnonzero(usable)
        self._targets = np.zeros(0, np.int64) if self.rows is None else self.rows
        # Corpora are mapped read-only; making this read-only too, each loop is compiled once for both.
        self.windows = read_only(on_lines(windows if self.rows is None else windows[self.rows], dtype))
        n, width = self.windows.shape
        self.multiplier = np.uint64(multiplier)
        self.chunk, self.chunks = anchor_shape(width)
        # The table is at most half full. The filter has 16 to 32 bits per anchor: 0.1 to 0.5% false positives.
        table_bits = max(2, (2 * n).bit_length())
        bloom_bits = max(1, (n * self.chunk // 4).bit_length())
        self.table = np.full(1 << table_bits, 2**64 - 1, np.uint64)
        self.table_shift = np.uint64(64 - table_bits)
        self.bloom = np.zeros(1 << bloom_bits, np.uint64)
        self.bloom_shift = np.uint64(64 - bloom_bits)
        self.owners = np.empty(n, np.int32)
        kernels.build(
            self.windows,
            self.multiplier,
            self.chunk,
            self.chunks,
            self.owners,
            self.table,
            self.table_shift,
            self.bloom,
            self.bloom_shift,
        )

    def scan(self, block: Block, frequencies: Int64, found: Int64, where: Where) -> None:
        """See `WindowIndex.scan`."""
        kernels.scan(
            read_only(block.tokens),
            block.offsets,
            frequencies,
            self.windows,
            self.multiplier,
            self.chunk,
            self.chunks,
            self.table,
            self.table_shift,
            self.bloom,
            self.bloom_shift,
            self._targets,
            found,
            where,
        )
