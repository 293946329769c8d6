"""Figures of a run in its dataset's repository, with a section of the card that shows them."""

import html
import re
from pathlib import Path

from memtax.hub.cards import plain
from memtax.hub.screening import Machine

_WORDS = re.compile(r"<!-- (.*?) -->", re.DOTALL)


def run_figures(run: Path) -> tuple[dict[str, Path | bytes], str, tuple[str, ...]]:
    """The figures of a run's page as they may leave the machine.

    A figure's words are pixels, which cannot be searched; its SVG, drawn with it, repeats each as a comment. A figure with a
    path, user or host of this machine among its words is left out.

    Args:
        run: directory of a run.

    Returns:
        Paths in the repository to PNG files, a section for the card (empty without figures), and notes for the user.
    """
    folder, machine = run / "report" / "figures", Machine.current(run)
    files: dict[str, Path | bytes] = {}
    lines: list[str] = []
    notes: list[str] = []
    # The extraction rate answers the run's question; the others follow by name.
    for image in sorted(folder.glob("*.png"), key=lambda path: (path.stem != "extraction", path.stem)):
        vectors = image.with_suffix(".svg")
        if image.is_symlink() or not re.fullmatch(r"[\w.-]+", image.stem) or not vectors.is_file():
            continue
        drawn = vectors.read_text("utf-8", errors="replace")
        words = "\n".join(_words(drawn))
        if machine.rewrite(words) != words:
            notes.append(f"stays here: figures/{image.name} names a path, user or host of this machine")
            continue
        name = f"figures/{image.name}"
        files[name] = image
        lines.append(f"![{plain(_title(drawn) or image.stem)}]({name})")
    section = "\n\n".join(["## Figures", *lines]) + "\n" if lines else ""
    return files, section, tuple(notes)


def _title(vectors: str) -> str:
    """The conclusion above a figure, which is drawn last; the SVG has each of its lines as a comment."""
    _, _, last = vectors.partition('<g id="title">')
    return " ".join(_words(last))


def _words(vectors: str) -> list[str]:
    """The texts of a drawing, which stand in comments: there without two hyphens in a row, and with escaped characters."""
    return [html.unescape(re.sub("- (?=-)", "-", text)) for text in _WORDS.findall(vectors)]
