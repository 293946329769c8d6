"""Building blocks of pages: sections with tables, quotes, and figures under their conclusions."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from memtax.report import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Table:
    """A table of texts. In a row shorter than the head, the last cell (a reason) spans the remaining columns.

    Attributes:
        caption: what the table shows.
        head: column names.
        rows: cells, as displayed.
        folded: whether the table is collapsed, as for the numbers of a figure.
        texts: number of leading columns with text; the others contain numbers.
        quoted: whether the last column quotes texts with their line breaks.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    folded: bool = False
    texts: int = 1
    quoted: bool = False


@dataclass(frozen=True)
class Quote:
    """A quoted text with its line breaks.

    Attributes:
        label: description for screen readers.
        quote: the text; it is escaped on the page.
    """

    label: str
    quote: str


@dataclass(frozen=True)
class Panel:
    """A figure under its conclusion.

    Attributes:
        name: name of its files and of the ids in its drawing; unique on the page.
        title: the conclusion.
        caption: how to read the figure.
        drawn: axes, or an array of them.
    """

    name: str
    title: str
    caption: str
    drawn: Any

    @property
    def figure(self) -> "Figure":
        """The figure that contains the axes."""
        return figures.figure_of(self.drawn)


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        anchor: target of links to it.
        heading: its title.
        text: introductory paragraph; may be empty.
        parts: its contents, in order.
        missing: reasons why parts are missing.
        listed: whether the navigation includes it.
    """

    anchor: str
    heading: str
    text: str
    parts: tuple[Panel | Table | Quote, ...] = field(default=())
    missing: tuple[str, ...] = field(default=())
    listed: bool = True
