"""Figures as files: SVG and PNG, the same bytes for the same figure."""

import io
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from memtax.files import atomic_path, write_text
from memtax.report.figures import figure_of, style


def svg(drawn: Any) -> str:
    """The figure as SVG; the same figure gives the same text."""
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
    """A canvas of the figure. Its layout is solved while it is drawn; `savefig` would draw everything once more before that."""
    figure = figure_of(drawn)
    before = figure.dpi
    with style():
        figure.dpi = dpi
        try:
            yield kind(figure)
        finally:
            figure.dpi = before


def titled(drawn: Any, title: str) -> tuple[str, bytes]:
    """SVG and PNG of the figure with its conclusion above it, as files that stand alone."""
    figure = figure_of(drawn)
    with style():
        figure.suptitle("\n".join(textwrap.wrap(title, 100)), x=0.01, ha="left", fontsize=11, fontweight="bold")
    vectors = svg(drawn)
    # The layout is solved, and solving it takes as long as drawing.
    figure.set_layout_engine("none")
    return vectors, png(drawn)


def save(drawn: Any, folder: Path, name: str, title: str) -> None:
    """Write the figure of the axes as PNG and SVG, with its conclusion as the title."""
    vectors, dots = titled(drawn, title)
    write_text(folder / f"{name}.svg", vectors)
    with atomic_path(folder / f"{name}.png") as path:
        path.write_bytes(dots)
