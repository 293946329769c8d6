"""What the pages take from the code itself: options of each verb, the columns. Nothing is listed twice."""

import html
from typing import Any

import typer

import memtax
from memtax import schema
from memtax.cli import app
from memtax.membership.attacks import registered
from memtax.provenance import SETTINGS


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in `{{ options VERB }}`, `{{ columns }}`, `{{ attacks }}` and `{{ settings }}`."""
    for verb, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        if (mark := f"{{{{ options {verb} }}}}") in markdown:
            markdown = markdown.replace(mark, options(command))
    if "{{ columns }}" in markdown:
        markdown = markdown.replace("{{ columns }}", columns())
    if "{{ attacks }}" in markdown:
        markdown = markdown.replace("{{ attacks }}", attacks())
    if "{{ settings }}" in markdown:
        markdown = markdown.replace("{{ settings }}", ", ".join(f"`{name}`" for name in SETTINGS) + ".")
    if "{{" in markdown and page.file.src_uri != "guides/extend.md":
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


def attacks() -> str:
    """Every registered attack, as a table; those of installed packages too."""
    rows = ["| attack | score | reads |", "|---|---|---|"]
    for name, attack in registered().items():
        meaning = (attack.function.__doc__ or "").strip().split("\n")[0]
        rows.append(f"| `{name}` | {cell(meaning)} | {', '.join(f'`{need}`' for need in attack.needs)} |")
    return "\n".join(rows)


def columns() -> str:
    """Every column of the schema, as a table."""
    rows = ["| column | type | unit | meaning | a null says |", "|---|---|---|---|---|"]
    for name, column in schema.COLUMNS.items():
        rows.append(f"| `{name}` | {cell(column.dtype)} | {cell(column.unit)} | {cell(column.meaning)} | {cell(column.null)} |")
    return "\n".join(rows)
