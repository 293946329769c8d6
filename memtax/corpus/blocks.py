"""A corpus as a stream of blocks: flat token ids and the offsets of the sequences in them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from memtax.corpus import columns
from memtax.corpus.sources import Source, open_dataset, reading
from memtax.errors import MemtaxError

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

_ROWS_PER_READ = 1000


@dataclass(frozen=True)
class Block:
    """Whole sequences, back to back.

    Attributes:
        tokens: shape (tokens), uint16 or int32, ids checked to be in range.
        offsets: shape (sequences + 1), int64; sequence i is `tokens[offsets[i]:offsets[i + 1]]`.
    """

    tokens: columns.Tokens
    offsets: npt.NDArray[np.int64]


class Corpus(Protocol):
    """What can be counted. Each row is one sequence; windows never cross from one to the next."""

    @property
    def rows(self) -> int | None:
        """Number of sequences; None if only reading all of it would tell."""

    @property
    def tokens(self) -> int | None:
        """Number of tokens; None if only reading all of it would tell."""

    @property
    def vocabulary_size(self) -> int | None:
        """Number of ids of the tokenizer, if that is known."""

    def blocks(self) -> Iterator[Block]:
        """The sequences in order; every call reads from the start."""


class DatasetCorpus:
    """A `datasets` source read block by block. Made by `open_corpus`."""

    def __init__(
        self,
        dataset: "datasets.Dataset | datasets.IterableDataset",
        label: str,
        column: str | None,
        tokenizer: "PreTrainedTokenizerBase | None",
        vocabulary_size: int | None,
        block_tokens: int,
    ) -> None:
        if block_tokens < 1:
            raise MemtaxError(f"tokens per block must be at least 1, not {block_tokens}")
        self.label = label
        self._dataset = dataset
        self._tokenizer = tokenizer
        self._block_tokens = block_tokens
        self.schema = _arrow_schema(dataset, label)
        self.column = columns.find_column(self.schema.names, column, label)
        self.kind = columns.column_kind(self.schema.field(self.column).type, self.column, label)
        if self.kind == "text" and tokenizer is None:
            raise MemtaxError(f"column {self.column!r} of {label} holds text: give a tokenizer, or name a column of token ids")
        self.vocabulary_size = len(tokenizer) if vocabulary_size is None and tokenizer is not None else vocabulary_size
        self.rows: int | None = getattr(dataset, "num_rows", None)
        if self.rows == 0:
            raise MemtaxError(f"{label} has no rows")

    @property
    def tokens(self) -> int | None:
        """Number of tokens, from the list offsets alone; None when streaming, reordered, or text."""
        data = getattr(self._dataset, "data", None)
        if self.kind == "text" or data is None or self._dataset._indices is not None:
            return None
        return sum(len(chunk.flatten()) for chunk in data.column(self.column).chunks)

    def blocks(self) -> Iterator[Block]:
        """The sequences in order, at most `block_tokens` tokens a block unless a single sequence is longer."""
        for _, block in self.blocks_with(()):
            yield block

    def blocks_with(self, others: tuple[str, ...]) -> Iterator[tuple[pa.RecordBatch, Block]]:
        """The blocks together with the rows that they were made from.

        Args:
            others: columns wanted besides the one that holds the sequences.

        Raises:
            MemtaxError: the source cannot be read, has no rows, or holds a bad token id; the message names the row.
        """
        row = 0
        for batch in self._batches([self.column, *others]):
            # Streamed JSON may change its type midway, so every batch is looked at.
            kind = columns.column_kind(batch.schema.field(self.column).type, self.column, self.label)
            if kind != self.kind:
                raise MemtaxError(f"column {self.column!r} of {self.label} changes from {self.kind} to {kind} at row {row}")
            for part in _cut(batch, self.column, kind, self._block_tokens):
                yield part, self._block(part.column(self.column), row)
                row += part.num_rows
        if row == 0:
            raise MemtaxError(f"{self.label} has no rows")

    def _batches(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        narrow = self._dataset.select_columns(names).with_format("arrow")
        with reading(self.label):
            for table in narrow.iter(batch_size=_ROWS_PER_READ):
                yield from table.to_batches()

    def _block(self, column: pa.Array, first_row: int) -> Block:
        if self.kind == "text":
            assert self._tokenizer is not None
            tokens, offsets = columns.tokenize(self._tokenizer, column.to_pylist())
            return Block(tokens, offsets)
        values, offsets = columns.flatten(column)
        return Block(columns.token_ids(values, offsets, self.vocabulary_size, self.label, first_row), offsets)


def open_corpus(
    source: "Source | datasets.Dataset",
    *,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    vocabulary_size: int | None = None,
    block_tokens: int = 4_000_000,
) -> DatasetCorpus:
    """Open a source as a corpus. Memory does not grow with its size.

    Args:
        source: where it is, or a dataset that is open already.
        tokenizer: a tokenizer of `transformers`; needed for a text column, where each row is a document. For a token column
            it tells the vocabulary.
        vocabulary_size: ids at or above it are refused; None takes the tokenizer's size, if there is one.
        block_tokens: tokens (bytes of text) a block.

    Raises:
        MemtaxError: the source is missing, unreadable or empty, has no usable column, or is text without a tokenizer.
    """
    if isinstance(source, Source):
        return DatasetCorpus(open_dataset(source), source.label, source.column, tokenizer, vocabulary_size, block_tokens)
    return DatasetCorpus(source, "the dataset", None, tokenizer, vocabulary_size, block_tokens)


def _arrow_schema(dataset: Any, label: str) -> pa.Schema:
    if dataset.features is not None:
        return dataset.features.arrow_schema
    # Streamed JSON has no declared columns: its first row tells.
    with reading(label):
        table = next(iter(dataset.with_format("arrow").iter(batch_size=1)), None)
    if table is None:
        raise MemtaxError(f"{label} has no rows")
    return table.schema


def _cut(batch: pa.RecordBatch, name: str, kind: columns.Kind, limit: int) -> Iterator[pa.RecordBatch]:
    """Slices of whole rows with at most `limit` tokens (bytes of text) each; a longer row stands alone."""
    measure = pc.binary_length if kind == "text" else pc.list_value_length
    lengths = pc.fill_null(measure(batch.column(name)), 0).to_numpy(zero_copy_only=False)
    ends = np.cumsum(lengths, dtype=np.int64)
    start, before = 0, 0
    while start < len(ends):
        stop = max(start + 1, int(np.searchsorted(ends, before + limit, side="right")))
        yield batch.slice(start, stop - start)
        start, before = stop, int(ends[stop - 1])
