"""Shares of sequences as the results hold them: with what the interval is over, and with that of independent sequences."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memtax.statistics.clusters import bounded_mean, cluster_rate
from memtax.statistics.intervals import clopper_pearson
from memtax.statistics.units import Units, withheld


def share(outcomes: NDArray[np.bool_], units: Units, level: float = 0.95) -> dict[str, Any]:
    """A share of sequences with its interval over units, and that of independent sequences beside it.

    Args:
        outcomes: (rows,) whether each sequence counts, as it is memorized.
        units: of the rows.
        level: coverage of the intervals.

    Returns:
        `sequences`, `memorized`, `rate`; `low` and `high` over units (`cluster_rate`); `unit` and `units`, what the
        units are and how many; `low_independent` and `high_independent` (Clopper-Pearson), which hold where sequences do not
        depend on each other; `reason`, why `low` and `high` are None. Without sequences all but the counts are None.
    """
    sequences, memorized = len(outcomes), int(np.sum(outcomes))
    counts = {"sequences": sequences, "memorized": memorized, "unit": units.name, "units": units.count}
    names = ("rate", "low", "high", "low_independent", "high_independent")
    if not sequences:
        return {**counts, **dict.fromkeys(names), "reason": "no sequence"}
    exact = clopper_pearson(memorized, sequences, level)
    interval = cluster_rate(outcomes, units.codes, level)
    bounds = (None, None) if interval is None else (interval.low, interval.high)
    values = (exact.value, *bounds, exact.low, exact.high)
    return {**counts, **dict(zip(names, values, strict=True)), "reason": withheld(units)}


def mean_over_units(values: Sequence[float | None], units: Units, level: float = 0.95) -> dict[str, Any] | None:
    """A mean of rows from 0 to 1, such as an accuracy, with its interval over units: `cluster_rate` or `bounded_mean`.

    Args:
        values: one per row, from 0 to 1; rows with None do not count.
        units: of the rows.
        level: coverage of the interval.

    Returns:
        `value`, `low` and `high` (None with few units, and why in `reason`), `rows`, `unit` and `units`; None where no row
        has a value.
    """
    known = np.array([value is not None for value in values], bool)
    numbers, units = np.array([value for value in values if value is not None], np.float64), units[known]
    if not len(numbers):
        return None
    binary = bool(np.isin(numbers, (0, 1)).all())
    codes = units.codes
    interval = cluster_rate(numbers, codes, level) if binary else bounded_mean(numbers, codes, 0.0, 1.0, level)
    bounds = {"low": None, "high": None} if interval is None else {"low": interval.low, "high": interval.high}
    counts = {"rows": len(numbers), "unit": units.name, "units": units.count}
    return {"value": float(numbers.mean()), **bounds, **counts, "reason": withheld(units)}
