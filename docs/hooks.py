"""Tables that the pages take from the code: verbs and their options, filters, attacks, columns. Nothing is listed twice."""

import html
import re
from pathlib import Path
from typing import Any

import typer

import memtax
import memtax.metrics
from memtax import schema
from memtax.cli import app
from memtax.extras import EXTRAS
from memtax.filters import catalogue, filter_class
from memtax.jobs import VERBS, job_class
from memtax.membership.attacks import registered
from memtax.provenance import SETTINGS
from memtax.published.presets import PRESETS


def on_config(config: Any, **_: Any) -> Any:
    """Add the page of each verb to the navigation."""
    pages = next(section["Verbs"] for section in config.nav if "Verbs" in section)
    pages += [{verb: f"verbs/{verb}.md"} for verb in VERBS]
    return config


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in `{{ options VERB }}` and the names of `TABLES`."""
    for verb, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        if (mark := f"{{{{ options {verb} }}}}") in markdown:
            markdown = markdown.replace(mark, options(command))
    for name, make in TABLES.items():
        if (mark := f"{{{{ {name} }}}}") in markdown:
            markdown = markdown.replace(mark, make())
    if "{{" in markdown and page.file.src_uri not in ("guides/extend.md", "guides/python.md"):
        raise ValueError(f"{page.file.src_uri}: an unknown {{{{ }}}} is left")
    return markdown.replace("MEMTAX_VERSION", memtax.__version__)


def cell(text: object) -> str:
    """Text that stays inside its table cell."""
    return html.escape(str(text), quote=False).replace("|", "\\|").replace("\n", " ").replace("[", "&#91;")


def options(command: Any) -> str:
    """Arguments and options of a verb, as a table."""
    rows = ["| option | default | meaning |", "|---|---|---|"]
    for parameter in command.params:
        if parameter.name in ("help", "as_json", "quiet"):  # every verb has them: terminal.md
            continue
        option = parameter.param_type_name == "option"
        names = [*parameter.opts, *parameter.secondary_opts] if option else [parameter.metavar or parameter.name.upper()]
        shown = "" if parameter.default in (None, (), [], False) or callable(parameter.default) else f"`{parameter.default}`"
        if parameter.required:
            shown = "required"
        rows.append(f"| {', '.join(f'`{name}`' for name in names)} | {shown} | {cell(getattr(parameter, 'help', '') or '')} |")
    return "\n".join(rows)


def verbs() -> str:
    """Every verb with the first paragraph of its page, as a table."""
    rows = ["| verb | what it does |", "|---|---|"]
    for verb in VERBS:
        meaning = (Path(__file__).parent / "verbs" / f"{verb}.md").read_text(encoding="utf-8").split("\n\n")[1]
        rows.append(f"| [{verb}]({verb}.md) | {cell(meaning)} |")
    return "\n".join(rows)


def extras() -> str:
    """Every extra with its packages and the verbs that do not start without it, as a table."""
    rows = ["| extra | brings | without it, these verbs do not start |", "|---|---|---|"]
    for name, modules in EXTRAS.items():
        verbs = [f"[{verb}](verbs/{verb}.md)" for verb in VERBS if name in job_class(verb).needs]
        rows.append(f"| `{name}` | {', '.join(modules)} | {', '.join(verbs)} |")
    return "\n".join(rows)


def filters() -> str:
    """Every filter of the catalogue, as a table; those of installed packages too."""
    rows = ["| filter | class | meaning | reads | adds |", "|---|---|---|---|---|"]
    for name in catalogue():
        kind = filter_class(name)
        reads, adds = (", ".join(f"`{column}`" for column in columns) for columns in (kind.requires, kind.columns))
        rows.append(f"| `{name}` | `{kind.__name__}` | {cell(first_line(kind))} | {reads} | {adds} |")
    return "\n".join(rows)


def metrics() -> str:
    """Every metric with the title and year of the paper that its card cites, as a table."""
    rows = ["| metric | value | paper |", "|---|---|---|"]
    for name in memtax.metrics.__all__:
        card = Path(memtax.metric_path(name), "README.md").read_text(encoding="utf-8")
        cited = dict(re.findall(r"\b(title|year|url)\s*=\s*\{(.+?)\}", card.split("## Citation")[1]))
        paper = f"{cited['title']} ({cited['year']})"
        paper = f"[{cell(paper)}]({cited['url']})" if "url" in cited else cell(paper)
        rows.append(f"| `{name}` | {cell(first_line(getattr(memtax.metrics, name)))} | {paper} |")
    return "\n".join(rows)


def attacks() -> str:
    """Every registered attack, as a table; those of installed packages too."""
    rows = ["| attack | score | reads |", "|---|---|---|"]
    for name, attack in registered().items():
        rows.append(f"| `{name}` | {cell(first_line(attack.function))} | {', '.join(f'`{need}`' for need in attack.needs)} |")
    return "\n".join(rows)


def first_line(thing: Any) -> str:
    """First line of a docstring."""
    return (thing.__doc__ or "").strip().split("\n")[0]


def columns() -> str:
    """Every column of the schema, as a table."""
    rows = ["| column | type | unit | meaning | null means |", "|---|---|---|---|---|"]
    for name, column in schema.COLUMNS.items():
        rows.append(f"| `{name}` | {cell(column.dtype)} | {cell(column.unit)} | {cell(column.meaning)} | {cell(column.null)} |")
    return "\n".join(rows)


def presets() -> str:
    """Suites of models: their presets, what to know about their data, and where the names are from."""
    parts = []
    for suite in dict.fromkeys(name.partition(":")[0] for name in PRESETS):
        mine = {name: each for name, each in PRESETS.items() if name.startswith(f"{suite}:")}
        notes = dict.fromkeys(note for each in mine.values() for note in each.notes)
        sources = dict.fromkeys(source for each in mine.values() for source in each.sources)
        parts += [f"### {suite}", ", ".join(f"`{name}`" for name in mine)]
        parts += [
            "\n".join(f"- {note}" for note in notes),
            "Names from " + ", ".join(f"<{source}>" for source in sources) + ".",
        ]
    return "\n\n".join(parts)


TABLES = {
    "attacks": attacks,
    "columns": columns,
    "extras": extras,
    "filters": filters,
    "metrics": metrics,
    "presets": presets,
    "recitation_threshold": lambda: str(schema.RECITATION_THRESHOLD),
    "settings": lambda: ", ".join(f"`{name}`" for name in SETTINGS) + ".",
    "verbs": verbs,
}
"""Name in double braces to the function that makes its replacement."""
