"""On a terminal a line says what is going on before the first bar; a terminal without a width shows bars too."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

PROGRAM = """
import memtax
from memtax.progress import progress_bar
memtax.count(corpus=("rows.jsonl",), tokenizer="words", window=("0:2",), output="counts")
with progress_bar("counting sheep", 3, delay=0) as bar:
    bar.update(2)
"""


def shown(columns, folder):
    """What a terminal of this width receives."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    child = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=theirs, stderr=theirs, cwd=folder)
    os.close(theirs)
    received = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the child has closed its end
            part = b""
        if not part:
            break
        received += part
    os.close(ours)
    assert child.wait() == 0, received
    return received.decode()


@pytest.mark.parametrize("columns", [0, 100])
def test_the_line_and_the_bars_are_seen(columns, tmp_path):
    from helpers.small import word_tokenizer

    word_tokenizer().save_pretrained(tmp_path / "words")
    (tmp_path / "rows.jsonl").write_text('{"text": "w0 w1 w0 w1"}\n')
    received = shown(columns, tmp_path)
    first = received.index("\rmemtax count: reading libraries and settings")
    assert first < received.index("counting sheep")
    assert "67%" in received
    # Nothing is left of the line: it is overwritten with spaces.
    assert re.search(r"\r +\r", received[first:].partition("counting sheep")[0])


def test_a_log_has_no_such_line(tmp_path):
    from helpers.small import word_tokenizer

    word_tokenizer().save_pretrained(tmp_path / "words")
    (tmp_path / "rows.jsonl").write_text('{"text": "w0 w1 w0 w1"}\n')
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "reading libraries" not in done.stdout + done.stderr
