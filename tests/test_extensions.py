"""A package from outside adds a filter and an attack by entry points alone."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from helpers.small import bigram_model, random_texts, save, transitions
from memtax import schema
from memtax.cli import app
from memtax.errors import MemtaxError
from memtax.filters import catalogue, filter_class
from memtax.membership.attacks import choose, registered
from memtax.membership.column_scores import score_rows
from memtax.predictor.factors import resolve
from memtax.report.words import label
from memtax.results import read_table

CODE = '''
from dataclasses import dataclass
from memtax import schema
from memtax.filters import Filter
from memtax.membership.attacks import Attack

schema.declare(schema.Column("surely_characters", "int64", "characters", "length", "no text", role="variant", label="letters"))

@dataclass(frozen=True)
class Characters(Filter):
    """Length of the text."""
    name, requires, columns = "surely_characters", ("text",), ("surely_characters",)
    def compute(self, batch):
        return {"surely_characters": [None if text is None else len(text) for text in batch["text"]]}

def median(logprobs):
    """Median log-probability of the tokens (Example 2024)."""
    values = sorted(logprobs)
    return values[len(values) // 2] if values else None

def parity(gatherer, rows):
    for row, tokens in zip(rows, gatherer.tokens, strict=True):
        row["parity"] = len(tokens) % 2

surely_parity = Attack("surely_parity", float, ("parity",), gather=parity)
surely_median = Attack("surely_median", median, ("logprobs",))
renamed = Attack("another_name", median, ("logprobs",))
'''
POINTS = """
[memtax.filters]
surely_characters = surely_a_package:Characters
[memtax.attacks]
surely_median = surely_a_package:surely_median
surely_parity = surely_a_package:surely_parity
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a distribution with these lines of entry points besides."""

    def install(more=""):
        folder = tmp_path / "site"
        info = folder / "surely_a_package-1.0.dist-info"
        info.mkdir(parents=True)
        (folder / "surely_a_package.py").write_text(CODE)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: surely-a-package\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(POINTS + more)
        monkeypatch.syspath_prepend(folder)
        schema._load_packages.cache_clear()

    yield install
    schema._load_packages.cache_clear()
    sys.modules.pop("surely_a_package", None)
    schema.COLUMNS.pop("surely_characters", None)


def test_a_filter_of_another_package_is_in_the_catalogue(installed):
    installed()
    assert catalogue()["surely_characters"] == "surely_a_package:Characters"
    assert filter_class("surely_characters")()({"text": ["four", None]}) == {"surely_characters": [4, None]}


def test_columns_of_another_package_are_known_before_its_filter_is_used(installed):
    # For example in the report of a run, which imports no filter.
    installed("\n[memtax.filters]\nbroken = no_such_package:Filter")
    assert label("surely_characters") == "letters"
    assert resolve(("surely_characters",), "is_memorized")[0].scale == "identity"


def test_an_attack_of_another_package_is_in_mia_the_metric_and_the_pages(installed, tmp_path):
    installed()
    folder = tmp_path / "model"
    save(bigram_model(transitions()), folder)
    texts = random_texts(24, 12)
    for kind, rows in (("member", texts[:12]), ("nonmember", texts[12:])):
        (tmp_path / f"{kind}s.txt").write_text("\n".join(rows))
    sources = ["--members", tmp_path / "members.txt", "--nonmembers", tmp_path / "nonmembers.txt"]
    words = ["mia", *sources, "--model", folder, "--output", tmp_path / "out", "--resamples", "20"]
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "surely_median" in done.output
    assert read_table(tmp_path / "out", "scores").column("attack_surely_median").null_count == 0
    # Texts of twelve words, a token each.
    assert set(read_table(tmp_path / "out", "scores").column("attack_surely_parity").to_pylist()) == {0.0}
    assert score_rows([[-3.0, -1.0, -2.0], None])["surely_median"] == [-2.0, None]
    place = Path(__file__).parent.parent / "docs" / "hooks.py"
    spec = importlib.util.spec_from_file_location("surely_hooks", place)
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    assert "| `surely_median` | Median log-probability of the tokens (Example 2024). | `logprobs` |" in hooks.attacks()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("broken = no_such_package:attack", "'broken' of another package cannot be imported from no_such_package:attack"),
        ("broken = surely_a_package:renamed", "surely_a_package:renamed is not an Attack named 'broken'"),
        ("broken = surely_a_package:median", "surely_a_package:median is not an Attack named 'broken'"),
    ],
)
def test_a_broken_attack_is_named_and_spoils_no_other(installed, line, message):
    installed(line)
    assert [attack.name for attack in choose(("loss", "surely_median"))] == ["loss", "surely_median"]
    for ask in (lambda: choose(("broken",)), registered):
        with pytest.raises(MemtaxError, match=re.escape(message)):
            ask()
    with pytest.raises(MemtaxError, match=r"unknown attack 'brokn'; choose among loss, .*surely_median"):
        choose(("brokn",))
