"""Examples of `memtax influence` as tokens with their targets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memtax import schema, statistics
from memtax.corpus import columns
from memtax.corpus.answers import holds_conversations, read_conversations
from memtax.corpus.sources import Source, open_dataset
from memtax.errors import MemtaxError
from memtax.lm.loading import load_tokenizer, vocabulary_size
from memtax.lm.special_tokens import BosIds, text_ids, without_bos
from memtax.progress import skipped

if TYPE_CHECKING:
    from memtax.attribution.influence_table import InfluenceSettings


@dataclass(frozen=True)
class Examples:
    """Examples as tokens, with their targets, ids, texts and classes (None: not requested).

    Attributes:
        ids: `sequence_id` of each example.
        tokens: tokens of each example, cut to the model's maximum length.
        scored: whether each token is a target.
        texts: texts of the examples; None for rows of tokens.
        classes: labels for accuracy and coverage.
        cut: number of examples that were too long.
        units: units of the intervals: documents, or else equal texts or tokens.
    """

    ids: list[int]
    tokens: list[list[int]]
    scored: list[list[bool]]
    texts: list[str | None]
    classes: list[Any] | None
    cut: int
    units: statistics.Units


def load_examples(source: Source, settings: "InfluenceSettings", longest: int | None, bos: BosIds = ()) -> Examples:
    """Rows of a source as tokens without BOS: the prompt's tokens, if there is a prompt column, and then the example's.

    Of conversations the targets are the assistant's tokens.

    Raises:
        MemtaxError: a column is missing or has another type, an id occurs twice, or there are no rows.
    """
    dataset = open_dataset(source)
    if holds_conversations(source):
        return _conversations(dataset, source, settings, longest, bos)
    names = list(dataset.column_names or ())
    name = columns.find_column(names, source.column, source.label)
    asked = [one for one in (settings.prompt_column, settings.class_column) if one]
    schema.require(names, asked, source.label)
    for one in filter(None, (name, settings.prompt_column)):
        kind = dataset.features.arrow_schema.field(one).type
        if str(kind) != "null":
            columns.column_kind(kind, one, source.label)
    rows = list(dataset)
    if not rows:
        raise MemtaxError(f"{source.label} has no rows")
    texts = [row[name] if isinstance(row[name], str) else None for row in rows]
    reader = None
    if settings.prompt_column or any(text is not None for text in texts):
        reader = load_tokenizer(settings.tokenizer or settings.model, None if settings.tokenizer else settings.revision)
    tokens, scored = [], []
    for row in rows:
        before = _encode(reader, row[settings.prompt_column], bos) if settings.prompt_column else []
        tokens.append([*before, *_encode(reader, row[name], bos)])
        scored.append([False] * len(before) + [True] * (len(tokens[-1]) - len(before)))
    return _examples(rows, source.label, settings, longest, tokens, scored, texts)


def _conversations(dataset: Any, source: Source, settings: "InfluenceSettings", longest: int | None, bos: BosIds) -> Examples:
    if settings.prompt_column:
        raise MemtaxError(f"{source.label} holds conversations, whose prompts are part of them; leave --prompt-column out")
    schema.require(dataset.column_names, [settings.class_column] if settings.class_column else [], source.label)
    reader = load_tokenizer(settings.tokenizer or settings.model, None if settings.tokenizer else settings.revision)
    found = list(read_conversations(source, reader, bos))
    tokens, scored = [one.tokens for one in found], [one.scored for one in found]
    rows = dataset.select_columns(
        [name for name in ("sequence_id", "document", settings.class_column) if name in dataset.column_names]
    )
    rows = list(rows) if rows.column_names else [{} for _ in found]
    return _examples(rows, source.label, settings, longest, tokens, scored, columns.decode_rows(reader, tokens))


def _examples(
    rows: list[dict[str, Any]],
    label: str,
    settings: "InfluenceSettings",
    longest: int | None,
    tokens: list[list[int]],
    scored: list[list[bool]],
    texts: Sequence[str | None],
) -> Examples:
    """The examples, cut to their maximum length."""
    ids = [row.get("sequence_id", place) for place, row in enumerate(rows)]
    if not all(isinstance(one, int) for one in ids) or len(set(ids)) < len(ids):
        raise MemtaxError(f"sequence_id of {label} must be integers without repetitions")
    known = vocabulary_size(settings.model, settings.revision)
    if known is not None and (beyond := max((max(row, default=0) for row in tokens), default=0)) >= known:
        raise MemtaxError(
            f"token id {beyond} in {label} is outside the model's vocabulary of {known}; was another tokenizer used?"
        )
    cut = sum(longest is not None and len(row) > longest for row in tokens)
    tokens, scored = [row[:longest] for row in tokens], [row[:longest] for row in scored]
    # The first token has no context.
    skipped(sum(not any(one[1:]) for one in scored), f"without a token to predict, in {label}; the influence is null")
    classes = [row[settings.class_column] for row in rows] if settings.class_column else None
    documents = [row.get("document") for row in rows]
    codes = statistics.unit_codes(documents, texts, tokens)
    unit = "document" if any(one is not None for one in documents) else "text"
    return Examples(ids, tokens, scored, list(texts), classes, cut, statistics.Units(codes, unit))


def _encode(reader: Any, value: Any, bos: BosIds) -> list[int]:
    if value is None:
        return []
    tokens = text_ids(reader, [value])[0] if isinstance(value, str) else [int(token) for token in value]
    return list(without_bos(tokens, bos))
