"""One pass over a corpus: how often each token and each asked-for window occurs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from memtax import schema
from memtax.corpus import kernels
from memtax.corpus.blocks import Block, Corpus
from memtax.corpus.tables import DUPLICATES_FILE, FREQUENCIES_FILE
from memtax.errors import MemtaxError
from memtax.files import write_parquet
from memtax.progress import progress_bar

_LARGEST_GUESSED_VOCABULARY = 2**24
"""A table of frequencies is grown up to this id; above it (128 MiB, far over any tokenizer) the size must be stated."""


@dataclass(frozen=True)
class Counts:
    """The result of a pass.

    Attributes:
        token_frequencies: shape (vocabulary), int64, occurrences of each token id.
        window_counts: shape (windows), int64, occurrences of each window asked for, in their order.
        tokens: tokens read.
        sequences: sequences read.
    """

    token_frequencies: npt.NDArray[np.int64]
    window_counts: npt.NDArray[np.int64]
    tokens: int
    sequences: int


class WindowIndex:
    """The windows asked for, hashed; read-only once built, so that any number of passes can share it."""

    def __init__(self, windows: npt.NDArray[np.int32], multiplier: int = kernels.MULTIPLIER) -> None:
        """Index windows.

        Args:
            windows: shape (n, w), token ids.
            multiplier: of the hash; any value gives the same counts (tests force collisions with 0).
        """
        self.windows = windows
        n, width = windows.shape
        self.multiplier = np.uint64(multiplier)
        self.power = np.uint64(pow(multiplier, width, 2**64))
        # The table is at most half full. The filter has 16 to 32 bits a window: below 1% of other places pass its three bits.
        table_bits = max(2, (2 * n).bit_length())
        bloom_bits = max(1, (n // 4).bit_length())
        self.table = np.full(1 << table_bits, -1, np.int32)
        self.table_shift = np.uint64(64 - table_bits)
        self.bloom = np.zeros(1 << bloom_bits, np.uint64)
        self.bloom_shift = np.uint64(64 - bloom_bits)
        self.hashes = np.empty(n, np.uint64)
        self.owners = np.empty(n, np.int32)
        kernels.build(
            windows, self.multiplier, self.hashes, self.owners, self.table, self.table_shift, self.bloom, self.bloom_shift
        )


class Counter:
    """Running counts over blocks. Private memory is the vocabulary's and the windows', never the corpus's."""

    def __init__(self, index: WindowIndex, vocabulary_size: int | None) -> None:
        self._index = index
        self._vocabulary_size = vocabulary_size
        self._frequencies = np.zeros(vocabulary_size or 0, np.int64)
        self._found = np.zeros(len(index.windows), np.int64)
        self._tokens = 0
        self._sequences = 0

    def add(self, block: Block) -> None:
        """Count one block.

        Raises:
            MemtaxError: a token id is negative or beyond the vocabulary; the message names its sequence.
        """
        index, tokens = self._index, block.tokens
        self._make_room(block)
        kernels.scan(
            tokens if tokens.dtype == np.uint16 else tokens.astype(np.int32, copy=False),
            block.offsets,
            self._frequencies,
            index.windows,
            index.multiplier,
            index.power,
            index.hashes,
            index.table,
            index.table_shift,
            index.bloom,
            index.bloom_shift,
            self._found,
        )
        self._tokens += len(tokens)
        self._sequences += len(block.offsets) - 1

    def _make_room(self, block: Block) -> None:
        """Check the ids, which index memory in the kernel, and grow the frequencies where the vocabulary is not known."""
        if len(block.tokens) == 0:
            return
        low, high = int(block.tokens.min()), int(block.tokens.max())
        limit = self._vocabulary_size or _LARGEST_GUESSED_VOCABULARY
        if low < 0 or high >= limit:
            at = int(np.argmax((block.tokens < 0) | (block.tokens >= limit)))
            row = self._sequences + int(np.searchsorted(block.offsets, at, side="right")) - 1
            known = f"outside the vocabulary of {limit}" if self._vocabulary_size else "unusual; state the vocabulary's size"
            raise MemtaxError(f"token id {int(block.tokens[at])} in row {row} of the corpus is {known}")
        if high >= len(self._frequencies):
            # Powers of two: a rising sequence of ids does not copy the table again and again.
            grown = np.zeros(1 << high.bit_length(), np.int64)
            grown[: len(self._frequencies)] = self._frequencies
            self._frequencies = grown

    def counts(self) -> Counts:
        """The counts so far. An unstated vocabulary ends at the largest id seen."""
        seen = np.flatnonzero(self._frequencies)
        size = self._vocabulary_size or (int(seen[-1]) + 1 if len(seen) else 0)
        return Counts(self._frequencies[:size].copy(), self._found[self._index.owners], self._tokens, self._sequences)


def count(
    corpus: Corpus,
    windows: npt.NDArray[np.int32] | None,
    *,
    vocabulary_size: int | None = None,
    multiplier: int = kernels.MULTIPLIER,
) -> Counts:
    """Count, in one pass, every token and every exact occurrence of the windows.

    An occurrence may start at any offset of a sequence from which the whole window fits; occurrences may overlap and never
    cross from one sequence to the next. (The reference of Prashanth et al. 2024 leaves out the last offset.)

    Args:
        corpus: what is counted.
        windows: shape (n, w), integers; the same window may be asked for twice. None counts tokens only.
        vocabulary_size: length of the frequencies; None takes the corpus's own, or else the largest id seen plus one.
        multiplier: of the hash; has no influence on the result.

    Returns:
        The counts; `window_counts` has one entry a window.

    Raises:
        MemtaxError: the windows are no matrix of token ids, the corpus cannot be read, or an id is beyond the vocabulary.
    """
    size = vocabulary_size if vocabulary_size is not None else corpus.vocabulary_size
    if size is not None and size < 1:
        raise MemtaxError(f"the vocabulary must have at least 1 token, not {size}")
    counter = Counter(WindowIndex(_checked(windows, size), multiplier), size)
    with progress_bar("counting", corpus.tokens, unit="tokens") as bar:
        for block in corpus.blocks():
            counter.add(block)
            bar.update(len(block.tokens))
    return counter.counts()


def _checked(windows: npt.NDArray[np.int32] | None, vocabulary_size: int | None) -> npt.NDArray[np.int32]:
    if windows is None:
        return np.empty((0, 1), np.int32)
    windows = np.asarray(windows)
    if windows.ndim != 2 or windows.shape[1] < 1 or not np.issubdtype(windows.dtype, np.integer):
        raise MemtaxError(f"windows must be a matrix of integers with at least one column, not {windows.dtype} {windows.shape}")
    limit = min(vocabulary_size or 2**31, 2**31)
    wrong = np.argwhere((windows < 0) | (windows >= limit))
    if len(wrong):
        row, column = (int(i) for i in wrong[0])
        raise MemtaxError(
            f"token id {int(windows[row, column])} in window {row} is not in 0..{limit - 1}; was another tokenizer used?"
        )
    return np.ascontiguousarray(windows, np.int32)


def write_counts(directory: Path | str, sequence_ids: Sequence[int] | npt.NDArray[np.int64], counts: Counts) -> None:
    """Write `num_duplicates.parquet` and `token_frequencies.parquet` into a directory, each atomically.

    Args:
        directory: made if missing.
        sequence_ids: shape (windows), the sequence that each window was taken from.
        counts: what was counted; every id of the vocabulary gets a row, also those with frequency 0.

    Raises:
        MemtaxError: ids and windows differ in number, or an id comes twice.
    """
    ids = np.asarray(sequence_ids, np.int64)
    if len(ids) != len(counts.window_counts):
        raise MemtaxError(f"{len(ids)} sequence ids for {len(counts.window_counts)} counted windows")
    if len(np.unique(ids)) != len(ids):
        values, times = np.unique(ids, return_counts=True)
        raise MemtaxError(f"sequence_id {int(values[times > 1][0])} comes more than once; ids must be unique")
    frequencies = counts.token_frequencies
    for name, table in (
        (DUPLICATES_FILE, {"sequence_id": ids, "sequence_duplicates": counts.window_counts}),
        (FREQUENCIES_FILE, {"token_id": np.arange(len(frequencies)), "token_frequency": frequencies}),
    ):
        write_parquet(Path(directory) / name, schema.validate(pa.table(table), table, name))
