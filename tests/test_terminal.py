"""What scripts rely on: JSON on standard output, silence, exit codes, completion."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import memtax
from helpers.processes import python
from helpers.versions import older
from memtax.cli import app
from memtax.cli.outcome import Outcome, plain

VERBS = typer.main.get_command(app).commands
DOCS = (Path(__file__).parent.parent / "docs" / "terminal.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two rows of 64 tokens and one that is too short for a window."""
    file = tmp_path_factory.mktemp("corpus") / "rows.jsonl"
    rows = [{"tokens": list(range(64))}, {"tokens": [7] * 64}, {"tokens": [1, 2]}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def test_every_verb_answers_in_one_way():
    for name, command in VERBS.items():
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"--json", "--quiet", "-q"} <= options, name
    for command in app.registered_commands:
        assert command.callback.__annotations__["return"] is Outcome, command.callback.__name__


@pytest.mark.parametrize("before", [True, False])
def test_json_is_all_that_stands_on_standard_output(corpus, tmp_path, before):
    words = ["count", corpus, "--output", tmp_path / "counts"]
    done = run("--json", *words) if before else run(*words, "--json")
    found = json.loads(done.stdout)
    # Two windows and 64 + 64 + 2 tokens; the third row is too short, which a note on standard error says.
    assert (found["tokens"], found["sequences"], found["windows"]) == (130, 3, [2])
    assert found["sequences_too_short"] == [1]
    assert found["output"] == str(tmp_path / "counts")


def test_lines_and_silence(corpus, tmp_path):
    words = ["count", corpus, "--output", tmp_path / "counts"]
    assert run(*words).stdout.startswith("130 tokens in 3 sequences")
    for done in (run(*words, "--quiet"), run("-q", *words)):
        # That something is missing is said all the same, on standard error.
        assert (done.stdout, done.stderr) == ("", "1 row is left out: too short for the window 32:64\n")
    # What one command was told ends with it.
    assert run(*words).stdout.startswith("130 tokens in 3 sequences")


def test_notes_leave_standard_output_free(capsys):
    from memtax import progress

    progress.set_notes_to_errors(True)
    progress.say("a note")
    progress.set_notes_to_errors(False)
    told = capsys.readouterr()
    assert (told.out, told.err.strip()) == ("", "a note")


def test_values_that_json_cannot_say():
    import numpy as np

    found = plain({"a": float("nan"), "b": Path("x"), "c": np.array([1, 2]), "d": (True, None, np.float32(0.5)), 5: {1}})
    assert found == {"a": None, "b": "x", "c": [1, 2], "d": [True, None, 0.5], "5": [1]}


def command(*words, **environment):
    return python("-m", "memtax", *words, env={**os.environ, **environment})


def test_exit_codes_are_those_of_the_page(corpus, tmp_path):
    missing = command("count", tmp_path / "nowhere.jsonl", "--output", tmp_path / "out", "--json")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert re.fullmatch(r"memtax: .*nowhere.*\n", missing.stderr)
    mistyped = command("count", corpus, "--otput", tmp_path / "out")
    assert (mistyped.returncode, mistyped.stdout) == (2, "")
    assert re.fullmatch(r"memtax: no such option: --otput .*--output.* \(see .*memtax count --help\)\n", mistyped.stderr)
    # Signals are tested in tests/solid; here that the page names them all.
    assert re.findall(r"^\| (\d+) \|", DOCS, re.MULTILINE) == ["0", "1", "2", "130", "143"]


def test_completion_offers_verbs_and_options():
    script = command("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert "complete -o default -F _memtax" in script.stdout or "COMPREPLY" in script.stdout
    # What the script asks for when the tabulator key is pressed.
    asked = subprocess.run(
        [sys.executable, "-c", "from memtax.cli import app; app(prog_name='memtax')"],
        capture_output=True,
        text=True,
        env={**os.environ, "_MEMTAX_COMPLETE": "complete_bash", "COMP_WORDS": "memtax co", "COMP_CWORD": "1"},
    )
    assert set(asked.stdout.split()) == {"count", "compare", "counterfactual"}, asked.stderr


def test_every_list_option_says_that_it_may_be_repeated():
    for name, verb in VERBS.items():
        for option in verb.params:
            if option.param_type_name == "option" and option.multiple:
                assert option.help.endswith("May be repeated."), (name, option.name)


def test_flags_can_be_turned_off_again():
    # A file of `--config` may have turned them on.
    for name, verb in VERBS.items():
        for option in verb.params:
            if option.param_type_name == "option" and option.is_flag and option.name not in ("as_json", "quiet", "help"):
                assert option.secondary_opts, (name, option.name)


def test_the_version_is_printed():
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.output) == (0, f"memtax {memtax.__version__}\n")


@pytest.mark.parametrize("option", ["--debug", "--wait", "--strict", "--memory"])
def test_an_option_of_every_verb_that_follows_the_verb_is_told_where_it_goes(option, monkeypatch, capsys):
    from memtax import cli

    monkeypatch.setattr(sys, "argv", ["memtax", "count", "rows.jsonl", "--output", "out", option, "4"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert f"{option} goes before the verb: memtax {option} ... count" in capsys.readouterr().err


@pytest.mark.skipif(older("typer", "0.29"), reason="older versions show a type beside arguments")
def test_help_shows_values_as_people_write_them():
    """No type of Python; nothing beside a switch."""

    def shown(*verb):
        return CliRunner().invoke(app, [*verb, "--help"], env={"COLUMNS": "160"}).output

    for name in VERBS:
        assert not re.search(r"<\w+>|list\[|BOOLEAN", shown(name)), name
    assert not re.search(r"<\w+>|BOOLEAN", shown())
    assert re.search(r"--prompt +INTEGER,\.\.\. ", shown("score"))
    assert re.search(r"--lira-variances +pooled\|per_text\|shrunk ", shown("mia"))
    assert re.search(r"--exact-only +--no-exact-only +Only find ", shown("score"))
