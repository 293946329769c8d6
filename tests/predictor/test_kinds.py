"""Code and natural language by category: counts against a loop, and what a series says of each member."""

import numpy as np
import pyarrow as pa
import pytest

from memtax.pipeline.series import kinds_over_series
from memtax.predictor.kinds import KINDS, kind_rates
from memtax.schema import CATEGORIES
from memtax.statistics import Units, share


def made(rows=400, seed=0):
    rng = np.random.default_rng(seed)
    kinds = rng.choice([*KINDS, None], rows, p=[0.4, 0.4, 0.15, 0.05])
    columns = {
        "is_memorized": [None if rng.random() < 0.03 else bool(rng.random() < 0.4) for _ in range(rows)],
        "taxonomy": pa.array([None if rng.random() < 0.02 else int(rng.integers(3)) for _ in range(rows)], pa.int64()),
        "document": [f"d{number}" for number in rng.integers(0, 30, rows)],
        "text_kind": pa.array([None if kind is None else str(kind) for kind in kinds], pa.string()),
    }
    return pa.table(columns)


def test_counts_and_shares_equal_a_loop_over_rows():
    table = made()
    rows = table.to_pylist()
    found = kind_rates(table, table.column("text_kind").to_pylist())
    assert [(row["category"], row["kind"]) for row in found] == [(c, k) for c in ("all", *CATEGORIES) for k in KINDS]
    for row in found:
        inside = [
            one
            for one in rows
            if one["is_memorized"] is not None
            and one["text_kind"] is not None
            and (row["category"] == "all" or one["taxonomy"] == CATEGORIES.index(row["category"]))
        ]
        own = [one for one in inside if one["text_kind"] == row["kind"]]
        assert row["sequences"] == len(own)
        assert row["memorized"] == sum(one["is_memorized"] for one in own)
        assert row["rate"] == pytest.approx(row["memorized"] / len(own))
        assert row["part"]["sequences"] == sum(one["is_memorized"] for one in inside)
        assert row["part"]["memorized"] == row["memorized"]
        assert row["low"] <= row["rate"] <= row["high"]
        assert row["unit"] == "document"
    # Shares of the kinds among memorized sequences add up.
    for category in ("all", *CATEGORIES):
        assert sum(row["part"]["rate"] for row in found if row["category"] == category) == pytest.approx(1)


def test_intervals_are_over_documents_and_withheld_below_ten():
    table = made()
    kinds = table.column("text_kind").to_pylist()
    code = next(row for row in kind_rates(table, kinds) if (row["category"], row["kind"]) == ("all", "code"))
    known = np.array([one["is_memorized"] is not None and one["text_kind"] == "code" for one in table.to_pylist()])
    labels = np.array([bool(one) for one in table.column("is_memorized").to_pylist()])
    expected = share(labels[known], Units.of_table(table)[known])
    assert {name: code[name] for name in expected} == expected
    few = table.set_column(2, "document", pa.array([f"d{row % 9}" for row in range(table.num_rows)]))
    for row in kind_rates(few, kinds):
        assert row["low"] is None
        assert "10 needed" in row["reason"]


def test_each_member_of_a_series_has_its_own_rows():
    table = made(60)
    parts = []
    for step in (10, 20):
        facts = {"model": "m", "checkpoint": f"checkpoint-{step}", "step": step, "parameters": 5}
        flags = [bool(row % 3 == 0) if step == 10 else True for row in range(60)]
        columns = {name: [value] * 60 for name, value in facts.items()} | {"is_memorized": flags}
        parts.append(pa.table({**columns, "taxonomy": table.column("taxonomy")}))
    found = kinds_over_series(pa.concat_tables(parts), table)
    kinds = table.column("text_kind").to_pylist()
    for step, flags in ((10, [row % 3 == 0 for row in range(60)]), (20, [True] * 60)):
        code = next(row for row in found if (row["step"], row["category"], row["kind"]) == (step, "all", "code"))
        assert code["memorized"] == sum(flag and kind == "code" for flag, kind in zip(flags, kinds, strict=True))
        assert code["checkpoint"] == f"checkpoint-{step}"
    alone = kinds_over_series(None, table)
    assert {row["checkpoint"] for row in alone} == {None}
    assert kinds_over_series(None, table.drop_columns(["text_kind"])) == []
