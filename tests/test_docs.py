"""The pages: they build without a dead link, their Python runs, and every command in them has the verbs and options it uses."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import memtax.metrics
from memtax.cli import app
from memtax.filters import CATALOGUE
from memtax.membership.attacks import registered

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
VERBS = typer.main.get_command(app).commands


def blocks(language: str) -> list[tuple[str, str]]:
    """Fenced blocks of a language in all pages, each with a name for the test."""
    found = []
    for page in PAGES:
        inside, kind, lines = False, "", []
        for line in page.read_text(encoding="utf-8").splitlines():
            if line.startswith("```"):
                if inside and kind == language:
                    found.append((f"{page.relative_to(ROOT)}-{len(found)}", "\n".join(lines)))
                inside, kind, lines = not inside, line[3:], []
            elif inside:
                lines.append(line)
    return found


def commands() -> list[tuple[str, str]]:
    """Lines that call memtax, in shell blocks of the pages and in the help of each verb."""
    lines = [
        (name, line)
        for kind in ("bash", "")
        for name, block in blocks(kind)
        for line in block.replace("\\\n", " ").splitlines()
    ]
    lines += [
        (verb, example) for verb, command in VERBS.items() for example in re.findall(r"`(memtax [^`]+)`", command.help or "")
    ]
    return [(name, found[1]) for name, line in lines if (found := re.search(r"(?:^|-m )(memtax (?!-).*)", line))]


def test_the_pages_build_without_a_dead_link(tmp_path):
    pytest.importorskip("mkdocs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "site" / "verbs" / "count" / "index.html").read_text(encoding="utf-8")
    assert "--document-separator" in page
    for name, word in (
        ("verbs", "counterfactual.md"),
        ("verbs/mia", "min_k_plus_plus"),
        ("verbs/filter", "TemplateFilter"),
    ):
        assert word.replace(".md", "/") in (tmp_path / "site" / name / "index.html").read_text(encoding="utf-8")
    papers = (tmp_path / "site" / "papers" / "index.html").read_text(encoding="utf-8")
    assert [name for name in (*memtax.metrics.__all__, *CATALOGUE, *registered()) if name not in papers] == []
    assert "sequence_duplicates" in (tmp_path / "site" / "columns" / "index.html").read_text(encoding="utf-8")


def test_every_attack_is_explained_and_tested():
    from memtax.membership.attacks import ATTACKS

    tests = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests" / "membership").glob("test_*.py"))
    for name, attack in ATTACKS.items():
        assert attack.function.__doc__, name
        assert re.search(rf"\b{name}\b", tests), name


def test_every_verb_has_a_page():
    assert {page.stem for page in (ROOT / "docs" / "verbs").glob("*.md")} - {"index"} == set(VERBS)


def test_everything_public_has_a_place_in_the_api_page():
    import memtax
    from memtax import filters

    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert not [name for name in (*memtax.__all__, *filters.__all__) if not re.search(rf"\b{name}\b", page)]


@pytest.mark.parametrize(
    ("name", "block"), [(name, block) for name, block in blocks("python") if not name.startswith("README")]
)
def test_python_in_the_pages_runs(name, block):
    exec(block, {"__name__": name})


@pytest.mark.parametrize(("name", "line"), commands())
def test_commands_in_the_pages_have_the_options_they_use(name, line):
    words = shlex.split(line, comments=True)
    assert words[1] in VERBS, line
    known = {option for parameter in VERBS[words[1]].params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.split("=")[0] for word in words[2:] if re.match(r"--?[a-z]", word)} <= known | {"--help"}, line


def test_local_links_of_the_readme_exist():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), target
