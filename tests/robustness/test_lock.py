"""Two jobs on one directory, signals, and what a killed holder leaves."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from memtax.engine.lock import NAME, hold
from memtax.errors import MemtaxError

HOLDER = """
import sys, time
from memtax.engine.lock import hold
with hold(sys.argv[1], "memtax score"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds `tmp_path/out`."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_is_refused_with_the_holders_name(holder, tmp_path):
    said = rf"in use by process {holder.pid} on .* since 20.* \(memtax score\); wait for it"
    with pytest.raises(MemtaxError, match=said), hold(tmp_path / "out", "memtax fit"):
        raise AssertionError("it must not begin")
    assert (tmp_path / "out" / NAME).exists()


def test_the_lock_of_a_killed_process_is_free(holder, tmp_path):
    holder.kill()
    holder.wait()
    assert json.loads((tmp_path / "out" / NAME).read_text())["pid"] == holder.pid
    with hold(tmp_path / "out", "memtax fit"):
        assert json.loads((tmp_path / "out" / NAME).read_text())["pid"] == os.getpid()
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_one_process_may_hold_a_directory_twice_and_two_directories(tmp_path):
    with hold(tmp_path / "a", "x"), hold(tmp_path / "a", "y"), hold(tmp_path / "b" / "c", "z"):
        (tmp_path / "a" / "result").write_text("kept")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["result"]
    assert not (tmp_path / "b").exists()


def test_other_ranks_of_a_job_do_not_lock(holder, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with hold(tmp_path / "out", "memtax score"):
        pass


def test_a_file_in_the_place_of_the_directory_is_left_to_the_verb(tmp_path):
    (tmp_path / "out").write_text("mine")
    with hold(tmp_path / "out", "memtax score"):
        pass
    assert (tmp_path / "out").read_text() == "mine"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "corpus.npy"
    np.save(path, np.random.default_rng(0).integers(0, 1000, (1_000_000, 64), dtype=np.uint16))
    return path


def count(corpus, output):
    command = [sys.executable, "-m", "memtax", "count", str(corpus), "--output", str(output), "--shard-tokens", "100000"]
    return subprocess.Popen([*command, "--threads", "1"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def until_begun(process, output):
    """Wait for the lock, and a moment more."""
    for _ in range(600):
        if (output / NAME).exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    time.sleep(1)
    assert process.poll() is None, process.stderr.read()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_verb_with_one_line_and_it_goes_on(number, status, corpus, tmp_path):
    process = count(corpus, tmp_path / "out")
    until_begun(process, tmp_path / "out")
    second = count(corpus, tmp_path / "out")
    _, refused = second.communicate(timeout=60)
    assert second.returncode == 2
    assert f"in use by process {process.pid} on" in refused.splitlines()[-1]
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status, said
    assert said.strip().splitlines()[-1] == "memtax: stopped; run the same command again to go on"
    assert "Traceback" not in said
    third = count(corpus, tmp_path / "out")
    third.communicate(timeout=120)
    assert third.returncode == 0
    assert not list((tmp_path / "out").rglob("*.tmp"))
    assert not (tmp_path / "out" / NAME).exists()
