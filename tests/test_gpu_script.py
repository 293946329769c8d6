"""The script that others run on a card works: its rows on the CPU in tiny sizes, and its processes."""

import importlib
import json
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
from on_gpu import exact, reporter, testing, verbs
from on_gpu.plan import ROWS, Row, Size

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
    tests = ["import pytest", "def test_good(): pass", "def test_bad(): assert 1 == 2"]
    tests += ["@pytest.mark.gpu", "def test_card(): pytest.skip('none')"]
    (tmp_path / "test_some.py").write_text("\n".join(tests))
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
    assert "1 failed, 1 passed, 1 skipped" in text
    assert "- marked gpu: 1 skipped" in text
    assert "pytest ended with" not in text
    assert f"| {row} | memtax demo | left out of the check |" in text


def test_a_check_or_a_part_of_a_run_replaces_no_results():
    assert gpu.default_output(part=False) == ROOT / "benchmarks" / "results" / "gpu.md"
    assert gpu.default_output(part=True).relative_to(ROOT).parts[0] == "build"  # which git ignores


def test_a_row_without_its_package_says_so_and_the_next_one_runs(tmp_path):
    (tmp_path / "peft.py").write_text("raise ModuleNotFoundError(\"No module named 'peft'\", name='peft')\n")
    page = tmp_path / "gpu.md"
    command = [sys.executable, ROOT / "benchmarks" / "gpu.py", "--smoke", "--only", "DataInf,demo", "--output", page]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "| DataInf | failed | ModuleNotFoundError: No module named 'peft' |" in page.read_text()
    assert "| demo | memtax demo | left out of the check |" in page.read_text()


ROW_SCRIPTS = {
    "a slow import is not part of the time": (
        'import time; time.sleep(1.5); print(\'noise\\n@ready\', flush=True); input(); print(\'@row ["w", "m", "g"]\')',
        "| row | w | m | g |",
    ),
    "a row that takes too long": ("import time; print('@ready', flush=True); time.sleep(60)", "stopped at its time limit"),
    "a row that crashes": (
        "import os, sys; print('a warning', file=sys.stderr, flush=True); print('@ready', flush=True); os.kill(os.getpid(), 9)",
        "| row | failed | ended by SIGKILL |",
    ),
    "a row that cannot be imported": ("raise SystemExit('no such package')", "| row | failed | no such package |"),
}


@pytest.mark.parametrize("case", ROW_SCRIPTS)
def test_what_becomes_of_a_row(monkeypatch, tmp_path, case):
    script, expected = ROW_SCRIPTS[case]
    (tmp_path / "gpu.py").write_text(script)
    monkeypatch.setattr(gpu, "HERE", tmp_path)
    page = gpu.Page(tmp_path / "gpu.md", ["about"])
    good = gpu.run_rows([Row("row", "module", "function", 1)], page, True, time.monotonic() + 60)
    assert good == ("slow import" in case)
    assert expected in page.path.read_text()


def test_verbs_that_fail_fail_their_row(monkeypatch):
    def broken(**settings):
        raise OSError("the disk is full")

    monkeypatch.setattr(verbs, "build_large", lambda size, folder: 0)
    for name in ("score", "mia", "align", "audit"):
        monkeypatch.setattr(verbs.memtax, name, broken)
    lines = []
    with pytest.raises(SystemExit, match=r"failed: score, 8 rows of 64, mia, align, audit --adapter"):
        lines.extend(verbs.large(Size(True)))


def test_a_test_that_lacks_an_optional_package_did_not_fail(monkeypatch, tmp_path):
    text = "E   ModuleNotFoundError: No module named 'statsmodels'"
    one_line = "memtax audit needs matplotlib, statsmodels, which are not installed; pip install 'memtax[report,stats]'"
    assert reporter._absent(text) == reporter._absent(one_line) == ""  # Both are installed here.
    monkeypatch.setattr(reporter.importlib.util, "find_spec", lambda name: None)
    assert reporter._absent(text) == "statsmodels not installed"
    assert reporter._absent(one_line) == "matplotlib, statsmodels not installed"
    assert reporter._absent("No module named 'memtax.nothing'") == ""
    no_wheel = "MemtaxError: memtax is not installed, so no wheel can be made; run pip install -e . in the checkout"
    for installed, expected in ((True, ""), (False, "memtax not installed")):
        monkeypatch.setattr(reporter, "_is_installed", lambda installed=installed: installed)
        assert reporter._absent(no_wheel) == expected
    events = tmp_path / "events"
    end = {"kind": "end", "outcome": reporter.ABSENT, "test": "a.py::b", "message": "statsmodels not installed", "file": "a.py"}
    events.write_text(json.dumps(end) + "\n")
    record = testing.Record(gpu.Page(tmp_path / "gpu.md", []), events)
    record.read()
    assert not record.failed
    assert "- statsmodels not installed: 1 tests could not run: `a.py::b`" in (tmp_path / "gpu.md").read_text()


@pytest.mark.parametrize("status", [1, 3])
def test_a_pytest_that_ran_no_test_is_an_error(monkeypatch, tmp_path, status):
    def start(file, environment, folder):
        log = testing.log_of(folder, file)
        return subprocess.Popen([sys.executable, "-c", f"open({str(log)!r}, 'w').write('no tests'); exit({status})"])

    monkeypatch.setattr(testing, "start", start)
    page = gpu.Page(tmp_path / "gpu.md", [])
    assert not testing.run_tests(page, ["tests/test_layout.py"], {}, 60, 1)
    assert f"pytest ended with {status}: no tests" in page.path.read_text()


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
    assert done.stdout.split() == [gpu.READY]
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
