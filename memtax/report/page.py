"""Assembly of the page: one HTML file that contains its figures, styles, script and examples, and loads nothing."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memtax.files import atomic_directory, write_text
from memtax.hub.screening import public_config, public_name
from memtax.report import examples, figures, listing, saving, sections, words
from memtax.report.data import Run
from memtax.report.latex import write_tables
from memtax.report.parts import Panel, Section
from memtax.schema import CATEGORIES

if TYPE_CHECKING:
    import jinja2

HERE = Path(__file__).parent
TABLES = "tables"
"""Folder of the LaTeX tables, next to the page."""

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src '{script}'; base-uri 'none'; form-action 'none'"
)
"""Content-Security-Policy: nothing is fetched, and only the page's own script runs, identified by its digest. A drawing may
contain an image as data, as the heat map of long texts does."""

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\ufeff]")
"""Control characters that HTML forbids, and bidirectional marks that reorder the text around them."""


def write(run: Path, latex: bool = False) -> Path:
    """Write the report; see `memtax.report.write`."""
    data = Run.read(run)
    parts = [*sections.sections(data), sections.gaps(data)]
    panels = [part for section in parts for part in section.parts if isinstance(part, Panel)]
    drawings = {}
    with atomic_directory(run / "report" / "figures") as folder:
        for panel in panels:
            files = saving.titled(panel.figure, panel.title)
            (folder / f"{panel.name}.svg").write_text(files.svg, encoding="utf-8")
            (folder / f"{panel.name}.png").write_bytes(files.png)
            drawings[panel.name] = inline_svg(files.untitled, panel.name)
    tables = run / "report" / TABLES
    if latex or tables.is_dir():  # tables of an earlier report would contradict this page
        write_tables(tables, parts)
    page = run / "report" / "index.html"
    write_text(page, render(data, parts, drawings))
    return page


def render(data: Run, parts: Sequence[Section], drawings: Mapping[str, str]) -> str:
    """The page's HTML."""
    from markupsafe import Markup

    script = (HERE / "page.js").read_text(encoding="utf-8")
    chosen = examples.choose(data)
    total = data.features.num_rows if data.features is not None else 0
    rows = listing.listing(data)
    more = len(rows.get("id", ())) > len(chosen)
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            title=(data.metrics.get("run") or {}).get("title") or "A memtax run",
            about=_about(data.metrics.get("run") or {}),
            tiles=tiles(data.metrics.get("extraction") or {}),
            colors=figures.COLORS,
            categories=CATEGORIES,
            sections=parts[:-1],
            gaps=parts[-1],
            # The drawings and the JSON are generated here and contain no foreign markup: see inline_svg and to_script.
            drawings={name: Markup(drawing) for name, drawing in drawings.items()},  # noqa: S704
            examples=chosen,
            examples_json=Markup(examples.to_script(examples.payload(data, chosen))),  # noqa: S704
            examples_count=words.count(len(chosen)),
            listed=Markup(listing.compressed(rows)) if more else None,  # noqa: S704
            listed_count=words.count(len(rows.get("id", ()))),
            shortened=words.count(rows["shortened"]) if rows.get("shortened") else None,
            examples_total=words.count(total),
            quoted=_quoted(data.record),
            record=_record(data.record),
            style=Markup((HERE / "page.css").read_text(encoding="utf-8")),  # noqa: S704
            script=Markup(script),  # noqa: S704
            policy=Markup(POLICY.format(script=_source_hash(script))),  # noqa: S704
        )
    )


def environment() -> "jinja2.Environment":
    """Templates that escape everything and raise on undefined names."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=printable,
    )


def printable(value: Any) -> Any:
    """A text without control and bidirectional characters; anything else, including trusted markup, unchanged."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", value) if type(value) is str else value


def _source_hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


def inline_svg(svg: str, name: str) -> str:
    """An SVG document as an HTML element: without prolog, namespaces and metadata, and with ids unique on the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)  # matplotlib writes each drawn text as a comment
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href=", "href=")
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-")
    # matplotlib's style rule has a global selector, so it is set on the element instead.
    svg = re.sub(r'<style type="text/css">.*?</style>', "", svg, flags=re.DOTALL)
    svg = re.sub(r"\n\s*\n+", "\n", svg)
    # The heading and caption next to it describe it.
    return re.sub(r"<svg ", f'<svg role="img" aria-labelledby="{name}-title {name}-caption" ', svg, count=1)


def _about(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The measured model and data, as pairs of term and value."""
    pairs = [("Model", run.get("model")), ("Corpus", run.get("corpus"))]
    if run.get("tokens") is not None:
        pairs.append(("Corpus size", f"{words.count(run['tokens'])} tokens"))
    if run.get("counted_in") is not None:
        pairs.append(("Occurrences in", run["counted_in"]))
    if run.get("continuation") is not None:
        length = words.count(run["continuation"])
        window = f"the conversation before an answer, and the answer's first {length} tokens"
        if run.get("prompt") is not None:
            window = f"{words.count(run['prompt'])} tokens of prompt, {length} of continuation"
        pairs.append(("Window", window))
    return [(term, str(value)) for term, value in pairs if value]


def tiles(extraction: Mapping[str, Any]) -> list[dict[str, str]]:
    """The key figures."""
    # The control is what the model cannot have seen; the table includes held-out sequences that occur in the corpus.
    control = "held_out_absent" if extraction.get("held_out_absent") else "held_out"
    names = [name for name in ("all", *CATEGORIES, control) if (extraction.get(name) or {}).get("sequences")]
    return [
        {
            "group": name,
            "label": words.label(name),
            "value": words.percent(extraction[name].get("rate")),
            "count": f"{words.count(extraction[name]['memorized'])} of {words.count(extraction[name]['sequences'])}",
            "interval": words.interval(extraction[name]) + words.over_other(extraction[name]),
        }
        for name in names
    ]


def _quoted(record: Mapping[str, Any]) -> str:
    """How texts are quoted."""
    config = record.get("config")
    if isinstance(config, dict) and config.get("mask_personal_data") is True:
        return "Personal data in texts is masked; names of people are not."
    return "Texts are quoted unmasked: personal data is shown (mask_personal_data: true in the configuration masks it)."


def _record(record: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of `run.yaml` that the footer shows."""
    import yaml

    config = public_config(record.get("config"))
    return {
        "commit": record.get("commit"),
        "versions": [(str(name), str(version)) for name, version in (record.get("versions") or {}).items()],
        "inputs": [(str(public_name(name)), str(value)) for name, value in (record.get("inputs") or {}).items()],
        "config": yaml.safe_dump(config, sort_keys=False, allow_unicode=True).rstrip() if config else None,
    }
