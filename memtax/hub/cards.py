"""Cards: README files with YAML front matter, rendered from the templates in `model_cards/`."""

from collections.abc import Mapping
from typing import Any

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
