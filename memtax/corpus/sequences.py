"""Sequences to measure: fixed-length token windows cut from the rows of a source."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from memtax import schema
from memtax.corpus import columns
from memtax.corpus.answers import holds_conversations, load_answers, read_conversations
from memtax.corpus.blocks import Block, open_corpus
from memtax.corpus.sources import Source
from memtax.errors import MemtaxError
from memtax.progress import progress_bar
from memtax.progress import skipped as say_skipped

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

Cut = Literal["first", "all"]

COLUMNS = ("sequence_id", "tokens", "text", "document")


@dataclass(frozen=True)
class Sequences:
    """Result of `load_sequences`.

    Attributes:
        dataset: one row per sequence, with columns `sequence_id`, `tokens`, `text`, `document` as in `memtax.schema`.
        skipped: for each reason, the number of source rows that gave no sequence.
    """

    dataset: "datasets.Dataset"
    skipped: dict[str, int]


def load_sequences(
    source: "Source | datasets.Dataset",
    *,
    window: int,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    cut: Cut | None = None,
    vocabulary_size: int | None = None,
    bos: Sequence[int] = (),
    continuation: int | None = None,
    positions: int | None = None,
) -> Sequences:
    """Cut windows of exactly `window` tokens from a source.

    Args:
        source: location of the tokens or texts, or an open dataset.
        window: tokens per sequence.
        tokenizer: a `transformers` tokenizer. Required for a text column; for a token column it fills `text`.
        cut: `first` takes the first `window` tokens of each row (Pythia's rule, the default for a token column); `all` takes
            contiguous windows that do not overlap and drops the tail of each row (the default for text).
        vocabulary_size: ids at or above it are rejected; None uses the tokenizer's size, if there is one.
        bos: ids that are dropped from the start of a row: the model gets them anyway, and they are not text.
        continuation: tokens of each answer, if the source holds conversations, whose prompts have lengths of their own.
        positions: of conversations, the positions that the model has for text; None: no limit.

    Returns:
        The sequences and the skipped rows. For `first`, `sequence_id` is the source's column of that name (or `index`,
        `Index`) if it contains integers, and otherwise the row number; for `all` it numbers the windows. `document` is the
        source's `document`, `path`, `name` or `url` if that is text; for `all` without such a column, it is `row N`. Of
        conversations each answer is a sequence, with `prompt_tokens`; see `memtax.corpus.answers.load_answers`.

    Raises:
        MemtaxError: an argument is invalid, the source cannot be used, ids are not unique, or no row is long enough.
    """
    _check(window, cut)
    if continuation is not None and holds_conversations(source):
        return _answers(source, continuation, tokenizer, bos, positions)
    corpus = open_corpus(source, tokenizer=tokenizer, vocabulary_size=vocabulary_size)
    if cut is None:
        cut = "first" if corpus.kind == "tokens" else "all"
    key = columns.id_column(corpus.schema, corpus.label) if cut == "first" else None
    document = columns.document_column(corpus.schema, corpus.column)

    tables: list[pa.Table] = []
    skipped: Counter[str] = Counter()
    longest, made, row = 0, 0, 0
    others = tuple(dict.fromkeys(name for name in (key, document) if name and name != corpus.column))
    with progress_bar("reading sequences", corpus.rows) as bar:
        for rows, block in corpus.blocks_with(others):
            tokens, offsets = columns.drop_opening(block.tokens, block.offsets, bos)
            block = replace(block, tokens=tokens, offsets=offsets)
            starts, owners = _window_starts(block, window, cut)
            windows = block.tokens[starts[:, None] + np.arange(window)].astype(np.int32, copy=False)
            if key is not None:
                ids = columns.row_ids(rows.column(key), key, corpus.label)[owners]
            else:
                ids = owners + row if cut == "first" else np.arange(made, made + len(starts))
            names = _documents(rows, document, row if cut == "all" else None)
            tables.append(_table(ids, windows, owners, tokenizer, names))
            lengths = np.diff(block.offsets)
            longest = max(longest, int(lengths.max(initial=0)))
            if short := int((lengths < window).sum()):
                skipped[f"shorter than {window} tokens"] += short
            made += len(starts)
            row += rows.num_rows
            bar.update(rows.num_rows)
    _check_some(made, corpus.label, window, longest)
    table = pa.concat_tables(tables)
    if key is not None:
        columns.check_unique(table.column("sequence_id").to_numpy(), key, corpus.label)
    for reason, rows_left in skipped.items():
        say_skipped(rows_left, f"{reason}, in {corpus.label}")
    return Sequences(_dataset(table), dict(skipped))


def _check(window: int, cut: Cut | None) -> None:
    if window < 1:
        raise MemtaxError(f"a window must have at least 1 token, got {window}")
    if cut not in (None, "first", "all"):
        raise MemtaxError(f"unknown cut {cut!r}; use 'first' or 'all'")


def _check_some(made: int, label: str, window: int, longest: int) -> None:
    if made == 0:
        raise MemtaxError(
            f"no row of {label} has the {window} tokens that a sequence needs (the longest has {longest}); "
            "choose shorter windows, or join short texts into documents"
        )


def _answers(source: Any, continuation: int, tokenizer: Any, bos: Sequence[int], positions: int | None) -> Sequences:
    table, skipped = load_answers(source, continuation=continuation, tokenizer=tokenizer, opening=bos, positions=positions)
    if not len(table):
        few = "; ".join(f"{count:,} {reason}" for reason, count in skipped.items())
        label = source.label if isinstance(source, Source) else "the dataset"
        raise MemtaxError(f"no answer of {label} can be measured: {few}; choose a shorter continuation")
    return Sequences(_dataset(table), skipped)


@dataclass(frozen=True)
class Document:
    """A row of a source with the windows cut from it.

    Attributes:
        text: text of the whole row.
        windows: text of each window, in order.
        whole: whether the row is a complete text that was tokenized here; a row of tokens may be cut from a longer text.
        prompts: of a conversation, whose windows all begin with it, the number of characters of each window before the answer.
    """

    text: str
    windows: list[str]
    whole: bool
    prompts: list[int] | None = None


def documents(
    source: Source,
    *,
    window: int,
    tokenizer: "PreTrainedTokenizerBase",
    cut: Cut | None = None,
    bos: Sequence[int] = (),
    continuation: int | None = None,
    positions: int | None = None,
) -> Iterator[Document]:
    """The rows that `load_sequences` cuts windows from; their windows are its sequences in the same order.

    Args:
        source: as for `load_sequences`.
        window: tokens per sequence.
        tokenizer: decodes tokens, and encodes a text column.
        cut: as for `load_sequences`.
        bos: as for `load_sequences`.
        continuation: as for `load_sequences`.
        positions: as for `load_sequences`.
    """
    if continuation is not None and holds_conversations(source):
        for conversation in read_conversations(source, tokenizer, bos):
            kept = [one for one in conversation.windows(continuation, positions) if one[2] is None]
            if kept:
                parts = [conversation.tokens, *(tokens for _, tokens, _ in kept), *(tokens[:size] for size, tokens, _ in kept)]
                whole, *texts = columns.decode_rows(tokenizer, parts)
                yield Document(whole, texts[: len(kept)], True, [len(prompt) for prompt in texts[len(kept) :]])
        return
    corpus = open_corpus(source, tokenizer=tokenizer, vocabulary_size=None)
    cut = cut or ("first" if corpus.kind == "tokens" else "all")
    for _, block in corpus.blocks_with(()):
        opened, offsets = columns.drop_opening(block.tokens, block.offsets, bos)
        block = replace(block, tokens=opened, offsets=offsets)
        starts, owners = _window_starts(block, window, cut)
        windows = columns.decode(tokenizer, block.tokens[starts[:, None] + np.arange(window)].astype(np.int32, copy=False))
        rows, first = np.unique(owners, return_index=True)
        tokens = [block.tokens[block.offsets[row] : block.offsets[row + 1]].tolist() for row in rows]
        texts = columns.decode_rows(tokenizer, tokens)
        for text, start, end in zip(texts, first, [*first[1:], len(owners)], strict=True):
            yield Document(text, windows[start:end], corpus.kind == "text")


def window_rows(
    source: Source,
    *,
    window: int,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    cut: Cut | None = None,
    bos: Sequence[int] = (),
    continuation: int | None = None,
    positions: int | None = None,
) -> npt.NDArray[np.int64]:
    """The row of the source that each sequence of `load_sequences` was cut from, given the same arguments."""
    if continuation is not None and holds_conversations(source):
        assert tokenizer is not None
        kept = [
            conversation.row
            for conversation in read_conversations(source, tokenizer, bos)
            for _, _, reason in conversation.windows(continuation, positions)
            if reason is None
        ]
        return np.array(kept, np.int64)
    corpus = open_corpus(source, tokenizer=tokenizer, vocabulary_size=None)
    cut = cut or ("first" if corpus.kind == "tokens" else "all")
    found, row = [np.empty(0, np.int64)], 0
    for rows, block in corpus.blocks_with(()):
        tokens, offsets = columns.drop_opening(block.tokens, block.offsets, bos)
        found.append(_window_starts(replace(block, tokens=tokens, offsets=offsets), window, cut)[1] + row)
        row += rows.num_rows
    return np.concatenate(found)


def _documents(rows: pa.RecordBatch, column: str | None, first: int | None) -> pa.Array:
    """Names of the rows' documents; given the number of the first row, unnamed documents become `row N`.

    Windows of one row depend on each other, whether or not the source names the document.
    """
    names = pa.nulls(rows.num_rows, pa.string()) if column is None else rows.column(column).cast(pa.string())
    if first is None:
        return names
    return pc.coalesce(names, pa.array([f"row {first + at}" for at in range(rows.num_rows)], pa.string()))


def _window_starts(block: Block, window: int, cut: Cut) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Start of each window in the block's tokens, and index of the row that it comes from."""
    count = np.diff(block.offsets) // window
    if cut == "first":
        count = np.minimum(count, 1)
    owners = np.repeat(np.arange(len(count), dtype=np.int64), count)
    # Window number within its row: the running number minus that of the row's first window.
    within = np.arange(len(owners)) - np.repeat(np.cumsum(count) - count, count)
    return block.offsets[owners] + within * window, owners


def _table(
    ids: npt.NDArray[np.int64],
    windows: npt.NDArray[np.int32],
    owners: npt.NDArray[np.int64],
    tokenizer: "PreTrainedTokenizerBase | None",
    documents: pa.Array,
) -> pa.Table:
    offsets = np.arange(len(windows) + 1, dtype=np.int32) * windows.shape[1]
    texts = pa.nulls(len(ids), pa.string()) if tokenizer is None else pa.array(columns.decode(tokenizer, windows), pa.string())
    names = documents.take(pa.array(owners)).cast(pa.string())
    tokens = pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(windows).reshape(-1)))
    return pa.table([pa.array(ids), tokens, texts, names], schema=schema.arrow_schema(COLUMNS))


def _dataset(table: pa.Table) -> "datasets.Dataset":
    """The table as a dataset. Its fingerprint is computed from its bytes, so that `Dataset.map` finds its cache again."""
    import datasets

    hashed = hashlib.sha256()
    for column in table.columns:
        for chunk in column.chunks:
            for buffer in chunk.buffers():
                if buffer is not None:
                    hashed.update(buffer)
    return datasets.Dataset(
        table,
        info=datasets.DatasetInfo(features=schema.features(table.column_names)),
        split=datasets.Split.TRAIN,
        fingerprint=hashed.hexdigest()[:32],
    )
