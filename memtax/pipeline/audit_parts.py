"""Parts of the page of an audit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memtax.report import words
from memtax.report.parts import Panel, Section, Table


@dataclass(frozen=True)
class Finding:
    """A part of the page: a heading that states the conclusion, a paragraph, and a table if there are rows.

    Attributes:
        heading: the conclusion.
        text: the paragraph.
        caption: caption of the table.
        head: column names of the table.
        rows: cells of the table, as displayed.
        panel: a figure between paragraph and table.
        quoted: whether the last column quotes texts.
    """

    heading: str
    text: str
    caption: str = ""
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    panel: Panel | None = None
    quoted: bool = False

    def section(self, anchor: str) -> Section:
        """Convert to a section of a page."""
        table = Table(self.caption, tuple(self.head), tuple(map(tuple, self.rows)), texts=len(self.head), quoted=self.quoted)
        parts: list[Panel | Table] = [self.panel] if self.panel else []
        return Section(anchor, self.heading, self.text, (*parts, table) if self.rows else tuple(parts))


def say_share(one: Mapping[str, Any]) -> str:
    """A share with its interval, or why there is none."""
    if one["rate"] is None:
        return "no sequence"
    if one["low"] is None:
        return f"{words.percent(one['rate'])} (interval withheld: {one['reason']})"
    return f"{words.percent(one['rate'])} ({words.interval(one)}{words.over_other(one)})"
