"""Whether a text is a template: a pattern that repeats, or one with a counter.

The rules, on the text's items (words, numbers and other characters; white space only separates):

1. A *stretch* is a part of the text that one period predicts: each item equals the item one period earlier, or continues a
   counter (`_template_search` has the details). It shows its period at least `repetitions` times, and at least `purity` of its
   characters after the first period are predicted; if a counter in it has fewer than `terms` values, all of them must be,
   since three values may increase by chance where other content varies too. Unpredicted items must not recur in period after
   period, like the arguments of a repeated call, unless one counter continues through these periods.
2. A text is *incrementing* if its stretches cover at least `coverage` of its characters, and stretches in which a counter
   advances cover at least half of that; `coverage_to_end` suffices if a stretch reaches the end of the text (whose last item
   may be truncated), since the template then determines what follows.
3. It is also incrementing if a number increases by one from record to record at least `terms` times, whatever else the records
   contain. The records must cover `coverage` of the characters, and at least `recurring` of these must belong to the counter
   or occur in the previous record, unless records have at most `SHORT_RECORD` items. This covers numbered tables, lists of
   short entries, and tables with one line per consecutive hexadecimal number, but not numbered prose. The numbers must follow
   the same item; if they precede it, as in `7. Pears` or `0x0a:`, records must be short or numbers hexadecimal.
4. Otherwise it is *repeating* if one pattern, the best stretch and its continuations after interruptions, covers `coverage` of
   its characters; `coverage_to_end` suffices at the end of the text, with interruptions shorter than the period.

Counters are decimal and hexadecimal numbers, ordinals, single letters, number words, Roman numerals, weekdays, months and
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
"""Characters analyzed together, which limits the memory."""


@dataclass(frozen=True)
class TemplateFilter(Filter):
    """Adds `is_incrementing`, `is_repeating` (never both) and `template_period`, all None if the text is None.

    The period is in items: that of the best stretch, or the mean record length of a list; None if neither flag is set.

    Args:
        repetitions: number of times that a stretch must show its period, at least 2.
        purity: share of a stretch's characters after its first period that must be predicted, in (0, 1].
        coverage: share of the text's characters that a template must cover, in (0, 1].
        coverage_to_end: the same if the template reaches the end of the text.
        terms: number of values that a counter must show if periods or records differ in content, at least 2.
        recurring: share of such records' characters that must recur, in (0, 1].

    Raises:
        MemtaxError: a parameter is out of range.

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
                raise MemtaxError(f"{name} is {getattr(self, name)!r}; it must be at least 2")
        for name in ("purity", "coverage", "coverage_to_end", "recurring"):
            if not 0 < getattr(self, name) <= 1:
                raise MemtaxError(f"{name} is {getattr(self, name)!r}; it must be a share above 0 and at most 1")

    def compute(self, batch: Batch) -> Batch:
        """The decisions for each row, independent of the other rows in the batch."""
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
