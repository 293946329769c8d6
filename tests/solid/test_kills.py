"""SIGKILL at random moments: whatever is killed ends in the bytes of an undisturbed run. `make kill` does it 120 times."""

import json
import os
from pathlib import Path

import pytest

from helpers.processes import LATE, python

SCRIPT = Path(__file__).with_name("killing.py")
SHORT = ("count", "mia", "push")
KILLS = int(os.environ.get("MEMTAX_KILLS", "0"))


def killed(folder, kills, verbs, seed):
    chosen = [word for verb in verbs for word in ("--verb", verb)]
    # The script sets the address of its Hub and the place of its cache.
    environment = {**os.environ, LATE: "1"}
    done = python(SCRIPT, folder / "matrix", "--kills", kills, "--seed", seed, *chosen, env=environment, timeout=3000)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.skipif(KILLS > 0, reason="the long form runs")
def test_a_few_kills_of_the_quick_verbs(tmp_path):
    found = killed(tmp_path, len(SHORT) + 1, SHORT, seed=5)
    # The remainder of 4 over 3 verbs goes to the first.
    assert [(row["verb"], row["kills"]) for row in found] == [(verb, 2 if i < 1 else 1) for i, verb in enumerate(SHORT)]
    # Every verb came to its end at least once after its last kill.
    assert all(row["runs"] >= 1 and row["files"] > 0 for row in found)


@pytest.mark.skipif(not KILLS, reason="MEMTAX_KILLS says how many (make kill)")
def test_many_kills(tmp_path):
    found = killed(tmp_path, KILLS, (), seed=int(os.environ.get("MEMTAX_SEED", "0")))
    assert sum(row["kills"] for row in found) == KILLS
    assert len(found) == 14
