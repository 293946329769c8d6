"""Tables as corpora: `datasets` sources and Parquet files, read as blocks of flat token ids."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from memtax.corpus import columns, conversations
from memtax.corpus.binary import file_stamp
from memtax.corpus.contract import Block, Corpus, Shard
from memtax.corpus.sources import Source, local_files, open_dataset, reading
from memtax.errors import MemtaxError

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

__all__ = ["Block", "Corpus", "DatasetCorpus", "ParquetCorpus", "RowReader", "Shard", "open_corpus"]

_ROWS_PER_READ = 1000
_TOKENIZING = threading.Lock()
"""A fast tokenizer must not be used by two threads at once; it uses all cores by itself."""


@dataclass(frozen=True)
class RowReader:
    """Converts Arrow rows into blocks.

    Attributes:
        schema: schema of the rows.
        label: name of the source in messages.
        column: the column to read.
        kind: whether it contains tokens or text.
        tokenizer: for text.
        vocabulary_size: ids at or above it are rejected; None allows all below 2^31.
        block_tokens: tokens (bytes of text) per block.
    """

    schema: pa.Schema
    label: str
    column: str
    kind: columns.Kind
    tokenizer: "PreTrainedTokenizerBase | None"
    vocabulary_size: int | None
    block_tokens: int

    @classmethod
    def of(
        cls,
        schema: pa.Schema,
        label: str,
        column: str | None,
        tokenizer: "PreTrainedTokenizerBase | None",
        vocabulary_size: int | None,
        block_tokens: int,
    ) -> "RowReader":
        """Find the column and check that it can be read.

        Raises:
            MemtaxError: there is no usable column, or it contains text and there is no tokenizer.
        """
        if block_tokens < 1:
            raise MemtaxError(f"tokens per block must be at least 1, got {block_tokens}")
        found = columns.find_column(schema.names, column, label)
        kind = columns.column_kind(schema.field(found).type, found, label)
        if kind == "text" and tokenizer is None:
            raise MemtaxError(f"column {found!r} of {label} contains text: give a tokenizer, or choose a column of token ids")
        size = len(tokenizer) if vocabulary_size is None and tokenizer is not None else vocabulary_size
        return cls(schema, label, found, kind, tokenizer, size, block_tokens)

    def read(
        self, batches: Iterator[pa.RecordBatch], first_row: int | None, ids: str | None = None
    ) -> Iterator[tuple[pa.RecordBatch, Block]]:
        """Yield blocks together with the rows that they were made from.

        A block has at most `block_tokens` tokens unless a single sequence is longer.

        Args:
            batches: rows with the column.
            first_row: number of the first row in the corpus, if known.
            ids: integer column in the batches that identifies rows.

        Raises:
            MemtaxError: the source cannot be read, or contains an invalid token id; the message gives the row.
        """
        row = first_row or 0
        for batch in batches:
            # Streamed JSON may change its type midway, so every batch is checked.
            kind = columns.column_kind(batch.schema.field(self.column).type, self.column, self.label)
            if kind != self.kind:
                raise MemtaxError(f"column {self.column!r} of {self.label} changes from {self.kind} to {kind} at row {row}")
            batch = columns.plain_text(batch, self.column)
            for part in _cut(batch, self.column, kind, self.block_tokens):
                tokens, offsets = self._tokens(part.column(self.column), row)
                keys = None if ids is None else columns.row_ids(part.column(ids), ids, self.label)
                yield part, Block(tokens, offsets, None if first_row is None else row, keys, self.label)
                row += part.num_rows

    def _tokens(self, column: pa.Array, row: int) -> tuple[columns.Tokens, Any]:
        if self.kind == "text":
            assert self.tokenizer is not None
            try:
                texts = column.to_pylist()
            except UnicodeDecodeError as error:
                raise MemtaxError(
                    f"column {self.column!r} of {self.label} cannot be read: {error}, in or after row {row}"
                ) from error
            with _TOKENIZING:
                return columns.tokenize(self.tokenizer, texts)
        values, offsets = columns.flatten(column)
        return columns.token_ids(values, offsets, self.vocabulary_size, self.label, row), offsets


class DatasetCorpus:
    """A `datasets` source read block by block. Created by `open_corpus`."""

    def __init__(
        self,
        dataset: "datasets.Dataset | datasets.IterableDataset",
        reader: RowReader,
        identity: Any,
        first_row: int | None = 0,
    ) -> None:
        self._dataset = dataset
        self._first_row = first_row
        self.reader = reader
        self.identity = [identity, reader.column]
        self.label, self.schema, self.column, self.kind = reader.label, reader.schema, reader.column, reader.kind
        self.vocabulary_size = reader.vocabulary_size
        self.rows: int | None = getattr(dataset, "num_rows", None)
        if self.rows == 0:
            raise MemtaxError(f"{reader.label} has no rows")

    @property
    def tokens(self) -> int | None:
        """Number of tokens, from the list offsets alone; None for streams, reordered datasets and text."""
        data = getattr(self._dataset, "data", None)
        if self.kind == "text" or data is None or self._dataset._indices is not None:
            return None
        return sum(len(chunk.flatten()) for chunk in data.column(self.column).chunks)

    def shards(self, tokens: int) -> Sequence["DatasetCorpus"]:
        """Ranges of rows of a table, or files of a stream."""
        if self.rows is None:
            parts = max(1, int(getattr(self._dataset, "num_shards", 1)))
            if parts == 1:
                return [self]
            streams = [self._dataset.shard(parts, number) for number in range(parts)]
            # Only the first part of a stream knows its row numbers.
            return [
                DatasetCorpus(stream, self.reader, self.identity, None if number else 0)
                for number, stream in enumerate(streams)
            ]
        total = self.tokens
        # A text document counts as a thousand tokens; this only decides how much work a shard is.
        step = max(1, int(tokens * self.rows // total) if total else max(1, tokens // 1000))
        if step >= self.rows:
            return [self]
        ranges = [range(start, min(start + step, self.rows)) for start in range(0, self.rows, step)]
        return [DatasetCorpus(self._dataset.select(rows), self.reader, self.identity, rows.start) for rows in ranges]

    def blocks(self) -> Iterator[Block]:
        """Yield the sequences in order, with their ids if the source has them."""
        ids = columns.id_column(self.schema, self.label)
        for _, block in self._read(() if ids in (None, self.column) else (ids,), ids):
            yield block

    def blocks_with(self, others: tuple[str, ...]) -> Iterator[tuple[pa.RecordBatch, Block]]:
        """Yield blocks together with the rows that they were made from.

        Args:
            others: columns to read besides the column of sequences.

        Raises:
            MemtaxError: the source cannot be read, has no rows, or contains an invalid token id; the message gives the row.
        """
        return self._read(others, None)

    def documents(self, rows: npt.NDArray[np.int64]) -> dict[int, str | None]:
        """Row number to the document of that row; empty if the source has none, or is a stream."""
        name = columns.document_column(self.schema, self.column)
        if name is None or self.rows is None:
            return {}
        table = self._dataset.select_columns([name]).select(rows).with_format("arrow")[:]
        return dict(zip(rows.tolist(), table.column(name).to_pylist(), strict=True))

    def _read(self, others: Sequence[str | None], ids: str | None) -> Iterator[tuple[pa.RecordBatch, Block]]:
        read = False
        for rows, block in self.reader.read(self._batches([self.column, *others]), self._first_row, ids):
            read = True
            yield rows, block
        if not read and self._first_row == 0:
            raise MemtaxError(f"{self.label} has no rows")

    def _batches(self, names: list[Any]) -> Iterator[pa.RecordBatch]:
        narrow = self._dataset.select_columns(names).with_format("arrow")
        with reading(self.label):
            for table in narrow.iter(batch_size=_ROWS_PER_READ):
                yield from table.to_batches()


class ParquetCorpus:
    """A Parquet file read row group by row group, without the copy that `datasets` would make."""

    def __init__(
        self,
        path: Path,
        column: str | None,
        tokenizer: "PreTrainedTokenizerBase | None",
        vocabulary_size: int | None,
        block_tokens: int,
    ) -> None:
        self._path = path
        with reading(str(path)), pq.ParquetFile(path) as file:
            schema, metadata = file.schema_arrow, file.metadata
        self.reader = RowReader.of(schema, str(path), column, tokenizer, vocabulary_size, block_tokens)
        self.vocabulary_size = self.reader.vocabulary_size
        self.rows: int | None = metadata.num_rows
        if self.rows == 0:
            raise MemtaxError(f"{path} has no rows")
        self._groups = [_group(metadata.row_group(number), self.reader.column) for number in range(metadata.num_row_groups)]
        self.ids = columns.id_column(schema, str(path))

    @property
    def tokens(self) -> int | None:
        """Number of tokens, from the file's footer (an empty row counts as one); None for text."""
        return None if self.reader.kind == "text" else sum(values for _, values in self._groups)

    @property
    def identity(self) -> Any:
        """Name, size and time of the file, and the column."""
        return [*file_stamp(self._path), self.reader.column]

    def shards(self, tokens: int) -> Sequence["ParquetShard"]:
        """Shards of consecutive row groups, about `tokens` tokens each."""
        shards: list[ParquetShard] = []
        groups, row, first, held = list[int](), 0, 0, 0
        for number, (rows, values) in enumerate(self._groups):
            groups.append(number)
            row, held = row + rows, held + values
            if held >= tokens or number == len(self._groups) - 1:
                shards.append(ParquetShard(self, tuple(groups), first, None if self.reader.kind == "text" else held))
                groups, first, held = [], row, 0
        return shards

    def documents(self, rows: npt.NDArray[np.int64]) -> dict[int, str | None]:
        """Row number to the document of that row, from the row groups that hold these rows; empty if the file has none."""
        name = columns.document_column(self.reader.schema, self.reader.column)
        starts = np.cumsum([0, *(count for count, _ in self._groups)])
        found: dict[int, str | None] = {}
        with reading(str(self._path)), pq.ParquetFile(self._path) as file:
            for group in np.unique(np.searchsorted(starts, rows, side="right") - 1).tolist() if name is not None else ():
                mine = rows[(rows >= starts[group]) & (rows < starts[group + 1])]
                texts = file.read_row_group(group, [name]).column(0).take(mine - starts[group]).to_pylist()
                found |= dict(zip(mine.tolist(), texts, strict=True))
        return found

    def batches(self, groups: Sequence[int], others: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
        """Yield the rows of some row groups, with the sequence column and `others`."""
        names = list(dict.fromkeys([self.reader.column, *others]))
        what = f"{self._path} (row group {groups[0]} of {len(self._groups)} or later)"
        with reading(what), pq.ParquetFile(self._path, memory_map=True) as file:
            yield from file.iter_batches(_ROWS_PER_READ, row_groups=list(groups), columns=names, use_threads=False)


@dataclass(frozen=True)
class ParquetShard:
    """Some row groups of a file."""

    corpus: ParquetCorpus
    groups: tuple[int, ...]
    first_row: int
    tokens: int | None

    def blocks(self) -> Iterator[Block]:
        """Yield the sequences in order."""
        ids = self.corpus.ids
        batches = self.corpus.batches(self.groups, () if ids is None else (ids,))
        for _, block in self.corpus.reader.read(batches, self.first_row, ids):
            yield block


def _group(group: Any, column: str) -> tuple[int, int]:
    """Number of rows in a row group, and number of values in one of its columns."""
    for number in range(group.num_columns):
        chunk = group.column(number)
        if chunk.path_in_schema.split(".")[0] == column:
            return group.num_rows, chunk.num_values
    return group.num_rows, 0


def open_corpus(
    source: "Source | datasets.Dataset",
    *,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    vocabulary_size: int | None = None,
    block_tokens: int = 4_000_000,
) -> DatasetCorpus:
    """Open a `datasets` source as a corpus; memory does not grow with the size of the source.

    Args:
        source: the location, or an open dataset.
        tokenizer: a `transformers` tokenizer; required for a text column, where each row is a document. For a token column
            it provides the vocabulary size.
        vocabulary_size: ids at or above it are rejected; None uses the tokenizer's size, if there is one.
        block_tokens: tokens (bytes of text) per block.

    Raises:
        MemtaxError: the source is missing, unreadable or empty, has no usable column, or is text without a tokenizer.
    """
    if isinstance(source, Source):
        dataset, label, column = open_dataset(source), source.label, source.column
        files = local_files(source)
        hub = None if files else getattr(dataset, "_fingerprint", None)
        identity: Any = [label, source.revision, [file_stamp(file) for file in files], hub]
    else:
        dataset, label, column, identity = source, "the dataset", None, getattr(source, "_fingerprint", None)
    if (shape := conversations.find_shape(_arrow_schema(dataset, label), column)) is not None:
        from memtax.corpus.chat_rows import as_tokens

        dataset, column = as_tokens(dataset, shape, tokenizer, label), "tokens"
        template = getattr(dataset, "_fingerprint", None)
        identity = [identity, template]
    reader = RowReader.of(_arrow_schema(dataset, label), label, column, tokenizer, vocabulary_size, block_tokens)
    return DatasetCorpus(dataset, reader, identity)


def _arrow_schema(dataset: Any, label: str) -> pa.Schema:
    if dataset.features is not None:
        return dataset.features.arrow_schema
    # Streamed JSON declares no columns, so they are taken from its first row.
    with reading(label):
        table = next(iter(dataset.with_format("arrow").iter(batch_size=1)), None)
    if table is None:
        raise MemtaxError(f"{label} has no rows")
    return table.schema


def _cut(batch: pa.RecordBatch, name: str, kind: columns.Kind, limit: int) -> Iterator[pa.RecordBatch]:
    """Slices of whole rows with at most `limit` tokens (bytes of text) each; a longer row forms its own slice."""
    measure = pc.binary_length if kind == "text" else pc.list_value_length
    lengths = pc.fill_null(measure(batch.column(name)), 0).to_numpy(zero_copy_only=False)
    ends = np.cumsum(lengths, dtype=np.int64)
    start, before = 0, 0
    while start < len(ends):
        stop = max(start + 1, int(np.searchsorted(ends, before + limit, side="right")))
        yield batch.slice(start, stop - start)
        start, before = stop, int(ends[stop - 1])
