"""Saving figures as SVG and PNG, with the same bytes for the same figure."""

import io
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memtax.files import atomic_path, write_text
from memtax.report.figures import figure_of, style


def svg(drawn: Any) -> str:
    """The figure as SVG, the same text for the same figure."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    with _canvas(drawn, FigureCanvasSVG, 100) as canvas:
        canvas.print_svg(buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return buffer.getvalue()


def png(drawn: Any) -> bytes:
    """The figure as PNG at 160 dots per inch, without metadata."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    with _canvas(drawn, FigureCanvasAgg, 160) as canvas:
        canvas.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


@contextmanager
def _canvas(drawn: Any, kind: type[Any], dpi: int) -> Iterator[Any]:
    """A canvas of the figure. The layout is solved during drawing; `savefig` would draw everything an additional time."""
    figure = figure_of(drawn)
    before = figure.dpi
    with style():
        figure.dpi = dpi
        try:
            yield kind(figure)
        finally:
            figure.dpi = before


@dataclass(frozen=True)
class Files:
    """A figure as standalone files with its conclusion above it, and as part of a page without the conclusion.

    Attributes:
        svg: with the title.
        png: with the title, at 160 dots per inch.
        untitled: the same SVG without the title and its space.
    """

    svg: str
    png: bytes
    untitled: str


def titled(drawn: Any, title: str) -> Files:
    """Put a title above the figure, and draw it."""
    figure = figure_of(drawn)
    with style():
        lines = "\n".join(textwrap.wrap(title, 100))
        text = figure.suptitle(lines, x=0.01, ha="left", fontsize=11, fontweight="bold", gid="title", zorder=1000)
        room = text.get_window_extent().height / figure.dpi + _PAD
        width, height = figure.get_size_inches()
        figure.set_size_inches(width, height + room)
    vectors = svg(drawn)
    # The layout is already solved, and solving it takes as long as drawing.
    figure.set_layout_engine("none")
    return Files(vectors, png(drawn), _without_title(vectors, room * 72))


_PAD = 0.04
"""Inches between title and axes, as in matplotlib's layout."""


def _without_title(vectors: str, room: float) -> str:
    """Cut `room` points off the top, and the element drawn last, whose glyphs no other element uses."""
    start = vectors.index('<g id="title">')
    depth = 0
    for tag in re.finditer(r"<g\b|</g>", vectors[start:]):
        depth += 1 if tag[0] == "<g" else -1
        if not depth:
            vectors = vectors[:start] + vectors[start + tag.end() :]
            break

    def lowered(found: re.Match[str]) -> str:
        height = float(found[2]) - room
        return f'width="{found[1]}pt" height="{height:g}pt" viewBox="0 {room:g} {found[1]} {height:g}"'

    return re.sub(r'width="([\d.]+)pt" height="([\d.]+)pt" viewBox="[^"]*"', lowered, vectors, count=1)


def save(drawn: Any, folder: Path, name: str, title: str) -> None:
    """Write the figure of the axes as PNG and SVG, with its conclusion as the title."""
    files = titled(drawn, title)
    write_text(folder / f"{name}.svg", files.svg)
    with atomic_path(folder / f"{name}.png") as path:
        path.write_bytes(files.png)
