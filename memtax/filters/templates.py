"""Whether a text is a template that runs on: a pattern that repeats, or one with a counter in it.

The rules, on the text's items (words, numbers and other characters; white space only separates):

1. A *stretch* is a part of the text that one period predicts: each item is the same as the one a period before, or carries
   a counter on (`_template_search` has the details). It shows its period at least `repetitions` times, and at least
   `purity` of its characters after the first period are predicted.
2. The text is a template if its stretches hold at least `coverage` of its characters, or only `coverage_to_end` if one of
   them runs to the end of the text (whose last item may be cut): what follows such a text is decided by the template.
3. It is *incrementing* if counters go on in at least half of those characters, else *repeating*.
4. It is also incrementing, whatever its records hold, if a counter goes up by one over at least `terms` records that
   hold at least `coverage` of the characters: numbered lists and tables.

Counters are decimal and hexadecimal numbers, ordinals, single letters, number words, Roman numerals, week days, months and
Greek letters; steps may be arithmetic or geometric.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from memtax.errors import MemtaxError
from memtax.filters._template_items import encode
from memtax.filters.base import Batch, Filter


@dataclass(frozen=True)
class TemplateFilter(Filter):
    """Adds `is_incrementing`, `is_repeating` (never both) and `template_period`, None where the text is None.

    Args:
        repetitions: how often a stretch must show its period, at least 2.
        purity: share of a stretch's characters after its first period that must be predicted, in (0, 1].
        coverage: share of the text's characters that its stretches must hold, in (0, 1].
        coverage_to_end: the same where a stretch reaches the end of the text.
        terms: values that a counter over records of differing content must show, at least 2.

    Raises:
        MemtaxError: a parameter is out of its range.
    """

    name: ClassVar[str] = "templates"
    requires: ClassVar[tuple[str, ...]] = ("text",)
    columns: ClassVar[tuple[str, ...]] = ("is_incrementing", "is_repeating", "template_period")

    repetitions: float = 2.5
    purity: float = 0.9
    coverage: float = 0.7
    coverage_to_end: float = 0.5
    terms: int = 4

    def __post_init__(self) -> None:
        for name in ("repetitions", "terms"):
            if not getattr(self, name) >= 2:
                raise MemtaxError(f"{name} is {getattr(self, name)!r}; a template shows itself at least twice")
        for name in ("purity", "coverage", "coverage_to_end"):
            if not 0 < getattr(self, name) <= 1:
                raise MemtaxError(f"{name} is {getattr(self, name)!r}; it must be a share above 0 and at most 1")

    def compute(self, batch: Batch) -> Batch:
        """The decisions, and the period in items of the largest stretch (or the mean record) where one was found."""
        from memtax.filters._template_search import describe

        texts: list[str | None] = batch["text"]
        keys, table, ends = encode([text or "" for text in texts])
        periods, shares = describe(keys, table, ends, float(self.repetitions), float(self.purity), int(self.terms))
        covered, counting, _, counted, to_end = shares.T
        template = covered >= np.where(to_end > 0, self.coverage_to_end, self.coverage)
        incrementing = template & (counting >= covered / 2)
        listing = ~incrementing & (counted >= self.coverage)
        incrementing |= listing
        repeating = template & ~incrementing
        period = np.where(listing, periods[:, 1], periods[:, 0])
        rows = zip(texts, incrementing.tolist(), repeating.tolist(), period.tolist(), strict=True)
        decided = [(None, None, None) if t is None else (i, r, p if i or r else None) for t, i, r, p in rows]
        return (
            {name: list(values) for name, values in zip(self.columns, zip(*decided), strict=True)}
            if decided
            else {name: [] for name in self.columns}
        )
