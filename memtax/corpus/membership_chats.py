"""Conversations among the rows of `memtax.corpus.membership_texts`."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from memtax.corpus.chat_rows import encode_or_reason, report_left_out
from memtax.corpus.columns import decode_rows
from memtax.corpus.conversations import PAIR, SCORED, UnreadableRowError, read_messages
from memtax.errors import MemtaxError

Row = dict[str, Any]


def encode(rows: Sequence[Row], tokenizer: Callable[[], Any] | None) -> list[Row]:
    """Conversations with their tokens and text; those without an answer to score are left out.

    Raises:
        MemtaxError: some rows are no conversations, there is no tokenizer, or as `encode_or_reason`.
    """
    if not all("shape" in row for row in rows) or len({row["shape"].templated for row in rows}) > 1:
        raise MemtaxError(
            "conversations cannot be compared with texts, or messages with pairs of strings; give one kind of rows"
        )
    if tokenizer is None:
        raise MemtaxError("conversations need a tokenizer with a chat template")
    reader = tokenizer()
    seen: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = {}
    found: list[Row] = []
    for row in rows:
        what = row["source"]
        encoded = encode_or_reason(reader, row["row"], row["shape"], what, seen[what])
        seen[what] += 1
        if isinstance(encoded, str):
            reasons.setdefault(what, Counter())[encoded] += 1
        else:
            found.append({**row, "tokens": encoded.tokens, SCORED: encoded.scored})
    for what, counts in reasons.items():
        report_left_out(tuple(counts.items()), seen[what], what)
    for row, text in zip(found, decode_rows(reader, [row["tokens"] for row in found]), strict=True):
        row["text"] = text
    return found


def answers(rows: Sequence[Row], what: str) -> list[Row]:
    """One row per answer; an unnamed conversation is the document of its answers."""
    found: list[Row] = []
    reasons: Counter[str] = Counter()
    for number, row in enumerate(rows):
        if "shape" not in row:
            found.append(row)
            continue
        try:
            if row["shape"].templated:
                messages, before = read_messages(row["row"], row["shape"], f"row {number} of {what}")
                texts = [message["content"] for message in messages[before:] if message["role"] == "assistant"]
            else:
                texts = [row["row"][PAIR[1]]]
        except UnreadableRowError as error:
            reasons[error.reason] += 1
            continue
        document = row["document"] if row["document"] is not None else f"row {number}"
        found += [{**row, "text": text, "document": document} for text in texts]
    report_left_out(tuple(reasons.items()), len(rows), what)
    return found
