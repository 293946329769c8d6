"""Tables of conversations: their rows as token ids, and those that have no answer to score."""

import functools
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from memtax.corpus.conversations import (
    SCORED,
    Encoded,
    Shape,
    UnreadableRowError,
    chat_template,
    encode_rows,
)
from memtax.errors import MemtaxError
from memtax.progress import skipped
from memtax.provenance import digest

if TYPE_CHECKING:
    import datasets

LEFT_OUT = "left_out"
"""Column of `as_tokens`: why a row has no tokens; null if it has."""
_VERSION = 2


def as_tokens(dataset: "datasets.Dataset | datasets.IterableDataset", shape: Shape, tokenizer: Any, what: str) -> Any:
    """The dataset with `tokens` and `scored_tokens` instead of the columns of its conversations; other columns are kept.

    Rows without an answer that can be scored are kept without tokens, with the reason in `left_out`, and reported.

    Args:
        dataset: an open source.
        shape: from `find_shape`.
        tokenizer: as for `encode_rows`.
        what: the source, for messages of errors.

    Raises:
        MemtaxError: as `encode_rows`; there is no tokenizer; or no row has an answer that can be scored.
    """
    import datasets

    if tokenizer is None:
        raise MemtaxError(f"{what} holds conversations: give a tokenizer with a chat template, or choose a column of token ids")
    if shape.templated:
        chat_template(tokenizer)

    def encode(batch: dict[str, list[Any]], places: list[int]) -> dict[str, list[Any]]:
        names = [name for name in (*shape.columns, "tools") if name in batch]
        rows = [dict(zip(names, values, strict=True)) for values in zip(*(batch[name] for name in names), strict=True)]
        found = [encode_or_reason(tokenizer, row, shape, what, place) for place, row in zip(places, rows, strict=True)]
        return {
            "tokens": [[] if isinstance(row, str) else row.tokens for row in found],
            SCORED: [[] if isinstance(row, str) else row.scored for row in found],
            LEFT_OUT: [row if isinstance(row, str) else None for row in found],
        }

    options: dict[str, Any] = {"batched": True, "with_indices": True, "remove_columns": list(shape.columns)}
    if isinstance(dataset, datasets.IterableDataset):
        return dataset.map(encode, **options)
    features = datasets.Features({name: kind for name, kind in dataset.features.items() if name not in shape.columns})
    features |= {"tokens": datasets.List(datasets.Value("int32")), SCORED: datasets.List(datasets.Value("bool"))}
    features |= {LEFT_OUT: datasets.Value("string")}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())
    template = chat_template(tokenizer) if shape.templated else None
    made = digest("conversations", _VERSION, dataset._fingerprint, list(shape.columns), vocabulary, template)
    encoded = dataset.map(encode, **options, features=datasets.Features(features), new_fingerprint=made)
    reasons = Counter(reason for reason in encoded.with_format(None)[LEFT_OUT] if reason is not None)
    report_left_out(tuple(reasons.items()), len(encoded), what)
    return encoded


def encode_or_reason(tokenizer: Any, row: Mapping[str, Any], shape: Shape, what: str, number: int) -> Encoded | str:
    """A row as tokens, or why it has no answer that can be scored.

    Raises:
        MemtaxError: as `encode_rows`, except for such rows.
    """
    try:
        return encode_rows(tokenizer, [row], shape, what, number)[0]
    except UnreadableRowError as error:
        return error.reason


@functools.lru_cache(maxsize=64)
def report_left_out(reasons: tuple[tuple[str, int], ...], rows: int, what: str) -> None:
    """Say once how many rows are left out.

    Args:
        reasons: pairs of a reason and its number of rows.
        rows: number of all rows.
        what: the source.

    Raises:
        MemtaxError: no row is left.
    """
    if rows and sum(count for _, count in reasons) == rows:
        few = ", ".join(f"{count:,} {reason}" for reason, count in reasons)
        raise MemtaxError(f"{what} has no row with an answer that can be scored: {few}")
    for reason, count in reasons:
        skipped(count, f"{reason}, in {what}")
