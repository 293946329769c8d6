"""Memorization by time since last seen, and what checkpoints gained and lost, against loops over the rows."""

import json

import numpy as np
import pyarrow as pa
import pytest

from memtax.pipeline.seen import gained_and_lost, since_seen
from memtax.record_shapes import METRICS
from memtax.records import read_json
from memtax.report import seen
from memtax.report.parts import Panel
from memtax.statistics import Units

ROWS = 400


@pytest.fixture
def table():
    rng = np.random.default_rng(5)
    last = rng.integers(1, 1000, ROWS).tolist()
    last[3] = None
    duplicates = rng.choice([1, 1, 3, 9], ROWS).tolist()
    duplicates[7] = None
    return pa.table({"last_seen_step": last, "sequence_duplicates": pa.array(duplicates, pa.int64())})


def series(steps, seed=1):
    rng = np.random.default_rng(seed)
    parts = []
    for step in steps:
        facts = {"model": ["m"] * ROWS, "checkpoint": [f"m@{step}"] * ROWS, "step": [step] * ROWS}
        nobody = pa.nulls(ROWS, pa.int64())
        parts.append(pa.table({**facts, "parameters": nobody, "is_memorized": rng.random(ROWS) < step / 1500}))
    return pa.concat_tables(parts)


def models(table):
    names = list(dict.fromkeys(table["checkpoint"].to_pylist()))
    parts = [table.slice(ROWS * at, ROWS) for at in range(len(names))]
    keys = ("model", "checkpoint", "step", "parameters")
    return [({key: part[key][0].as_py() for key in keys}, part) for part in parts]


def test_shares_are_those_of_a_loop_over_the_rows(table):
    every = series([500, 1000])
    rows = since_seen(models(every), table, 5, Units.of_rows(ROWS))
    wanted = {"once": (0, 1), "few": (2, 5), "many": (6, 10**9), "all": (0, 10**9)}
    last, duplicates = table["last_seen_step"].to_pylist(), table["sequence_duplicates"].to_pylist()
    assert {row["step"] for row in rows} == {500, 1000}
    for row in rows:
        memorized = every["is_memorized"].to_pylist()[: ROWS if row["step"] == 500 else None][-ROWS:]
        chosen = []
        for at in range(ROWS):
            low, high = wanted[row["group"]]
            if row["group"] != "all" and (duplicates[at] is None or not low <= duplicates[at] <= high):
                continue
            since = None if last[at] is None else row["step"] - last[at]
            if since is not None and (since < 0 if row["from"] is None else row["from"] <= since <= row["to"]):
                chosen.append(memorized[at])
        assert (row["sequences"], row["memorized"]) == (len(chosen), sum(chosen))
    # Every sequence with a known step is in one bin of its checkpoint; the last one has seen all of them.
    for step in (500, 1000):
        own = [row for row in rows if row["step"] == step and row["group"] == "all"]
        assert sum(row["sequences"] for row in own) == ROWS - 1
        assert any(row["from"] is None for row in own) == (step == 500)


def test_without_steps_there_is_nothing_to_show(table):
    facts = {"model": "m", "checkpoint": "m", "step": None, "parameters": None}
    assert since_seen([(facts, series([500]))], table, 5, Units.of_rows(ROWS)) == []
    assert since_seen(models(series([500])), table.drop_columns(["last_seen_step"]), 5, Units.of_rows(ROWS)) == []
    assert seen.since_seen([]) == []
    assert gained_and_lost(None, Units.of_rows(ROWS)) == []


def test_sequences_all_seen_at_one_step_are_one_bin(table):
    same = table.set_column(0, "last_seen_step", pa.array([40] * ROWS))
    rows = since_seen(models(series([500])), same, 5, Units.of_rows(ROWS))
    assert {(row["from"], row["to"]) for row in rows} == {(460, 460)}


def test_gained_and_forgotten_add_up_to_the_next_checkpoint():
    every = series([300, 600, 900])
    rows = gained_and_lost(every, Units.of_rows(ROWS))
    counts = [sum(part["is_memorized"].to_pylist()) for _, part in models(every)]
    assert [(row["before"], row["step"]) for row in rows] == [("m@300", 600), ("m@600", 900)]
    for row, before, after in zip(rows, counts, counts[1:], strict=False):
        assert row["sequences"] == before
        assert before - row["memorized"] + row["gained"] == after


def test_the_figure_has_a_line_per_group_and_leaves_small_bins_out(table, tmp_path):
    every = series([500, 1000])
    rows = since_seen(models(every), table, 5, Units.of_rows(ROWS))
    found = {"since_seen": rows, "gained_and_lost": gained_and_lost(every, Units.of_rows(ROWS))}
    (tmp_path / "metrics.json").write_text(json.dumps(found))
    assert read_json(tmp_path / "metrics.json", METRICS) == found
    panel, numbers = seen.since_seen(rows)
    assert isinstance(panel, Panel)
    assert "last seen at least" in panel.title
    assert len(numbers.rows) == len(rows)
    axes = seen.curves([{**row, "sequences": 9} if row["group"] == "many" else row for row in rows if row["step"] == 500])
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["all sequences", "occur once", "a few times"]
    assert axes.get_xticklabels()[0].get_text() == "not seen yet"
