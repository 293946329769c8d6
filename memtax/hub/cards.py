"""Cards: README files with YAML front matter, rendered from the templates in `model_cards/`."""

from collections.abc import Mapping
from typing import Any

from memtax.errors import MemtaxError
from memtax.files import asset


def plain(text: Any) -> str:
    """Text made inert for Markdown: one line, no markup, no HTML. Names and corpus text go through it."""
    line = " ".join(str(text).split())
    printable = "".join(character for character in line if character.isprintable())
    return "".join(
        "\\" + c if c in "\\`*_{}[]()#+!|~" else {"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(c, c) for c in printable
    )


def render(template: str, front_matter: Mapping[str, Any], **context: Any) -> str:
    """Render a card.

    Args:
        template: file name in `model_cards/`.
        front_matter: metadata that the Hub reads; None values are left out.
        context: what the template asks for; a name it uses and does not get is an error.

    Returns:
        The card's text.
    """
    import jinja2
    import yaml

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(asset("model_cards")),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - Markdown, not HTML; the `plain` filter makes foreign text inert
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = plain
    metadata = {name: value for name, value in front_matter.items() if value is not None}
    header = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    return f"---\n{header}---\n\n{environment.get_template(template).render(**context)}"


PLACE = "path/or/name"
"""What a card written into a run directory calls its repository, as it does not know where it will go."""


def split(text: str) -> tuple[dict[str, Any], str]:
    """Front matter and body of a card.

    Raises:
        MemtaxError: the front matter is no YAML mapping.
    """
    import re

    import yaml

    found = re.match(r"---\n(.*?)\n---\n+(.*)", text, re.DOTALL)
    if found is None:
        return {}, text
    try:
        front = yaml.safe_load(found[1]) or {}
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise MemtaxError(f"the front matter of the card is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(front, dict):
        raise MemtaxError(f"the front matter of the card must hold keys and values, not {type(front).__name__}")
    return front, found[2]


def finish(text: str, repo_id: str, run: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    """A card of a run directory, as it is published: with its repository's name, provenance and citation.

    Args:
        text: the card as it was written.
        repo_id: where it goes.
        run: the record in `run.yaml`; empty without one.
        metadata: further front matter; None values are left out.
    """
    header, body = split(text)
    config = {name: _portable(value) for name, value in run.get("config", {}).items() if value not in (None, [], ())}
    return render(
        "published.md.j2",
        {**header, **metadata},
        body=body.replace(PLACE, repo_id).rstrip(),
        run=run,
        config=config,
        shown=("model", "revision", "corpus", "held_out", "tokenizer", "prompt", "continuation", "dtype", "seed"),
    )


def _portable(value: Any) -> Any:
    """A value without the paths of this machine: of a path its last part."""
    from pathlib import Path

    if isinstance(value, (list, tuple)):
        return [_portable(entry) for entry in value]
    return Path(value).name if isinstance(value, str) and (value.startswith(("/", "~", ".")) or Path(value).exists()) else value
