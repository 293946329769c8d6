"""Association of gradient alignment with how much of each text is memorized (plotted in Paramem)."""

from typing import Any

import numpy as np
import pyarrow as pa

from memtax import statistics

SCORES = ("memorization_score", "exact_memorization")
"""Columns with the memorized share of a continuation's tokens; the first present is used."""
FEWEST = 10
"""Minimum number of texts for a correlation."""


def memorization_column(names: list[str]) -> str | None:
    """The first column of `SCORES` among the names; None if there is none."""
    return next((name for name in SCORES if name in names), None)


def add_memorization(alignment: pa.Table, sequences: pa.Table) -> pa.Table:
    """Join a run's memorization scores to the alignment of the same texts.

    Rows are matched by equal text: ids in a table of paraphrases may have been renumbered, and sequences with equal text have
    equal scores.

    Args:
        alignment: `text` and `gradient_alignment`.
        sequences: `text` and a column of `SCORES`.

    Returns:
        `alignment` with the first column of `SCORES` in `sequences`, null for texts that are not in the run; unchanged if one
        of the two lacks the columns, or no text is in both.
    """
    name = memorization_column(sequences.column_names)
    if name is None or name in alignment.column_names or "text" not in alignment.column_names:
        return alignment
    known = dict(zip(sequences.column("text").to_pylist(), sequences.column(name).to_pylist(), strict=True))
    values = [None if text is None else known.get(text) for text in alignment.column("text").to_pylist()]
    if all(value is None for value in values):
        return alignment
    return alignment.append_column(name, pa.array(values, pa.float32()))


def points(table: pa.Table) -> tuple[str, np.ndarray] | None:
    """The memorization column of an alignment table, and (rows, 2) alignment and score, NaN where unknown.

    None if the table has no numeric column of `SCORES`.
    """
    name = memorization_column(table.column_names)
    kinds = (pa.types.is_floating, pa.types.is_integer)
    if name is None or not any(kind(table.schema.field(name).type) for kind in kinds):
        return None
    both = (table.column(column).cast(pa.float64()) for column in ("gradient_alignment", name))
    return name, np.column_stack([values.to_numpy(zero_copy_only=False) for values in both])


def agreement(table: pa.Table) -> dict[str, Any]:
    """Correlation of gradient alignment with memorization, over the texts that have both.

    Args:
        table: `gradient_alignment`, a column of `SCORES`, and `document` and `text` if known.

    Returns:
        `score` (the column), `texts`, `spearman` with its 95% interval `low` and `high` over documents or equal texts,
        `unit` and `units`, and `reason`, why a value is None. Empty if the table has no such column.
    """
    found = points(table)
    if found is None:
        return {}
    name, values = found
    kept = np.isfinite(values).all(axis=1)
    alignment, score = values[kept].T
    units = statistics.Units.of_table(table)[kept]
    facts = {"score": name, "texts": int(kept.sum()), "unit": units.name, "units": units.count}
    nothing = dict.fromkeys(("spearman", "low", "high"))
    if len(score) < FEWEST:
        return {**facts, **nothing, "reason": f"{len(score)} texts have both, {FEWEST} needed"}
    if np.ptp(alignment) == 0 or np.ptp(score) == 0:
        return {**facts, **nothing, "reason": "one of the two is the same for every text"}
    # Independent rows use the interval designed for them.
    codes = None if units.count == len(score) and units.name == "sequence" else units.codes
    interval = statistics.spearman_interval(alignment, score, units=codes)
    bounds = {"low": interval and interval.low, "high": interval and interval.high}
    return {
        **facts,
        "spearman": statistics.spearman(alignment, score),
        **bounds,
        "reason": statistics.withheld(units) if interval is None else None,
    }
