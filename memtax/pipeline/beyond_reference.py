"""Predictable or memorized: comparison with a reference model that was not trained on the sequences."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from memtax import statistics
from memtax.schema import CATEGORIES


def beyond_reference(
    ours: Sequence[bool | None],
    theirs: Sequence[bool | None],
    level: float = 0.95,
    units: statistics.Units | None = None,
) -> dict[str, Any]:
    """How much of what a model extracts is beyond a reference model.

    Args:
        ours: is_memorized of each sequence under the model.
        theirs: is_memorized under the reference model.
        level: coverage of the interval.
        units: units of the sequences; None: each is its own unit.

    Returns:
        Counts over the sequences with both verdicts: `model_memorized` and `reference_memorized` (extracted by each model),
        `predictable` (by both), and the keys of `statistics.share` for those extracted by the model alone.
    """
    units = units or statistics.Units.of_rows(len(ours))
    known = np.array([a is not None and b is not None for a, b in zip(ours, theirs, strict=True)], bool)
    first, second = (np.array(column, object)[known].astype(bool) for column in (ours, theirs))
    return {
        "model_memorized": int(first.sum()),
        "reference_memorized": int(second.sum()),
        "predictable": int((first & second).sum()),
        **statistics.share(first & ~second, units[known], level),
    }


def by_category(table: pa.Table) -> dict[str, dict[str, Any]]:
    """`beyond_reference` for `all` and each category.

    Args:
        table: rows with `is_memorized`, `is_memorized_by_reference` and `taxonomy`; units are those of `Units.of_table`.
    """
    ours, theirs = (table.column(name).to_pylist() for name in ("is_memorized", "is_memorized_by_reference"))
    categories, units = table.column("taxonomy").to_pylist(), statistics.Units.of_table(table)
    result = {"all": beyond_reference(ours, theirs, units=units)}
    for code, name in enumerate(CATEGORIES):
        rows = [row for row, category in enumerate(categories) if category == code]
        mine = units[np.array(rows, np.int64)]
        result[name] = beyond_reference([ours[row] for row in rows], [theirs[row] for row in rows], units=mine)
    return result
