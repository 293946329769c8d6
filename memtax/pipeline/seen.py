"""Memorization and the order of training: time since a sequence was last seen, and what each checkpoint gained and lost."""

import itertools
from typing import Any

import numpy as np
import pyarrow as pa

from memtax.pipeline.series import each_member
from memtax.statistics import Units, share

BINS = 6
"""Bins of time since a sequence was last seen, of about equal numbers of sequences."""


def since_seen(
    models: list[tuple[dict[str, Any], pa.Table]], table: pa.Table, threshold: int, units: Units
) -> list[dict[str, Any]]:
    """Memorized shares by time since the sequence was last seen, of all sequences and with duplicates held fixed.

    Args:
        models: facts of each model or checkpoint, with its `step`, and its rows (`is_memorized`) in the order of `table`.
            Without a step a model is left out.
        table: the sequences with `last_seen_step` and `sequence_duplicates`; without the first there are no rows.
        threshold: the threshold of recitation, which separates few from many duplicates.
        units: units of the sequences.

    Returns:
        For each model, group (`all`, `once`, `few`, `many`) and bin: the facts, `group`, `from` and `to` (steps since it was
        last seen, both included; null where it had not been seen yet), and the keys of `memtax.statistics.share`.
    """
    if "last_seen_step" not in table.column_names:
        return []
    seen, duplicates = (_numbers(table, name) for name in ("last_seen_step", "sequence_duplicates"))
    groups = {
        "all": np.ones(len(seen), bool),
        "once": duplicates <= 1,
        "few": (duplicates > 1) & (duplicates <= threshold),
        "many": duplicates > threshold,
    }
    rows = []
    for facts, scored in models:
        if facts["step"] is None:
            continue
        memorized = _numbers(scored, "is_memorized")
        since = facts["step"] - seen
        for low, high in [(None, None), *_bins(since[since >= 0])]:
            inside = since < 0 if low is None else (since >= low) & (since <= high)
            for group, members in groups.items():
                chosen = inside & members & np.isfinite(memorized)
                if chosen.any():
                    rate = share(memorized[chosen] == 1, units[chosen])
                    rows.append({**facts, "group": group, "from": low, "to": high, **rate})
    return rows


def gained_and_lost(series: pa.Table | None, units: Units) -> list[dict[str, Any]]:
    """What each checkpoint memorized anew and forgot since the one before it.

    Returns:
        For each checkpoint but the first: the facts, `before` (name of the one before), `gained` (sequences memorized now and
        not then), and the keys of `memtax.statistics.share` of the sequences memorized then, where `memorized` counts those
        that are no longer.
    """
    rows = []
    for (before, old), (facts, new) in itertools.pairwise(each_member(series)):
        if before["model"] != facts["model"]:
            continue
        then, now = _numbers(old, "is_memorized") == 1, _numbers(new, "is_memorized") == 1
        lost = share(~now[then], units[then])
        rows.append({**facts, "before": before["checkpoint"], "gained": int((now & ~then).sum()), **lost})
    return rows


def _numbers(table: pa.Table, name: str) -> Any:
    """A column as float64, NaN where it is null."""
    return table.column(name).cast(pa.float64()).to_numpy()


def _bins(since: Any) -> list[tuple[int, int]]:
    """First and last step of each bin."""
    if not len(since):
        return []
    edges = np.unique(np.quantile(since, np.linspace(0, 1, BINS + 1), method="nearest"))
    starts = edges[:-1] if len(edges) > 1 else edges
    return [(int(low), int(high)) for low, high in zip(starts, [*(starts[1:] - 1), edges[-1]], strict=True)]
