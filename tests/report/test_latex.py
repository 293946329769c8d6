"""Tables as LaTeX: what a reader of TeX would see is what the page shows, and nothing in a text is a command."""

import json
import re
import shutil

from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from helpers.report_run import make_run
from memtax.cli import app
from memtax.report import sections
from memtax.report.data import Run
from memtax.report.latex import escape, tabular
from memtax.report.parts import Table
from memtax.results import envelope, read_summary

COMMANDS = {"textbackslash": "\\", "textasciicircum": "^", "textasciitilde": "~", "ldots": "\N{HORIZONTAL ELLIPSIS}"}


def typeset(source):
    """What TeX prints of an escaped text: a reader of the few constructions that are allowed; anything else fails."""
    shown, place = "", 0
    while place < len(source):
        rest = source[place:]
        if found := re.match(r"\\([{}$&#%_])", rest):
            shown += found[1]
        elif found := re.match(r"\\(textbackslash|textasciicircum|textasciitilde|ldots)\{\}", rest):
            shown += COMMANDS[found[1]]
        elif found := re.match(r"\\char(34|96)\{\}", rest):
            shown += chr(int(found[1]))
        elif found := re.match(r"\$([<>|-])\$", rest):
            shown += "\N{MINUS SIGN}" if found[1] == "-" else found[1]
        elif found := re.match(r"\{\}", rest):
            pass
        elif found := re.match("---|--", rest):
            shown += "\N{EM DASH}" if found[0] == "---" else "\N{EN DASH}"
        elif found := re.match(r"~", rest):
            shown += "\N{NO-BREAK SPACE}"
        else:
            found = re.match(r"[^\\{}$&#%_^~<>|\"`]", rest)
            assert found, rest[:20]
            assert found[0].isascii() or "\u00c0" <= found[0] <= "\u017f", found[0]
            # Two marks in a row would be joined.
            assert found[0] not in "-'," or not rest.startswith(2 * found[0])
            shown += found[0]
        place += found.end()
    return shown


@given(st.text(st.sampled_from("ab12 \\{}$&#%_^~<>|\"`'-,[]*!?\N{EN DASH}\N{MINUS SIGN}\u00e9\u017f\u00a0"), max_size=20))
def test_escaped_text_is_typeset_as_it_is(text):
    assert typeset(escape(text)) == text.replace("\N{LATIN SMALL LETTER LONG S}", "\u017f")


@given(st.text(max_size=30))
def test_any_text_is_one_line_of_characters_that_the_default_fonts_have(text):
    found = escape(text)
    assert "\n" not in found
    assert all(character == "\\" or character.isascii() or "\u00c0" <= character <= "\u017f" for character in found)
    assert not re.match(r"\s*[\[*]", found) or text[:1].isspace()
    typeset(found)


def test_a_table_has_its_rows_rules_and_spanning_reasons():
    table = Table("Rates & more", ("group", "share", "its interval"), (("a_b", "5%", "1% to 9%"), ("[c", "withheld: few")))
    lines = tabular(table, "what-1").splitlines()
    body = lines[lines.index(r"\toprule") : lines.index(r"\bottomrule")]
    assert body == [
        r"\toprule",
        r"group & share & its interval \\",
        r"\midrule",
        r"a\_b & 5\% & 1\% to 9\% \\",
        r"{}[c & \multicolumn{2}{l}{\emph{withheld: few}} \\",
    ]
    assert r"\begin{tabular}{lrr}" in lines
    assert r"\caption{Rates \& more}" in lines
    assert r"\label{tab:what-1}" in lines
    assert r"\providecommand{\toprule}{\hline}" in lines
    assert "usepackage" not in tabular(table, "x")


def test_the_command_writes_one_file_per_table_of_the_page_and_keeps_them_in_step(tmp_path):
    folder = make_run(tmp_path / "run", rows=30)
    # Drawing takes long: the tables of a run with one figure are enough.
    shutil.rmtree(folder / "dataset")
    metrics = read_summary(folder)
    kept = {name: metrics[name] for name in ("run", "extraction", "nulls", "skipped")}
    (folder / "summary.json").write_text(json.dumps(envelope("run", kept)))
    done = CliRunner().invoke(app, ["report", str(folder), "--latex"], catch_exceptions=False)
    assert done.exit_code == 0
    data = Run.read(folder)
    parts = [*sections.sections(data), sections.gaps(data)]
    tables = {
        f"{section.anchor}-{number}.tex": table
        for section in parts
        for number, table in enumerate([part for part in section.parts if isinstance(part, Table)], 1)
    }
    written = folder / "report" / "tables"
    assert {path.name for path in written.glob("*.tex")} == set(tables)
    assert len(tables) == 3
    for name, table in tables.items():
        lines = (written / name).read_text(encoding="utf-8").splitlines()
        rows = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
        assert len(rows) == len(table.rows)
        for line, row in zip(rows, table.rows, strict=True):
            cells = line.removesuffix(r" \\").split(" & ")
            assert [typeset(cell) for cell in cells[: len(row) - 1]] == list(row[:-1])
            # The last cell may span the rest of the row, with a reason.
            last = re.sub(r"\\multicolumn\{\d\}\{l\}\{\\emph\{(.*)\}\}", r"\1", cells[-1])
            assert typeset(last) == row[-1]
    before = {path.name: path.read_bytes() for path in written.iterdir()}
    (written / "what-1.tex").write_text("stale")
    # Without --latex, tables that are there are written again: they never contradict the page.
    assert CliRunner().invoke(app, ["report", str(folder)], catch_exceptions=False).exit_code == 0
    assert {path.name: path.read_bytes() for path in written.iterdir()} == before
