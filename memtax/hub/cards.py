"""Cards: README files with YAML front matter, rendered from the templates in `model_cards/`."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memtax.errors import MemtaxError
from memtax.files import asset, destination
from memtax.hub.screening import public_name
from memtax.records import parse_yaml


def plain(text: Any) -> str:
    """Neutralize text for Markdown: one line, no markup, no HTML. Applied to names and corpus text."""
    line = " ".join(str(text).split())
    printable = "".join(character for character in line if character.isprintable())
    return "".join(
        "\\" + c if c in "\\`*_{}[]()#+!|~" else {"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(c, c) for c in printable
    )


def render(template: str, front_matter: Mapping[str, Any], here: Path | str | None = None, **context: Any) -> str:
    """Render a card.

    Args:
        template: file name in `model_cards/`.
        front_matter: metadata that the Hub reads; None values are omitted.
        here: target folder of the card, or the repository's name, for its loading example. The card stores it in a comment,
            so that `finish` can replace it with the repository's name.
        context: variables of the template; a missing variable is an error.

    Returns:
        The card's text.
    """
    import jinja2
    import yaml

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(asset("model_cards")),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - Markdown, not HTML; the `plain` filter neutralizes foreign text
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = plain
    metadata = {name: value for name, value in front_matter.items() if value is not None}
    header = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    if here is not None:
        context["here"] = _literal(here if isinstance(here, str) else str(_seen_from_here(destination(here))))
    text = f"---\n{header}---\n\n{environment.get_template(template).render(**context)}"
    return text if here is None else f"{text.rstrip()}\n\n<!-- here: {context['here']} -->\n"


_HERE = re.compile(r'\n*^<!-- here: ("[^\n]*") -->$', re.MULTILINE)


def _literal(text: str) -> str:
    """A string literal for Python and JSON that cannot end a comment or a code block."""
    escaped = json.dumps(text)
    for character in "<>`":
        escaped = escaped.replace(character, f"\\u{ord(character):04x}")
    return escaped


def _seen_from_here(folder: Path) -> Path:
    """The folder relative to the current directory, if it is below it."""
    folder, current = folder.absolute(), Path.cwd()
    return folder.relative_to(current) if folder.is_relative_to(current) and folder != current else folder


def split(text: str, name: object = "the card") -> tuple[dict[str, Any], str]:
    """Front matter and body of a card.

    Args:
        text: the card.
        name: how errors call it: its path.

    Raises:
        MemtaxError: the front matter is not a YAML mapping.
    """
    found = re.match(r"---\n(.*?)\n---\n+(.*)", text, re.DOTALL)
    if found is None:
        return {}, text
    front = parse_yaml(found[1], f"the front matter of {name}") or {}
    if not isinstance(front, dict):
        raise MemtaxError(f"the front matter of {name} must contain keys and values, not {type(front).__name__}")
    return front, found[2]


def finish(text: str, repo_id: str, run: Mapping[str, Any], metadata: Mapping[str, Any], name: object = "the card") -> str:
    """A run directory's card for publication, with the repository's name, provenance and citation.

    Args:
        text: the original card.
        repo_id: target repository.
        run: the record in `run.yaml`; empty without one.
        metadata: additional front matter; None values are omitted.
        name: how errors call the card: its path.
    """
    header, body = split(text, name)
    found = _HERE.search(body)
    here = found[1] if found else _literal(repo_id)
    config = {name: public_name(value) for name, value in run.get("config", {}).items() if value not in (None, [], ())}
    return render(
        "published.md.j2",
        {**header, **metadata},
        body=_HERE.sub("", body).replace(here, _literal(repo_id)).rstrip(),
        # Inputs have the names that the user gave.
        run={**run, "inputs": {public_name(name): value for name, value in run["inputs"].items()}} if run else run,
        config=config,
        shown=("model", "revision", "corpus", "held_out", "tokenizer", "prompt", "continuation", "dtype", "seed"),
    )
