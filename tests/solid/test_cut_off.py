"""A mapped file that shrinks under its reader ends the command in one line that names it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READER = """\
import os, sys, threading
import numpy as np
from memtax.cli import cut_off

cut_off.answer()
os.chdir(sys.argv[1])
np.save("other.npy", np.ones(2**16))
other = np.load("other.npy", mmap_mode="r")
np.arange(2**20, dtype=np.int32).tofile("tokens\x1b.bin")
# Shared as Arrow and numpy map a file to read it, private as torch does.
mapped = np.memmap("tokens\x1b.bin", np.int32, sys.argv[2])
assert not list(cut_off.shrunk())
os.truncate("tokens\x1b.bin", 5000)
thread = threading.Thread(target=lambda: print(int(mapped.sum())))
thread.start()
thread.join()
print("not ended")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system ends the process")
@pytest.mark.parametrize("mode", ["r", "c"])
def test_a_mapped_file_that_is_cut_off_is_named_in_one_line(tmp_path, mode):
    (tmp_path / "reader.py").write_text(READER)
    words = [sys.executable, str(tmp_path / "reader.py"), str(tmp_path), mode]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"\nmemtax: {tmp_path}/tokens?.bin was truncated to 5000 bytes while it was read; "
        "restore it and run the same command again\n"
    )
