"""Texts of a run as reports may quote them: masked as in the published run, or unmasked if requested."""

import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from memtax import privacy
from memtax.privacy import Finding
from memtax.records import read_run
from memtax.results import SUMMARY, read_summary

_AROUND = 128
"""Characters on each side of a window that are read with it."""
_CUT = 64
"""Characters at an edge of a window that may belong to a number, name or address beyond it."""
_NEAR = 3
"""Words at an edge of which a single capitalized one may be part of a name."""
_BROKEN = "\N{REPLACEMENT CHARACTER}"
_WORD = re.compile(r"\S+")
_JOINED = re.compile(r"[0-9@]|\w[._%&+-]+\w")


def shows_personal_data(folder: Path) -> bool:
    """Whether a directory is an audit that shows personal data."""
    return (folder / SUMMARY).is_file() and read_summary(folder).get("personal_data_shown") is True


def is_masked(run: Path) -> bool:
    """Whether a run masked the texts of its tables."""
    record = run / "run.yaml"
    config = read_run(record).get("config") if record.is_file() else None
    return isinstance(config, dict) and config.get("mask_personal_data") is True


def complete(table: pa.Table, run: Path, *, texts: bool) -> pa.Table:
    """Add to a run's features the tokens and document names that a masked run omits because they contain personal data.

    Args:
        table: with `sequence_id`, and `tokens` or `text`.
        run: the run's directory, which keeps its sequences as they were cut.
        texts: also restore the unmasked texts.

    Returns:
        The table; unchanged if nothing was masked or the sequences are missing.
    """
    file = run / "sequences" / "train.parquet"
    masked = "tokens" in table.column_names and table.column("tokens").combine_chunks().flatten().null_count
    if not masked or not file.is_file():
        return table
    whole = pq.read_table(file, columns=["sequence_id", "text", "tokens", "document"])
    places = pc.index_in(table.column("sequence_id"), whole.column("sequence_id"))
    if places.null_count:
        return table
    wanted = ("tokens", "document", *(("text",) if texts else ()))
    for name in (name for name in wanted if name in table.column_names):
        table = table.set_column(table.column_names.index(name), name, whole.column(name).take(places))
    return table


def quotable(
    texts: Sequence[str | None],
    documents: Sequence[str | None],
    rows: Sequence[int],
    *,
    show: bool,
    masked: bool = False,
) -> list[str | None]:
    """Texts of some windows as they may be quoted.

    If the edge of a window cuts a number or address, the neighboring windows complete it; without them, everything that may be
    part of one is masked: up to 64 characters of that edge, if numbers, names or addresses are in them.

    Args:
        texts: texts of all windows, in document order within each document.
        documents: documents that the windows were cut from; None if unknown.
        rows: windows to quote.
        show: quote them unmasked.
        masked: the texts were masked with their whole documents known, so that nothing is cut.
    """
    return [texts[row] if show else _masked(texts, documents, row, masked) for row in rows]


def _masked(texts: Sequence[str | None], documents: Sequence[str | None], row: int, masked: bool) -> str | None:
    text = texts[row]
    if not text:
        return text
    before = _beside(texts, documents, row, -1)[-_AROUND:]
    after = _beside(texts, documents, row, 1)[:_AROUND]
    around, place = before + text + after, (len(before), len(before) + len(text))
    found = privacy.cover(around, open_ends=True)
    if not masked:
        reach = min(_CUT, 2 * len(text) // 3)
        # Of a character that an edge cuts, no neighbor has the rest.
        found += _cut_start(around, place[0] + reach if text[0] == _BROKEN else reach)
        found += _cut_end(around, place[1] - reach if text[-1] == _BROKEN else len(around) - reach)
    known = privacy.window_spans(found, place)
    return privacy.mask(text, privacy.cover(text, known, open_ends=True))


def _cut_end(text: str, reach: int) -> list[Finding]:
    """What may belong to something that continues beyond the end: from the first number, name or address after `reach` on."""
    first = min(_hints([match for match in _WORD.finditer(text) if match.end() > reach], -1), default=None)
    return [] if first is None else [Finding("cut off", first[0], len(text))]


def _cut_start(text: str, reach: int) -> list[Finding]:
    """Likewise for what begins before the text: up to the last number, name or address before `reach`."""
    last = max(_hints([match for match in _WORD.finditer(text) if match.start() < reach], 0), default=None)
    return [] if last is None else [Finding("cut off", 0, last[1])]


def _hints(words: Sequence[re.Match[str]], edge: int) -> list[tuple[int, int]]:
    """Where words may be part of a number, a name or an address: those with digits or punctuation, and capitalized ones.

    A capitalized word counts beside another such word, or if it is among the first words (`edge` 0) or the last (-1).
    """
    joined = [bool(_JOINED.search(match[0])) for match in words]
    likely = [joined[number] or match[0][0].isupper() for number, match in enumerate(words)]
    near = range(len(words))[-_NEAR:] if edge else range(_NEAR)

    def is_named(number: int) -> bool:
        return likely[number] and (number in near or any(likely[number + 1 : number + 2] + likely[:number][-1:]))

    return [match.span() for number, match in enumerate(words) if joined[number] or is_named(number)]


def _beside(texts: Sequence[str | None], documents: Sequence[str | None], row: int, step: int) -> str:
    """Text of the document on one side of a window, at least `_AROUND` characters if available."""
    joined, at = "", row + step
    while len(joined) < _AROUND and 0 <= at < len(texts) and documents[at] is not None and documents[at] == documents[row]:
        joined = f"{joined}{texts[at] or ''}" if step > 0 else f"{texts[at] or ''}{joined}"
        at += step
    return joined
