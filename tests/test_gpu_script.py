"""The script that others run on a card works: its rows on the CPU in tiny sizes, and its processes."""

import importlib
import sys

import pytest

from helpers.processes import ROOT, python

sys.path.insert(0, str(ROOT / "benchmarks"))

from on_gpu import testing
from on_gpu.plan import ROWS, Size

NAMES = ("equality", "out_of_memory", "near_ties", "cached_generation", "semantic_matches")
QUICK = [row for row in ROWS if row.function in NAMES]


def test_every_row_has_a_function_and_all_fit_into_nine_minutes():
    assert all(callable(getattr(importlib.import_module(f"on_gpu.{row.module}"), row.function)) for row in ROWS)
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", QUICK, ids=lambda row: row.function)
def test_a_row_in_tiny_sizes(row):
    function = getattr(importlib.import_module(f"on_gpu.{row.module}"), row.function)
    lines = list(function(Size(True), *row.arguments))
    assert lines
    assert all(len(line) == 3 for line in lines)


def test_tests_are_run_and_failures_and_results_are_written(tmp_path):
    (tmp_path / "test_some.py").write_text("def test_good(): pass\ndef test_bad(): assert 1 == 2\n")
    row, page = "demo", tmp_path / "gpu.md"
    done = python(
        ROOT / "benchmarks" / "gpu.py",
        "--smoke",
        "--only",
        f"tests,{row}",
        "--tests",
        tmp_path / "test_some.py",
        "--output",
        page,
    )
    assert done.returncode == 1, done.stderr
    assert "FAILED" in done.stdout
    assert "test_some.py::test_bad: assert 1 == 2" in done.stdout
    text = page.read_text()
    assert "1 failed, 1 passed" in text
    assert f"| {row} | memtax demo | left out of the check |" in text


def test_files_that_use_the_device_come_first():
    files = testing.test_files(None)
    assert files[0].startswith("tests/lm/")
    assert len(set(files)) == len(files)
    assert "tests/test_layout.py" in files
