"""The script that others run on a card works: its rows on the CPU in tiny sizes, and its processes."""

import importlib
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from helpers.processes import ROOT, python

sys.path.insert(0, str(ROOT / "benchmarks"))

import gpu
from on_gpu import exact, testing
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


def test_values_that_differ_from_the_plain_reduction_fail_the_row(monkeypatch):
    def wrong(logits, targets, wanted, plain=False):
        found = exact_reduce(logits, targets, wanted, plain)
        return found if plain else found | {"ranks": found["ranks"] + 1}

    exact_reduce = exact.reduce
    monkeypatch.setattr(exact, "reduce", wrong)
    with pytest.raises(SystemExit, match=r"not equal: random, float32; .*largest, bfloat16"):
        list(exact.equality(Size(True)))


def test_a_batch_that_was_not_halved_fails_the_row(monkeypatch):
    monkeypatch.setattr(exact, "fitting", lambda model, work, most: most)
    with pytest.raises(SystemExit, match="no batch was halved"):
        list(exact.out_of_memory(Size(True)))


def test_a_row_whose_parent_has_ended_does_not_begin():
    command = [sys.executable, ROOT / "benchmarks" / "gpu.py", "--row", "demo", "--smoke"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "the process that started this one has ended" in done.stderr


def test_a_machine_without_git(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    (line,) = gpu.machine()
    assert torch.__version__ in line
    assert "revision" not in line


def test_a_terminated_run_keeps_what_it_has_and_ends_its_processes(tmp_path):
    mark = tmp_path / "pid"
    (tmp_path / "test_long.py").write_text(
        "import os, pathlib, time\n"
        "def test_quick(): pass\n"
        f"def test_long(): pathlib.Path({str(mark)!r}).write_text(str(os.getpid())); time.sleep(600)\n"
    )
    page = tmp_path / "gpu.md"
    command = [sys.executable, ROOT / "benchmarks" / "gpu.py", "--smoke", "--only", "tests"]
    run = subprocess.Popen([*command, "--tests", tmp_path / "test_long.py", "--output", page], stdout=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not (mark.exists() and mark.read_text() and page.exists() and "1 passed" in page.read_text()):
        assert time.monotonic() < until
        assert run.poll() is None
        time.sleep(0.2)
    run.send_signal(signal.SIGTERM)
    assert run.wait(60) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)
    assert "1 passed" in page.read_text()
