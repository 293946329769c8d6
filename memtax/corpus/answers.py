"""Answers of conversations as sequences: the prompt is the conversation before an answer, the continuation its first tokens."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from memtax import schema
from memtax.corpus import columns
from memtax.corpus.conversations import PROMPT, SCORED, Encoded, Shape, find_shape
from memtax.corpus.sources import Source, open_dataset
from memtax.progress import progress_bar
from memtax.progress import skipped as say_skipped

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

COLUMNS = ("sequence_id", "tokens", PROMPT, "text", "document")
_ROWS_PER_READ = 1000


@dataclass(frozen=True)
class Conversation:
    """A row of a source.

    Attributes:
        row: its number.
        tokens: ids of the whole conversation, without the opening.
        scored: whether the assistant wrote each of them.
        document: the row's document, `row N` if the source does not name it.
        left_out: why the row has no tokens; None if it has.
    """

    row: int
    tokens: list[int]
    scored: list[bool]
    document: str
    left_out: str | None = None

    def windows(self, continuation: int, positions: int | None) -> Iterator[tuple[int, list[int], str | None]]:
        """For each answer, tokens of its prompt, tokens of prompt and continuation, and why they are not all there."""
        for start, end in Encoded(self.tokens, self.scored).answers():
            reason = None
            if end - start < continuation:
                reason = f"shorter than {continuation} tokens"
            elif positions is not None and start + continuation > positions:
                reason = f"beyond the model's {positions} positions with the conversation before it"
            yield start, self.tokens[: min(end, start + continuation)][:positions], reason


def holds_conversations(source: Any) -> bool:
    """Whether a source, or an open dataset, has conversations and no column of tokens or text that is read instead."""
    return _shape(source) is not None


def holds_messages(source: Any) -> bool:
    """Whether these conversations are messages, which a chat template renders."""
    shape = _shape(source)
    return shape is not None and shape.templated


def _shape(source: Any) -> Shape | None:
    dataset = open_dataset(source) if isinstance(source, Source) else source
    features = getattr(dataset, "features", None)
    column = source.column if isinstance(source, Source) else None
    return None if features is None else find_shape(features.arrow_schema, column)


def read_conversations(
    source: Any, tokenizer: "PreTrainedTokenizerBase", opening: Sequence[int] = ()
) -> Iterator[Conversation]:
    """The conversations of a source, or of an open dataset; rows without an answer to score have no tokens.

    Args:
        source: the source, for which `holds_conversations` is true.
        tokenizer: the tokenizer with the chat template.
        opening: ids that are dropped from the start of a row (BOS): the model gets them anyway.

    Raises:
        MemtaxError: as `memtax.corpus.chat_rows.as_tokens`.
    """
    from memtax.corpus.chat_rows import LEFT_OUT, as_tokens

    dataset, label = (open_dataset(source), source.label) if isinstance(source, Source) else (source, "the dataset")
    shape = find_shape(dataset.features.arrow_schema, source.column if isinstance(source, Source) else None)
    assert shape is not None
    encoded = as_tokens(dataset, shape, tokenizer, label)
    document = next((name for name in columns.DOCUMENT_COLUMNS if name in encoded.column_names), None)
    names = ["tokens", SCORED, LEFT_OUT, *([document] if document else [])]
    row = 0
    for batch in encoded.select_columns(names).with_format(None).iter(batch_size=_ROWS_PER_READ):
        named = batch[document] if document else [None] * len(batch["tokens"])
        for tokens, scored, reason, name in zip(batch["tokens"], batch[SCORED], batch[LEFT_OUT], named, strict=True):
            begins = len(opening) if list(tokens[: len(opening)]) == list(opening) else 0
            name = name if isinstance(name, str) else f"row {row}"
            yield Conversation(row, list(tokens[begins:]), list(scored[begins:]), name, reason)
            row += 1


def load_answers(
    source: Any,
    *,
    continuation: int,
    tokenizer: "PreTrainedTokenizerBase",
    opening: Sequence[int] = (),
    positions: int | None = None,
    whole_only: bool = True,
) -> tuple[pa.Table, dict[str, int]]:
    """One sequence for every answer.

    Args:
        source: as for `read_conversations`.
        continuation: tokens of an answer to read.
        tokenizer: as for `read_conversations`.
        opening: as for `read_conversations`.
        positions: positions that the model has for text; None: no limit.
        whole_only: leave out answers that are too short or end beyond the positions; otherwise they are kept, cut.

    Returns:
        The `COLUMNS`: `sequence_id` numbers all answers of the source. And for each reason the number of answers that are left
        out, or cut, and of rows without an answer.

    Raises:
        MemtaxError: as `read_conversations`.
    """
    rows: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    reasons: Counter[str] = Counter()
    unread: Counter[str] = Counter()
    number = 0
    with progress_bar("reading conversations", None) as bar:
        for conversation in read_conversations(source, tokenizer, opening):
            if conversation.left_out is not None:
                unread[f"rows {conversation.left_out}"] += 1
            for start, tokens, reason in conversation.windows(continuation, positions):
                if reason is not None:
                    reasons[reason] += 1
                if not (whole_only and reason):
                    values = (number, tokens, min(start, len(tokens)), None, conversation.document)
                    for name, value in zip(COLUMNS, values, strict=True):
                        rows[name].append(value)
                number += 1
            bar.update(1)
    rows["text"] = columns.decode_rows(tokenizer, rows["tokens"])
    label = source.label if isinstance(source, Source) else "the dataset"
    for reason, count in reasons.items():
        say_skipped(count, f"{reason}, in {label}{'' if whole_only else '; values that need them are null'}", "answer")
    left_out = {f"answers {reason}": count for reason, count in reasons.items()} | dict(unread)
    return pa.table(rows, schema=schema.arrow_schema(COLUMNS)), left_out
