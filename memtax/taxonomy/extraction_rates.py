"""How many sequences of each category were memorized."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from memtax import statistics
from memtax.schema import CATEGORIES
from memtax.taxonomy.factors import read_category, read_target

if TYPE_CHECKING:
    import pyarrow as pa


def extraction_rates(
    table: "pa.Table", target: str = "is_memorized", category: str = "taxonomy", level: float = 0.95
) -> dict[str, dict[str, Any]]:
    """Memorized sequences by category, with exact binomial (Clopper-Pearson) intervals.

    Rows whose target is null are not counted; rows whose category is null count in `all` only.

    Args:
        table: rows with the target and the category.
        target: boolean column.
        category: column of indices into `memtax.schema.CATEGORIES`.
        level: coverage of the intervals, for sequences that are independent of each other.

    Returns:
        `all` and each category to `sequences`, `memorized`, `rate`, `low`, `high`; the last three are None for a category
        without sequences.
    """
    labels, labelled = read_target(table, target)
    categories, categorised = read_category(table, category)
    groups = {"all": labelled}
    groups |= {name: labelled & categorised & (categories == code) for code, name in enumerate(CATEGORIES)}
    return {name: _rate(labels[rows], level) for name, rows in groups.items()}


def _rate(labels: NDArray[np.bool_], level: float) -> dict[str, Any]:
    sequences, memorized = len(labels), int(labels.sum())
    counts = {"sequences": sequences, "memorized": memorized}
    if not sequences:
        return {**counts, "rate": None, "low": None, "high": None}
    interval = statistics.clopper_pearson(memorized, sequences, level)
    return {**counts, "rate": interval.value, "low": interval.low, "high": interval.high}


def rates_by_category(memorized: Sequence[bool], categories: Sequence[int | None], level: float = 0.95) -> dict[str, Any]:
    """The rates of `extraction_rates` under flat names: `all_rate`, `recitation_sequences`, `recitation_rate_low` and so on."""
    import pyarrow as pa

    table = pa.table({"is_memorized": memorized, "taxonomy": pa.array(categories, pa.int64())})
    return {
        f"{category}_{name}": value
        for category, counts in extraction_rates(table, level=level).items()
        for name, value in {**counts, "rate_low": counts["low"], "rate_high": counts["high"]}.items()
        if name not in ("low", "high")
    }
