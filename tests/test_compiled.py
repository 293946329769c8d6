"""Compiled code on disk never goes to the wrong signature, however many processes write it, and does not outlive its source."""

import importlib
import os
import sys
import time
import zipfile
from pathlib import Path

import pytest

from helpers.processes import python, start
from memtax import compiled

pytest.importorskip("numba")

MODULE = """
from memtax.compiled import kernel
from {callee} import base

@kernel()
def twice(values):
    total = values[0] - values[0]
    for place in range(len(values)):
        total += base(values[place])
    return total
"""
CALLEE = """
from memtax.compiled import kernel

@kernel()
def base(value):
    return value * {factor}
"""
RACE = """
import sys, time
import numpy as np
from looped import twice
kind, start = sys.argv[1], float(sys.argv[2])
time.sleep(max(0, start - time.time()))
assert twice(np.arange(5).astype(kind)) == 20, kind
"""
KINDS = ("uint16", "int32", "uint32", "int64", "float32", "float64")


def _write(folder: Path, factor: int = 2) -> None:
    (folder / "looped.py").write_text(MODULE.format(callee="inner"))
    (folder / "inner.py").write_text(CALLEE.format(factor=factor))


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(folder / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}


def _run(folder: Path, code: str) -> str:
    done = python("-c", code, env=_environment(folder))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_processes_that_compile_at_once_leave_code_that_every_signature_can_use(tmp_path: Path) -> None:
    _write(tmp_path)
    python("-c", "")  # the server is there
    moment = time.time() + 2
    racing = [start("-c", RACE, kind, moment, env=_environment(tmp_path)) for kind in KINDS]
    for process in racing:
        done = process.wait()
        assert done.returncode == 0, done.stderr
    # Each again in another process, from what the race left behind.
    again = (
        f"assert all(twice(np.arange(5).astype(kind)) == 20 for kind in {KINDS}); print(sum(twice.stats.cache_hits.values()))"
    )
    assert int(_run(tmp_path, f"import numpy as np; from looped import twice; {again}")) > 0


def test_an_index_that_lost_a_race_does_not_lead_to_the_code_of_another_signature(tmp_path: Path) -> None:
    """The interleaving itself: two writers each read an index without the other's entry, and the first one's is what stays."""
    from numba import float64, int64

    from memtax.compiled import _CacheFile

    cache = _CacheFile(str(tmp_path), "f-1.py311", "stamp")
    index = Path(cache._index_path)
    cache.save((int64,), "code for int64")
    first = index.read_bytes()
    index.unlink()  # the second writer had read the index before the first wrote it
    cache.save((float64,), "code for float64")
    assert cache.load((float64,)) == "code for float64"
    index.write_bytes(first)  # and the first one's index is the last to arrive
    assert cache.load((int64,)) == "code for int64"
    assert cache.load((float64,)) is None


@pytest.mark.parametrize("damage", [b"", b"\x80\x04rubbish", b"cposix\n"])
def test_a_damaged_file_is_compiled_anew(tmp_path: Path, damage: bytes) -> None:
    from numba import int64

    from memtax.compiled import _CacheFile

    cache = _CacheFile(str(tmp_path), "f-1.py311", "stamp")
    cache.save((int64,), "code")
    (file,) = tmp_path.glob("*.nbc")
    file.write_bytes(damage)
    assert cache.load((int64,)) is None


def test_a_changed_callee_in_another_file_is_seen(tmp_path: Path) -> None:
    code = "import numpy as np; from looped import twice; print(twice(np.arange(5)))"
    _write(tmp_path, factor=2)
    assert _run(tmp_path, code) == "20"
    _write(tmp_path, factor=3)
    assert _run(tmp_path, code) == "30"


def test_the_second_process_takes_the_code_of_the_first(tmp_path: Path) -> None:
    _write(tmp_path)
    code = "import numpy as np; from looped import twice; twice(np.arange(5)); print(sum(twice.stats.cache_hits.values()))"
    assert _run(tmp_path, code) == "0"
    assert _run(tmp_path, code) == "1"


def test_a_place_that_cannot_be_written_costs_the_cache_and_nothing_else(tmp_path: Path) -> None:
    """Modules in an archive have no folder beside them, and this home is a file."""
    _write(tmp_path)
    archive, taken = tmp_path / "modules.zip", tmp_path / "file"
    taken.write_text("")
    with zipfile.ZipFile(archive, "w") as kept:
        for name in ("looped.py", "inner.py"):
            kept.write(tmp_path / name, name)
    code = "import numpy as np; from looped import twice; print(twice(np.arange(5)))"
    environment = {**os.environ, "PYTHONPATH": str(archive), "HOME": str(taken), "XDG_CACHE_HOME": str(taken / "below")}
    done = python("-c", code, env=environment)
    assert (done.returncode, done.stdout.strip()) == (0, "20"), done.stderr


def test_the_wait_for_a_first_compilation_is_announced_once_on_standard_error(tmp_path, monkeypatch, capsys):
    source = "from memtax.compiled import kernel\n\n@kernel()\ndef plus(x):\n    return x + 1\n"
    (tmp_path / "announced.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    for expected in (1, 0):  # the second time, the code is on the disk
        compiled._announce.cache_clear()
        module = importlib.import_module("announced")
        assert module.plus(1) == 2
        printed = capsys.readouterr()
        assert (printed.out, printed.err.count("compiling loops")) == ("", expected)
        del sys.modules["announced"]
