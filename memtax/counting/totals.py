"""Requested windows, and partial sums that can be added in any order."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from memtax.corpus.contract import Block
from memtax.counting import kernels
from memtax.counting.index import WindowIndex, checked_windows, read_only
from memtax.counting.large_ids import DENSE, MOST_UNSTATED, LargeIds
from memtax.counting.places import FIELDS, NONE, NOWHERE, SHARD_BITS, Places, Where, empty, merge
from memtax.errors import MemtaxError

if TYPE_CHECKING:
    from memtax.counting.near import NearIndex

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """The result of a pass.

    Attributes:
        token_frequencies: shape (vocabulary), int64, occurrences of each token id below 2^24.
        window_counts: shape (windows), int64, occurrences of each window of the first (or only) matrix, in order.
        tokens: number of tokens read.
        sequences: number of sequences read.
        further: window counts for each further matrix.
        near: near-duplicates for each matrix of windows; empty if not requested.
        memorized_frequencies: shape (vocabulary), the part of `token_frequencies` from memorized sequences, if counted.
        large_ids: shape (n), the ids from 2^24 on that occur, ascending.
        large_frequencies: shape (n), their occurrences.
        large_memorized_frequencies: shape (n), the part from memorized sequences, if counted.
        places: first occurrences of the windows of each matrix, as in `memtax.counting.places`; empty if not requested.
        sources: number of a shard to its source, if places are requested.
    """

    token_frequencies: Int64
    window_counts: Int64
    tokens: int
    sequences: int
    further: tuple[Int64, ...] = ()
    near: tuple[Int64, ...] = ()
    memorized_frequencies: Int64 | None = None
    large_ids: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    large_frequencies: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    large_memorized_frequencies: Int64 | None = None
    places: tuple[Places, ...] = ()
    sources: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Query:
    """Windows counted in addition to tokens. Read-only and shared by all threads.

    Attributes:
        indexes: one index per matrix of windows.
        near: one index per matrix, if near-duplicates are requested.
        vocabulary_size: ids at or above it are rejected; None accepts any id.
        memorized: sorted ids of the sequences whose tokens are also counted separately; None counts all together.
        places: occurrences of each window to locate.
    """

    indexes: tuple[WindowIndex, ...] = ()
    near: "tuple[NearIndex, ...]" = ()
    vocabulary_size: int | None = None
    memorized: Int64 | None = None
    places: int = 0

    @classmethod
    def of(
        cls,
        windows: Sequence[npt.NDArray[Any]],
        *,
        vocabulary_size: int | None = None,
        separator: int | None = None,
        substitutions: int | None = None,
        memorized: npt.NDArray[np.int64] | Sequence[int] | None = None,
        multiplier: int = kernels.MULTIPLIER,
        places: int = 0,
    ) -> "Query":
        """Check and index the requested windows.

        Args:
            windows: (windows, tokens) token ids, one matrix per length.
            vocabulary_size: number of token ids to count, and limit of valid ids; None accepts any id.
            separator: token id that windows must not contain.
            substitutions: also count positions with up to this many tokens replaced.
            memorized: ids of sequences whose tokens are counted separately.
            multiplier: multiplier of the hash.
            places: occurrences of each window to locate.

        Raises:
            MemtaxError: a window is invalid, or the vocabulary is empty.
        """
        if vocabulary_size is not None and vocabulary_size < 1:
            raise MemtaxError(f"the vocabulary must have at least 1 token, got {vocabulary_size}")
        checked = [checked_windows(each, vocabulary_size) for each in windows]
        indexes = tuple(WindowIndex(each, multiplier, separator) for each in checked)
        near = () if substitutions is None else _near(checked, substitutions, separator)
        ids = None if memorized is None else np.unique(np.asarray(memorized, np.int64))
        return cls(indexes, near, vocabulary_size, ids, places)

    @property
    def size(self) -> int:
        """Total number of requested windows."""
        return sum(len(index.windows) for index in self.indexes)

    @property
    def entries(self) -> int:
        """Numbers that a thread keeps for the windows."""
        return self.size * (1 + FIELDS * self.places)


def _near(windows: Sequence[npt.NDArray[Any]], substitutions: int, separator: int | None) -> "tuple[NearIndex, ...]":
    from memtax.counting.near import NearIndex

    return tuple(NearIndex(each, substitutions, separator) for each in windows)


@dataclass
class Totals:
    """Sums that can be added in any order, kept on disk between runs, and converted to counts at the end.

    Attributes:
        frequencies: (1, vocabulary) occurrences of each token; a second row counts those in memorized sequences.
        found: (windows,) occurrences of each window, one array per length.
        near: the same with substitutions allowed; empty if not requested.
        tokens: number of tokens read.
        sequences: number of sequences read.
        places: first occurrences of each window, one set per length; see `memtax.counting.places`.
        sources: number of a shard to its source, if places are requested.
    """

    frequencies: Int64
    found: list[Int64]
    near: list[Int64]
    large: LargeIds
    tokens: int = 0
    sequences: int = 0
    places: list[Places] = field(default_factory=list)
    sources: dict[int, str] = field(default_factory=dict)

    @classmethod
    def zero(cls, query: Query) -> "Totals":
        """Totals of zero; frequencies have a second row for memorized sequences if those are counted separately."""
        groups = 1 if query.memorized is None else 2
        return cls(
            np.zeros((groups, min(query.vocabulary_size or 0, DENSE)), np.int64),
            [np.zeros(len(index.windows), np.int64) for index in query.indexes],
            [np.zeros(index.size, np.int64) for index in query.near],
            LargeIds.none(groups),
            places=[empty(len(index.windows), query.places) for index in query.indexes],
        )

    def add(self, other: "Totals") -> None:
        """Add the totals of another part of the corpus."""
        self.reserve(other.frequencies.shape[1])
        self.frequencies[:, : other.frequencies.shape[1]] += other.frequencies
        for mine, theirs in zip(self.found + self.near, other.found + other.near, strict=True):
            mine += theirs
        for places, others in zip(self.places, other.places, strict=True):
            merge(places, others)
        self.sources |= other.sources
        self.large.add(other.large.ids, other.large.counts)
        self.tokens += other.tokens
        self.sequences += other.sequences

    def clear(self) -> None:
        """Reset to zero in the same memory."""
        for array in (self.frequencies, *self.found, *self.near):
            array[...] = 0
        for places in self.places:
            places.order[...] = NONE
        self.sources.clear()
        self.large = LargeIds.none(len(self.frequencies))
        self.tokens = self.sequences = 0

    def reserve(self, size: int) -> None:
        """Allocate entries for ids below `size`."""
        if size > self.frequencies.shape[1]:
            grown = np.zeros((len(self.frequencies), size), np.int64)
            grown[:, : self.frequencies.shape[1]] = self.frequencies
            self.frequencies = grown

    def counts(self, query: Query) -> Counts:
        """The final counts. If the vocabulary size is unknown or too large for a table, it ends at the largest id seen."""
        every = self.frequencies.sum(axis=0)
        seen = np.flatnonzero(every)
        stated = query.vocabulary_size is not None and query.vocabulary_size <= DENSE
        size = query.vocabulary_size if stated else int(seen[-1]) + 1 if len(seen) else 0
        windows = [index.counts(found) for index, found in zip(query.indexes, self.found, strict=True)]
        return Counts(
            every[:size].copy(),
            windows[0] if windows else np.zeros(0, np.int64),
            self.tokens,
            self.sequences,
            tuple(windows[1:]),
            tuple(index.counts(found) for index, found in zip(query.near, self.near, strict=True)),
            self.frequencies[1, :size].copy() if len(self.frequencies) == 2 else None,
            self.large.ids,
            self.large.counts.sum(axis=0),
            self.large.counts[1] if len(self.frequencies) == 2 else None,
            tuple(
                places.select(index.owners) for index, places in zip(query.indexes, self.places, strict=True) if query.places
            ),
            dict(self.sources),
        )


def add_block(query: Query, totals: Totals, block: Block, order: int = 0) -> None:
    """Count one block into `totals`.

    Args:
        query: what is counted.
        totals: changed.
        block: the block.
        order: order of its first token in the corpus, for places.

    Raises:
        MemtaxError: a token id is negative or exceeds the vocabulary; the message gives its position.
    """
    has_large = _make_room(query, totals, block)
    groups = np.zeros(len(block.offsets) - 1, np.uint8) if query.memorized is None else _groups(query.memorized, block)
    if has_large:
        _count_large(query, totals, block, groups)
    elif query.memorized is not None:
        kernels.count_tokens(read_only(block.tokens), block.offsets, groups, totals.frequencies)
    apart = has_large or query.memorized is not None
    here = np.zeros(0, np.int64) if apart else totals.frequencies[0]
    if not query.indexes and not apart:
        # Without windows, the pass counts tokens only.
        _NO_WINDOWS.scan(block, here, np.zeros(0, np.int64))
    if query.places:
        totals.sources[order >> SHARD_BITS] = block.source
    for number, (index, found, places) in enumerate(zip(query.indexes, totals.found, totals.places, strict=True)):
        where = Where.of(block, order, places) if query.places else NOWHERE
        index.scan(block, here if number == 0 else here[:0], found, where)
    for near, found in zip(query.near, totals.near, strict=True):
        near.scan(block, found)
    totals.tokens += len(block.tokens)
    totals.sequences += len(block.offsets) - 1


_NO_WINDOWS = WindowIndex(np.empty((0, 1), np.int32))


def _groups(memorized: Int64, block: Block) -> npt.NDArray[np.uint8]:
    ids = block.sequence_ids()
    if ids is None:
        raise MemtaxError(
            f"the rows of {block.source} have no known numbers, so memorized ones cannot be counted separately; "
            "add a column sequence_id, or read it without streaming"
        )
    return np.isin(ids, memorized).astype(np.uint8)


def _make_room(query: Query, totals: Totals, block: Block) -> bool:
    """Check the ids, which index memory in the kernel, and grow the frequencies if the vocabulary size is unknown.

    Returns:
        Whether some ids are too large for the table.
    """
    high = largest_id(block, query.vocabulary_size)
    if high >= totals.frequencies.shape[1]:
        # Grow to powers of two, so that ascending ids do not copy the table again and again.
        totals.reserve(min(1 << high.bit_length(), DENSE))
    return high >= DENSE


def _count_large(query: Query, totals: Totals, block: Block, groups: npt.NDArray[np.uint8]) -> None:
    """Count the tokens of a block in which some ids are too large for the table.

    Raises:
        MemtaxError: there are too many such ids, and the vocabulary size is not given.
    """
    large = block.tokens >= DENSE
    each = np.repeat(groups, np.diff(block.offsets))
    for group, frequencies in enumerate(totals.frequencies):
        small = np.bincount(block.tokens[~large & (each == group)])
        frequencies[: len(small)] += small
    totals.large.add_tokens(block.tokens[large], each[large])
    if query.vocabulary_size is None and len(totals.large.ids) > MOST_UNSTATED:
        at = int(np.argmax(large))
        raise MemtaxError(
            f"{len(totals.large.ids):,} different token ids from {DENSE:,} on, such as {int(block.tokens[at])} in "
            f"{block.where(at)}, look like tokens of another dtype; if they are right, give the vocabulary size"
        )


def largest_id(block: Block, vocabulary_size: int | None) -> int:
    """The largest token id of a block; -1 if it has no tokens.

    Raises:
        MemtaxError: an id is negative or exceeds the vocabulary; the message gives its position.
    """
    tokens = block.tokens
    if len(tokens) == 0:
        return -1
    high = int(tokens.max())
    low = 0 if tokens.dtype == np.uint16 else int(tokens.min())
    limit = vocabulary_size or 2**31
    if low < 0 or high >= limit:
        at = int(np.argmax((tokens < 0) | (tokens >= limit)))
        known = f"outside the vocabulary of {limit}; was another tokenizer used?" if vocabulary_size else "negative"
        raise MemtaxError(f"token id {int(tokens[at])} in {block.where(at)} is {known}")
    return high
