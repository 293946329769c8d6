"""Windows indexed for near-duplicates: positions that differ in at most e tokens (Hamming distance), counted exactly.

Cost: one look-up per corpus token and, for each position whose segment occurs in a window, one comparison of w tokens per
window with that segment. In natural text, segments are rarely shared. The worst case, in which all windows share a segment
that fills the corpus, is bounded by (distinct texts around that segment in a block) x (windows that share it): equal
positions in a block are verified once, so a repeated token, a short period or a repeated document stay cheap. A segment that
fewer than `near_kernels.HEAVY` windows share is not worth that: each position then costs at most that many comparisons.
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
    """The windows of one length for one e; counterpart of `WindowIndex`."""

    def __init__(self, windows: npt.NDArray[np.int32], substitutions: int, separator: int | None = None) -> None:
        """Store the windows.

        Args:
            windows: shape (n, w).
            substitutions: e, from 0 to w - 1.
            separator: token that near-duplicates must not contain; None for no separator.

        Raises:
            MemtaxError: e is not between 0 and w - 1.
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
        """Number of distinct windows, the length of `found`."""
        return len(self._windows)

    def scan(self, block: Block, found: npt.NDArray[np.int64]) -> None:
        """Add a block's near-duplicates to `found`, shape (size)."""
        if not self.size:
            return
        if block.tokens.dtype == np.uint16 and int(self._windows.max()) > 0xFFFF:
            # Such an id is always a substitution, but the comparison needs a dtype that can hold it.
            block = replace(block, tokens=block.tokens.astype(np.int32))
        dtype = block.tokens.dtype
        with self._lock:
            if dtype not in self._tables:
                self._tables[dtype] = _segments(self._windows, dtype, self._substitutions, self._separator)
            index = self._tables[dtype]
        near_kernels.scan_near(read_only(block.tokens), block.offsets, index, found)

    def counts(self, found: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Near-duplicates of each requested window, shape (n), from the summed `found`."""
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
