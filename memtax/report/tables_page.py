"""A page of sentences and tables in the report's design, with no script: what compare and audit write."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from memtax.files import write_text

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Table:
    """A section of the page: a heading that tells the conclusion, a paragraph, and a table if there are rows."""

    heading: str
    text: str
    caption: str = ""
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


def write_page(path: Path, title: str, about: Sequence[tuple[str, str]], sections: Sequence[Table]) -> None:
    """Write the page; every text in it is escaped.

    Args:
        path: the HTML file.
        title: its heading.
        about: pairs of a term and its value, below the heading.
        sections: in their order.
    """
    import jinja2
    from markupsafe import Markup

    from memtax.report.figures import COLOURS
    from memtax.report.page import printable

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=printable,
    )
    style = Markup((HERE / "page.css").read_text(encoding="utf-8"))  # noqa: S704
    page = environment.get_template("tables.html.j2")
    write_text(path, page.render(title=title, about=about, sections=sections, colours=COLOURS, style=style) + "\n")
