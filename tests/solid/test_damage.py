"""Flipped bits and damaged parts in the output of verbs: used by none. `make damage` does it 1,000 times."""

import json
import os
from pathlib import Path

import pytest

from helpers.processes import LATE, python

SCRIPT = Path(__file__).with_name("damaging.py")
SHORT = ("count", "predict")
FLIPS = int(os.environ.get("MEMTAX_FLIPS", "0"))


def damaged(folder, flips, verbs, *more):
    chosen = [word for verb in verbs for word in ("--verb", verb)]
    # The script sets the address of its Hub and the place of its cache.
    environment = {**os.environ, LATE: "1"}
    done = python(SCRIPT, folder / "matrix", "--flips", flips, *chosen, *more, env=environment, timeout=6000)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def outcomes(row):
    return sum(row.get(name, 0) for name in ("same", "again", "refused"))


@pytest.mark.skipif(FLIPS > 0, reason="the long form runs")
def test_a_few_flips_and_faults_of_the_quick_verbs(tmp_path):
    found = damaged(tmp_path, 2 * len(SHORT), SHORT, "--faults", "1", "--seed", "4")
    assert [row["verb"] for row in found] == list(SHORT)
    # One undisturbed, two flips, and a fault in the finished and the unfinished output each.
    assert [outcomes(row) for row in found] == [5, 5]
    # Count has no parts at its end.
    assert all(row["parts"] > 1 for row in found[1:])


@pytest.mark.skipif(not FLIPS, reason="MEMTAX_FLIPS says how many (make damage)")
def test_many_flips_and_every_fault(tmp_path):
    found = damaged(tmp_path, FLIPS, (), "--seed", os.environ.get("MEMTAX_SEED", "0"))
    assert len(found) == 13
    assert sum(outcomes(row) for row in found) >= FLIPS
