"""Rows to score: token sequences of any length, optionally truncated."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from memtax import schema
from memtax.corpus import columns
from memtax.corpus.contract import Block
from memtax.corpus.conversations import find_shape
from memtax.corpus.opening import Reading, open_sources
from memtax.corpus.sources import Source, open_dataset
from memtax.errors import MemtaxError
from memtax.progress import progress_bar, say, skipped
from memtax.provenance import fingerprint_table

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

COLUMNS = ("sequence_id", "tokens")
_SHARD_TOKENS = 2**24


def holds_text(source: Source) -> bool:
    """Whether the column contains text or conversations, which need a tokenizer."""
    dataset = open_dataset(source)
    if find_shape(dataset.features.arrow_schema, source.column) is not None:
        return True
    name = columns.find_column(list(dataset.column_names or ()), source.column, source.label)
    return columns.column_kind(dataset.features.arrow_schema.field(name).type, name, source.label) == "text"


def load_rows(
    source: Source,
    *,
    length: int | None = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    vocabulary_size: int | None = None,
    bos: Sequence[int] = (),
) -> "datasets.Dataset":
    """The first tokens of every row; short and empty rows are kept, so that their scores can be null.

    Args:
        source: location of the tokens or texts, including Megatron's `.bin` with its `.idx`, and `.npy`.
        length: maximum tokens per row; None keeps whole rows.
        tokenizer: required for a text column.
        vocabulary_size: number of ids that the model knows; None checks nothing.
        bos: ids that are dropped from the start of a row: the model gets them anyway, and they are not text.

    Returns:
        `sequence_id` (the source's `sequence_id`, `index` or `Index`, or the row number) and `tokens`.

    Raises:
        MemtaxError: the source cannot be used, its ids are not unique, or a token id is outside the vocabulary.
    """
    table, (short, cut, unread) = _read(source, length, tokenizer, vocabulary_size, bos)
    skipped(short, f"shorter than {length} tokens, in {source.label}; values that need them are null")
    if cut:
        rows = table.num_rows
        say(f"{source.label}: {cut:,} of {rows:,} rows cut to their first {length} tokens, {unread:,} tokens not read")
    return _dataset(table, source.label)


def _dataset(table: pa.Table, label: str) -> "datasets.Dataset":
    import datasets

    columns.check_unique(table.column("sequence_id").to_numpy(), "sequence_id", label)
    return datasets.Dataset(table.cast(schema.features(COLUMNS).arrow_schema), fingerprint=fingerprint_table(table))


def _read(
    source: Source,
    length: int | None,
    tokenizer: "PreTrainedTokenizerBase | None",
    vocabulary_size: int | None,
    bos: Sequence[int],
) -> tuple[pa.Table, tuple[int, int, int]]:
    """The rows, and the numbers of shorter ones, of longer ones, and of tokens that were left out."""
    corpus = open_sources([source], Reading(column=source.column, tokenizer=tokenizer))
    tables: list[pa.Table] = []
    rows, short, cut, unread = 0, 0, 0, 0
    with progress_bar("reading sequences", corpus.rows) as bar:
        for shard in corpus.shards(_SHARD_TOKENS):
            for block in shard.blocks():
                if vocabulary_size is not None:
                    _check_vocabulary(block, vocabulary_size)
                count = len(block.offsets) - 1
                ids = np.arange(rows, rows + count) if block.ids is None else block.ids
                tokens, offsets = columns.drop_opening(block.tokens, block.offsets, bos)
                tables.append(_table(ids, tokens, offsets, length))
                rows += count
                if length is not None:
                    beyond = np.diff(offsets) - length
                    short += int((beyond < 0).sum())
                    cut += int((beyond > 0).sum())
                    unread += int(beyond[beyond > 0].sum())
                bar.update(count)
    return pa.concat_tables(tables), (short, cut, unread)


def load_documents(source: Source, rows: int) -> "pa.ChunkedArray | None":
    """The document of each row, from a text column `document`, `path`, `name` or `url`; None if the source has none.

    Args:
        source: as in `load_rows`.
        rows: number of rows returned by `load_rows`.
    """
    if source.streaming:
        return None
    dataset = open_dataset(source)
    features = getattr(dataset, "features", None) or {}
    texts = [
        name for name in columns.DOCUMENT_COLUMNS if getattr(features.get(name), "dtype", None) in ("string", "large_string")
    ]
    texts = [name for name in texts if name != source.column]
    if not texts or not hasattr(dataset, "num_rows") or dataset.num_rows != rows:
        return None
    return dataset.select_columns(texts[:1]).with_format("arrow")[:].column(texts[0]).cast(pa.string())


def load_texts_by_id(source: str, tokenizer: Any, prompt: int | None = None) -> "datasets.Dataset":
    """Rows with `sequence_id` and `text` as named in memtax's schema, for filters of texts; tokens are decoded.

    Args:
        source: a dataset as `path:config:split`, from memtax or in the published layout.
        tokenizer: tokenizer of the language model; None if the rows contain text.
        prompt: if given, add `prompt_text`, the text of this many first tokens.

    Raises:
        MemtaxError: a column is missing, or tokens cannot be decoded without a tokenizer.
    """
    dataset: Any = open_dataset(Source.parse(source))
    dataset = dataset.rename_columns(dict(schema.rename_published(dataset.column_names)))
    schema.require(dataset.column_names, ("sequence_id",), source)
    wanted = ("text",) if prompt is None else ("text", "prompt_text")
    if all(name in dataset.column_names for name in wanted):
        return dataset
    schema.require(dataset.column_names, ("tokens",), f"{source}, which lacks {' or '.join(wanted)},")
    if tokenizer is None:
        raise MemtaxError(f"{source} has tokens but no text; give the model's tokenizer with --tokenizer")

    def decoded(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        rows = batch["tokens"]
        found = {"text": tokenizer.batch_decode(rows)}
        return found if prompt is None else {**found, "prompt_text": tokenizer.batch_decode([row[:prompt] for row in rows])}

    return dataset.map(decoded, batched=True)


def _check_vocabulary(block: Block, vocabulary_size: int) -> None:
    """Reject ids outside the model's vocabulary; a tokenizer may have more ids than the model."""
    bad = np.flatnonzero(block.tokens >= vocabulary_size)
    if bad.size:
        raise MemtaxError(
            f"token id {block.tokens[bad[0]]} in {block.where(int(bad[0]))} is outside the model's vocabulary of "
            f"{vocabulary_size}; were the sequences made with another tokenizer?"
        )


def _table(
    ids: npt.NDArray[np.int64],
    tokens: npt.NDArray[np.int32] | npt.NDArray[np.uint16],
    offsets: npt.NDArray[np.int64],
    length: int | None,
) -> pa.Table:
    lengths = np.diff(offsets)
    if length is not None:
        place = np.arange(len(tokens)) - np.repeat(offsets[:-1], lengths)
        tokens = tokens[place < length]
        lengths = np.minimum(lengths, length)
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(ends), pa.array(tokens.astype(np.int32, copy=False)))
    return pa.table([pa.array(ids, pa.int64()), lists], schema=schema.arrow_schema(COLUMNS))
