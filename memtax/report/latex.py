"""The page's tables as LaTeX, one file per table, with rules from booktabs if the document loads it, or plain lines."""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from memtax.files import atomic_directory
from memtax.report.parts import Section, Table

HEADER = r"""% Written by memtax report --latex, for \input{FILE}. It needs no package; with booktabs its rules are used.
\providecommand{\toprule}{\hline}
\providecommand{\midrule}{\hline}
\providecommand{\bottomrule}{\hline}
"""
LONG = 40
"""Number of characters from which a cell's column wraps."""
_ESCAPED = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    '"': r"\char34{}",
    "`": r"\char96{}",
    "\N{MINUS SIGN}": "$-$",
    "\N{EN DASH}": "--",
    "\N{EM DASH}": "---",
    "\N{NO-BREAK SPACE}": "~",
    "\N{HORIZONTAL ELLIPSIS}": r"\ldots{}",
}
"""Replacements of characters."""


def write_tables(folder: Path, sections: Sequence[Section]) -> list[Path]:
    """Write `ANCHOR-NUMBER.tex` for every table of the sections, replacing the previous contents of the folder.

    Args:
        folder: target folder, replaced as a whole.
        sections: sections of the page.

    Returns:
        The files, in the order of the page.
    """
    names = []
    with atomic_directory(folder) as temporary:
        for section in sections:
            tables = [part for part in section.parts if isinstance(part, Table)]
            for number, table in enumerate(tables, 1):
                name = f"{section.anchor}-{number}.tex"
                (temporary / name).write_text(tabular(table, name.removesuffix(".tex")), encoding="utf-8")
                names.append(name)
    return [folder / name for name in names]


def tabular(table: Table, label: str) -> str:
    r"""One table as a `table` environment with caption and label.

    table: a table of the page.
    label: label in `\label{tab:LABEL}`.
    """
    columns = "".join(_column(table, place) for place in range(len(table.head)))
    lines = [
        HEADER + r"\begin{table}[htbp]",
        r"\centering",
        rf"\caption{{{escape(table.caption)}}}",
        rf"\label{{tab:{label}}}",
        r"\small",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(map(escape, table.head)) + r" \\",
        r"\midrule",
        *(_row(row, len(table.head)) for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _column(table: Table, place: int) -> str:
    cells = [row[place] for row in table.rows if place < len(row) and (place < len(row) - 1 or len(row) == len(table.head))]
    if any(len(cell) > LONG for cell in cells):
        return r"p{0.3\linewidth}"
    number = place >= table.texts and not (table.quoted and place == len(table.head) - 1)
    return "r" if number else "l"


def _row(row: Sequence[str], width: int) -> str:
    cells = [escape(cell) for cell in row]
    if len(row) < width:
        # The last cell contains a reason and spans the remaining columns.
        cells[-1] = rf"\multicolumn{{{width - len(row) + 1}}}{{l}}{{\emph{{{cells[-1]}}}}}"
    return " & ".join(cells) + r" \\"


def escape(text: str) -> str:
    """A text for LaTeX on one line: special characters are escaped, and non-Latin letters are replaced by their number.

    pdflatex stops at most of Unicode with the default fonts, except accented Latin letters (Latin-1, Latin Extended-A).
    """
    text = text.replace("\0", "?")
    text = unicodedata.normalize("NFC", re.sub(r"\s*[\n\r\t\v\f]\s*", " ", text))
    # LaTeX joins repeated marks (dashes, quotes, commas), and reads [ and * after a line break as its arguments.
    apart = re.sub(r"([-',])(?=\1)", "\\1\0", text)
    escaped = "".join("{}" if character == "\0" else _character(character) for character in apart)
    return f"{{}}{escaped}" if escaped[:1] in ("[", "*") else escaped


def _character(character: str) -> str:
    if character in _ESCAPED:
        return _ESCAPED[character]
    if " " <= character <= "~" or ("\u00c0" <= character <= "\u017f" and character.isalpha()):
        return character
    return rf"[U+{ord(character):04X}]" if character.isprintable() else "?"
