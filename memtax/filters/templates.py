"""Whether a text is a template that runs on: a pattern that repeats, or one with a counter in it.

The rules, on the text's items (words, numbers and other characters; white space only separates):

1. A *stretch* is a part of the text that one period predicts: each item is the same as the one a period before, or carries
   a counter on (`_template_search` has the details). It shows its period at least `repetitions` times, and at least
   `purity` of its characters after the first period are predicted; all of them if a counter goes on in it that does not
   reach `terms` values, since three values go up by chance where other things differ too. What is not predicted may not
   come back in period after period, as the arguments of a call do that is written again and again, unless one counter goes
   on through them.
2. A text is *incrementing* if its stretches hold at least `coverage` of its characters, at least half of that in
   stretches in which a counter goes on; `coverage_to_end` suffices if a stretch runs to the end of the text (whose last item
   may be cut), as then what would follow is decided by the template.
3. It is also incrementing if a number goes up by one from record to record, whatever else the records hold, at least
   `terms` times, in records that hold `coverage` of the characters, of which at least `recurring` are the counter's or
   are found in the record before, or in records of at most `SHORT_RECORD` items: numbered tables, lists of short entries, and
   tables with a line for each of consecutive hexadecimal numbers, while numbered prose stays out. The numbers stand after one
   and the same item; where they stand before it, as in `7. Pears` or `0x0a:`, short records or hexadecimal numbers are asked
   for.
4. Else it is *repeating* if one pattern, the best stretch and what goes on like it after interruptions, holds `coverage` of
   its characters; `coverage_to_end` suffices at the end of the text, with interruptions shorter than the period.

Counters are decimal and hexadecimal numbers, ordinals, single letters, number words, Roman numerals, week days, months and
Greek letters; steps may be arithmetic or geometric.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, TypeAlias

import numpy as np

from memtax.errors import MemtaxError
from memtax.filters.base import Batch, Filter

Row: TypeAlias = tuple[bool, bool, int | None]
"""`is_incrementing`, `is_repeating` and `template_period` of a text."""

AT_ONCE = 1 << 20
"""Characters that are analyzed together, which bounds the memory."""


@dataclass(frozen=True)
class TemplateFilter(Filter):
    """Adds `is_incrementing`, `is_repeating` (never both) and `template_period`, all None where the text is None.

    The period is in items: of the best stretch, or the mean record of a list; None where neither flag is set.

    Args:
        repetitions: how often a stretch must show its period, at least 2.
        purity: share of a stretch's characters after its first period that must be predicted, in (0, 1].
        coverage: share of the text's characters that a template must hold, in (0, 1].
        coverage_to_end: the same where the template reaches the end of the text.
        terms: values that a counter over periods or records of differing content must show, at least 2.
        recurring: share of such records' characters that must recur, in (0, 1].

    Raises:
        MemtaxError: a parameter is out of its range.

    Example:
        >>> from memtax.filters import TemplateFilter
        >>> columns = TemplateFilter()({"text": ["item 1, item 2, item 3, item 4, item 5,", "Call me Ishmael. Some years ago"]})
        >>> columns["is_incrementing"], columns["template_period"]
        ([True, False], [3, None])
    """

    name: ClassVar[str] = "templates"
    requires: ClassVar[tuple[str, ...]] = ("text",)
    columns: ClassVar[tuple[str, ...]] = ("is_incrementing", "is_repeating", "template_period")
    version: ClassVar[int] = 5

    repetitions: float = 2.5
    purity: float = 0.95
    coverage: float = 0.8
    coverage_to_end: float = 0.5
    terms: int = 4
    recurring: float = 0.45

    def __post_init__(self) -> None:
        for name in ("repetitions", "terms"):
            if not getattr(self, name) >= 2:
                raise MemtaxError(f"{name} is {getattr(self, name)!r}; a template shows itself at least twice")
        for name in ("purity", "coverage", "coverage_to_end", "recurring"):
            if not 0 < getattr(self, name) <= 1:
                raise MemtaxError(f"{name} is {getattr(self, name)!r}; it must be a share above 0 and at most 1")

    def compute(self, batch: Batch) -> Batch:
        """The decisions, row by row: a text's neighbors in the batch do not matter."""
        texts = [text or "" for text in batch["text"]]
        parts = np.cumsum([len(text) for text in texts]) // AT_ONCE
        borders = [0, *(np.flatnonzero(np.diff(parts)) + 1).tolist(), len(texts)]
        rows: list[Row] = []
        for start, end in pairwise(borders):
            rows += self._decide(texts[start:end])
        columns = [list(values) for values in zip(*rows, strict=True)] or [[], [], []]
        for row, text in enumerate(batch["text"]):
            if text is None:
                for values in columns:
                    values[row] = None
        return dict(zip(self.columns, columns, strict=True))

    def _decide(self, texts: list[str]) -> Iterator[Row]:
        """`is_incrementing`, `is_repeating` and `template_period` of some texts."""
        from memtax.filters._template_items import encode
        from memtax.filters._template_search import SHORT_RECORD, describe

        periods, shares = describe(*encode(texts), float(self.repetitions), float(self.purity), int(self.terms))
        covered, counted, main, ends_so, main_at_end, listed, recurring = shares.T
        enough = covered >= np.where(ends_so > 0, self.coverage_to_end, self.coverage)
        counts = enough & (counted >= covered / 2)
        short = (periods[:, 1] > 0) & (periods[:, 1] <= SHORT_RECORD)
        lists = ~counts & (listed >= self.coverage) & ((recurring >= self.recurring) | short)
        repeats = ~counts & ~lists & ((main >= self.coverage) | (main_at_end >= self.coverage_to_end))
        period = np.where(lists, periods[:, 1], periods[:, 0]) * (counts | lists | repeats)
        return zip((counts | lists).tolist(), repeats.tolist(), (items or None for items in period.tolist()), strict=True)
