"""One run on an output directory at a time, and a clean end by signals and by what the file system refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from memtax.errors import MemtaxError
from memtax.files import hold

ROOT = Path(__file__).parents[2]
HOLDER = """\
import sys, time
from memtax.files import hold
with hold(sys.argv[1], "memtax count"):
    print(1, flush=True)
    time.sleep(60)
"""


def environment(**more):
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def command(*arguments, **more):
    return subprocess.Popen(
        [sys.executable, "-m", "memtax", *map(str, arguments)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(**more),
    )


@pytest.fixture
def holder(tmp_path):
    """A process that holds `tmp_path/out`."""
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "out")], stdout=subprocess.PIPE, env=environment())
    assert child.stdout.readline()
    yield child
    child.kill()
    child.wait()


def test_a_second_run_is_refused_with_the_holders_name_and_a_dead_holder_holds_nothing(holder, tmp_path):
    with (
        pytest.raises(MemtaxError, match=rf"out is in use by process {holder.pid} on \S+ since .* \(memtax count\)"),
        hold(tmp_path / "out", "second"),
    ):
        pass
    holder.kill()
    holder.wait()
    assert (tmp_path / ".out.lock").exists()
    with hold(tmp_path / "out", "third"):
        assert json.loads((tmp_path / ".out.lock").read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_waiting_gets_the_directory_once_it_is_free(holder, tmp_path):
    started = time.monotonic()
    subprocess.Popen(["sh", "-c", f"sleep 1; kill {holder.pid}"])
    with hold(tmp_path / "out", "patient", wait=True):
        assert time.monotonic() - started > 0.5
    assert not (tmp_path / ".out.lock").exists()


@pytest.mark.parametrize("rank", ["0", "1"])
def test_the_command_refuses_in_one_line_but_not_the_ranks_of_one_job(holder, tmp_path, rank):
    child = command("count", tmp_path / "missing.jsonl", "-o", tmp_path / "out", RANK=rank)
    error = child.communicate(timeout=60)[1]
    assert (child.returncode, error.count("\n")) == (2, 1)
    # Rank 1 comes past the lock and stops at what is really wrong.
    assert ("is in use by process" in error) == (rank == "0")
    assert ("missing.jsonl" in error) == (rank == "1")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_in_one_line(tmp_path, number, code):
    child = command("demo", "-o", tmp_path / "out")
    # Once it works: a library that is being imported may end the process by itself at Ctrl-C, with the same status in a shell.
    while not (tmp_path / "out" / "corpus").exists():
        time.sleep(0.05)
    time.sleep(1)
    child.send_signal(number)
    error = child.communicate(timeout=60)[1]
    if child.returncode == -signal.SIGINT:
        pytest.skip("A LIBRARY ENDED THE PROCESS AT CTRL-C BY ITSELF: the status is that of Ctrl-C, our line is missing")
    assert child.returncode == code
    lines = [line for line in error.replace("\r", "\n").splitlines() if line.strip()]
    assert lines[-1] == "memtax: stopped; what is finished is kept, the same command goes on from there"
    assert "Traceback" not in error
    assert not (tmp_path / ".out.lock").exists()


def test_what_a_killed_run_left_is_swept_and_a_replaced_directory_comes_back(tmp_path):
    out = tmp_path / "out"
    (out / ".stage.abcd1234.tmp").mkdir(parents=True)
    (out / ".part.parquet.abcd_234.tmp").write_text("half")
    (out / ".tmpAb12Cd").write_text("of safetensors")
    (out / ".kept").write_text("the user's own")
    (out / ".dataset.abcd1234.old" / "dataset").mkdir(parents=True)
    (out / ".dataset.abcd1234.old" / "dataset" / "rows").write_text("1")
    with hold(out, "next"):
        assert sorted(str(path.relative_to(out)) for path in out.rglob("*")) == [".kept", "dataset", "dataset/rows"]


def test_an_output_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"tokens": [1, 2]}\n')
    (tmp_path / "file").write_text("in the way")
    for output in (tmp_path / "file" / "out", Path("/proc/out")):
        child = command("count", tmp_path / "rows.jsonl", "-o", output, "--no-windows")
        error = child.communicate(timeout=60)[1]
        assert (child.returncode, error.count("\n")) == (2, 1), error
