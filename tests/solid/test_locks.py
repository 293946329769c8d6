"""One run on an output directory at a time, and a clean end by signals and by what the file system refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from memtax.counting.spans import Span
from memtax.errors import MemtaxError
from memtax.outputs import hold

ROOT = Path(__file__).parents[2]
HOLDER = """\
import sys, time
from memtax.outputs import hold
with hold(sys.argv[1], "memtax count"):
    print(1, flush=True)
    time.sleep(60)
"""


def environment(**more):
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def hear_ctrl_c():
    """A shell starts what runs in the background deaf to SIGINT, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def command(*arguments, **more):
    return subprocess.Popen(
        [sys.executable, "-m", "memtax", *map(str, arguments)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(**more),
        preexec_fn=hear_ctrl_c,
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
    assert (tmp_path / "out" / ".memtax").exists()
    with hold(tmp_path / "out", "third"):
        assert json.loads((tmp_path / "out" / ".memtax").read_text().splitlines()[1])["pid"] == os.getpid()
    assert not any((tmp_path / "out").iterdir())


def test_waiting_gets_the_directory_once_it_is_free(holder, tmp_path):
    started = time.monotonic()
    subprocess.Popen(["sh", "-c", f"sleep 1; kill {holder.pid}"])
    with hold(tmp_path / "out", "patient", wait=True):
        assert time.monotonic() - started > 0.5
    assert not any((tmp_path / "out").iterdir())


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
    while not (tmp_path / "out" / "corpus").exists():
        time.sleep(0.05)
    time.sleep(1)
    child.send_signal(number)
    error = child.communicate(timeout=60)[1]
    assert child.returncode == code
    lines = [line for line in error.replace("\r", "\n").splitlines() if line.strip()]
    assert lines[-1] == "memtax: interrupted; finished parts are kept. Run the same command again to resume."
    assert "Traceback" not in error
    assert "pid" not in (tmp_path / "out" / ".memtax").read_text()
    assert not list(tmp_path.rglob("*.journal"))


LIBRARIES = """\
import os, signal, sys, time
from typing import Annotated
import typer
from memtax import cli
from memtax.cli import base

@base.app.command()
def executed():
    # As dataclasses and compilers do. Python notes that nobody caught the interruption in here, and `-m` would end by it.
    exec("import os, signal; os.kill(os.getpid(), int(os.environ['NUMBER']))")

@base.app.command()
def translated():
    try:
        os.kill(os.getpid(), int(os.environ["NUMBER"]))
    except KeyboardInterrupt as error:
        raise SystemError("returned a result with an exception set") from error

class Dropped:
    def __del__(self):
        os.kill(os.getpid(), int(os.environ["NUMBER"]))

@base.app.command()
def swallowed():
    # Python prints what is raised in here, and goes on.
    Dropped()
    time.sleep(5)

@base.app.command()
def imported():
    # Torch aborts the process if an interruption comes between its registrations.
    import registering
    time.sleep(5)

def early(value):
    os.kill(os.getpid(), int(os.environ["NUMBER"]))

@base.app.command()
def parsed(option: Annotated[str, typer.Option(callback=early)] = ""):
    pass

cli.main()
"""


REGISTERING = """\
import os
os.kill(os.getpid(), int(os.environ["NUMBER"]))
open("whole", "x").close()
"""


@pytest.mark.parametrize("verb", ["executed", "translated", "swallowed", "imported", "parsed"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_in_one_line_whatever_a_library_makes_of_them(tmp_path, verb, number, code):
    (tmp_path / "libraries.py").write_text(LIBRARIES)
    (tmp_path / "registering.py").write_text(REGISTERING)
    words, more = [sys.executable, "-m", "libraries", verb], environment(NUMBER=str(int(number)))
    done = subprocess.run(words, cwd=tmp_path, env=more, capture_output=True, text=True, timeout=60, preexec_fn=hear_ctrl_c)
    assert done.returncode == code
    assert (tmp_path / "whole").exists() == (verb == "imported")
    assert done.stderr == "\nmemtax: interrupted; finished parts are kept. Run the same command again to resume.\n"


def test_the_memory_that_is_stated_is_kept_to(tmp_path, monkeypatch):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"tokens": [n % 7, 1, 2, 3]}) + "\n" for n in range(50)))
    found = {}
    for gib, code in ((None, 0), (2, 0), (0, 2)):
        out = tmp_path / str(gib)
        limit = () if gib is None else ("--memory", gib)
        child = command(*limit, "count", tmp_path / "rows.jsonl", "--window", "0:2", "-o", out, HF_HOME=str(tmp_path / "hub"))
        error = child.communicate(timeout=60)[1]
        assert child.returncode == code, error
        found[gib] = error, [path.read_bytes() for path in sorted(out.rglob("*")) if path.suffix == ".parquet"]
    assert found[2][1] == found[None][1]
    assert len(found[2][1]) >= 3
    assert "--memory 0.0 must be above 0" in found[0][0]
    # The plan itself, here without the system's limit: Python with its libraries takes 0.3 GiB alone.
    from memtax import progress
    from memtax.counting.count_job import CountJob

    monkeypatch.setattr(progress, "_memory", int(0.3 * 2**30))
    with pytest.raises(MemtaxError, match=r"counting 50 windows takes about \d+\.\d GiB, more than --memory 0\.3"):
        CountJob(corpus=(str(tmp_path / "rows.jsonl"),), spans=(Span.parse("0:2"),)).run(tmp_path / "refused")


def test_an_output_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"tokens": [1, 2]}\n')
    (tmp_path / "file").write_text("in the way")
    for output in (tmp_path / "file" / "out", Path("/proc/out")):
        child = command("count", tmp_path / "rows.jsonl", "-o", output, "--no-windows")
        error = child.communicate(timeout=60)[1]
        assert (child.returncode, error.count("\n")) == (2, 1), error
