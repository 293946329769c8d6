"""Pages of sections without a script, in the report's design: written by every verb except `run`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from memtax.files import write_text
from memtax.report import figures, saving
from memtax.report.page import HERE, environment, inline_svg
from memtax.report.parts import Panel, Section

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
"""Content-Security-Policy: no script, nothing fetched; a drawing may contain an image as data, as a heat map does."""


def write_page(
    path: Path,
    title: str,
    brand: str,
    about: Sequence[tuple[str, str]],
    sections: Sequence[Section],
    footer: str,
    tiles_head: str = "",
    tiles: Sequence[Mapping[str, str]] = (),
) -> Path:
    """Write one self-contained file.

    Args:
        path: target file.
        title: heading of the page.
        brand: kind of page.
        about: terms and values under the heading.
        sections: the content.
        footer: a sentence at the end.
        tiles_head: meaning of the tiles.
        tiles: `group` (its color), `label`, `value`, `count`, `interval`.

    Returns:
        The file.
    """
    from markupsafe import Markup

    panels = [part for section in sections for part in section.parts if isinstance(part, Panel)]
    page = (
        environment()
        .get_template("plain.html.j2")
        .render(
            title=title,
            brand=brand,
            about=about,
            tiles_head=tiles_head,
            tiles=tiles,
            sections=sections,
            drawings={panel.name: Markup(inline_svg(saving.svg(panel.figure), panel.name)) for panel in panels},  # noqa: S704
            footer=footer,
            colors=figures.COLORS,
            style=Markup((HERE / "page.css").read_text(encoding="utf-8")),  # noqa: S704
            policy=Markup(POLICY),  # noqa: S704
        )
    )
    write_text(path, page)
    return path
