"""What pages are made of: sections of tables, quotes and figures under their conclusions."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from memtax.report import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Table:
    """A table of texts. A row that is shorter than the head ends in a cell that spans the rest (a reason).

    Attributes:
        caption: what it shows.
        head: names of the columns.
        rows: their cells, as they are shown.
        folded: whether it is behind a fold: the numbers of a figure.
        texts: leading columns that hold text; the others hold numbers.
        quoted: whether the last column holds texts as they are, with their lines.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    folded: bool = False
    texts: int = 1
    quoted: bool = False


@dataclass(frozen=True)
class Quote:
    """A text as it is, with its lines.

    Attributes:
        label: what it is, for those who hear the page.
        quote: the text; it is escaped on the page.
    """

    label: str
    quote: str


@dataclass(frozen=True)
class Panel:
    """A figure under its conclusion.

    Attributes:
        name: of its files and of the ids in its drawing; unique on the page.
        title: the conclusion.
        caption: how to read it.
        drawn: axes, or an array of them.
    """

    name: str
    title: str
    caption: str
    drawn: Any

    @property
    def figure(self) -> "Figure":
        """The figure that they are on."""
        return figures.figure_of(self.drawn)


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        anchor: where links to it point.
        heading: its title.
        text: the paragraph under it; empty for none.
        parts: what follows, in order.
        missing: why something is not here.
        listed: whether the navigation names it.
    """

    anchor: str
    heading: str
    text: str
    parts: tuple[Panel | Table | Quote, ...] = field(default=())
    missing: tuple[str, ...] = field(default=())
    listed: bool = True
