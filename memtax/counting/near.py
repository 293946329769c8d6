"""Windows indexed for near-duplicates: places of the corpus that differ in at most e tokens (Hamming), counted exactly.

Cost: one look-up a token of the corpus, and for each place whose segment is among those of the windows one comparison of w
tokens a window that has it. On natural text segments are rarely shared. The worst case, windows that all share a segment
which fills the corpus, is bounded by (different texts around that segment in a block of the corpus) x (windows that share it):
equal places of a block are verified once, so one token repeated, a short period, or a document repeated, stay cheap. A segment
that fewer windows share than `near_kernels.HEAVY` is not worth that: each place then costs at most so many comparisons.
"""

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from memtax.corpus.contract import Block
from memtax.counting import near_kernels
from memtax.counting.index import on_lines, read_only
from memtax.counting.kernels import FREE
from memtax.counting.near_kernels import Segments
from memtax.errors import MemtaxError


class NearIndex:
    """The windows of one length and e; counterpart of `WindowIndex`."""

    def __init__(self, windows: npt.NDArray[np.int32], substitutions: int, separator: int | None = None) -> None:
        """Keep the windows.

        Args:
            windows: shape (n, w).
            substitutions: e, from 0 to w - 1.
            separator: places that hold this token do not count; None for no such token.

        Raises:
            MemtaxError: e does not fit w.
        """
        width = windows.shape[1]
        if len(windows) and not 0 <= substitutions < width:
            raise MemtaxError(f"{substitutions} substitutions do not fit windows of {width} tokens; use 0 to {width - 1}")
        self._separator = -1 if separator is None else separator
        self._substitutions = substitutions
        # Equal windows share one count.
        self._windows, self._owners = np.unique(windows, axis=0, return_inverse=True)
        self._owners = self._owners.reshape(-1)
        self._tables: dict[np.dtype[Any], Segments] = {}
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Number of different windows: entries of `found`."""
        return len(self._windows)

    def scan(self, block: Block, found: npt.NDArray[np.int64]) -> None:
        """Add a block's near-duplicates to `found`, shape (size)."""
        if not self.size:
            return
        if block.tokens.dtype == np.uint16 and int(self._windows.max()) > 0xFFFF:
            # Such an id is always a substitution, but the comparison must be able to hold it.
            block = replace(block, tokens=block.tokens.astype(np.int32))
        dtype = block.tokens.dtype
        with self._lock:
            if dtype not in self._tables:
                self._tables[dtype] = _segments(self._windows, dtype, self._substitutions, self._separator)
            index = self._tables[dtype]
        near_kernels.scan_near(read_only(block.tokens), block.offsets, index, found)

    def counts(self, found: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Near-duplicates of each window asked for, shape (n), from the sum of what `scan` found."""
        if self._separator >= 0 and self.size:
            found = np.where((self._windows == self._separator).any(axis=1), 0, found)
        return found[self._owners]


def _segments(windows: npt.NDArray[np.int32], dtype: "np.dtype[Any]", substitutions: int, separator: int) -> Segments:
    """Segments of the windows, by hash."""
    width = windows.shape[1]
    segments = substitutions + 1
    starts = np.arange(segments, dtype=np.int64) * width // segments
    length = width // segments
    lines = read_only(on_lines(windows, dtype))
    hashes = np.empty((len(lines), segments), np.uint64)
    out = np.empty(1, np.uint64)
    for segment, start in enumerate(starts):
        near_kernels.window_segments(lines.reshape(-1), width, int(start), length, hashes[:, segment], out)
    order = np.argsort(hashes.reshape(-1), kind="stable")
    keys, first = np.unique(hashes.reshape(-1)[order], return_index=True)
    entry_bits = substitutions.bit_length()
    entries = (order // segments << entry_bits | order % segments).astype(np.int64)
    table_bits = max(2, (2 * len(keys)).bit_length())
    bloom_bits = max(1, (len(keys) // 4).bit_length())
    table, table_shift = np.full(1 << table_bits, FREE, np.uint64), np.uint64(64 - table_bits)
    bloom, bloom_shift = np.zeros(1 << bloom_bits, np.uint64), np.uint64(64 - bloom_bits)
    near_kernels.build_table(keys, table, table_shift, bloom, bloom_shift)
    return Segments(
        lines,
        starts,
        length,
        substitutions,
        separator,
        keys,
        np.append(first, len(order)).astype(np.int64),
        entries,
        entry_bits,
        table,
        table_shift,
        bloom,
        bloom_shift,
    )
