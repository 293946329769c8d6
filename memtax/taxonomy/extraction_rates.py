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
    table: "pa.Table",
    target: str = "is_memorized",
    category: str = "taxonomy",
    level: float = 0.95,
    units: statistics.Units | None = None,
) -> dict[str, dict[str, Any]]:
    """Memorized sequences by category, with intervals over documents.

    Rows whose target is null are not counted; rows whose category is null count in `all` only.

    Args:
        table: rows with the target and the category.
        target: boolean column.
        category: column of indices into `memtax.schema.CATEGORIES`.
        level: coverage of the intervals.
        units: of the rows; None takes them from the table's `document`, `text` and `tokens`.

    Returns:
        `all` and each category to the keys of `share`, with `memorized` in place of `successes`.
    """
    labels, labeled = read_target(table, target)
    categories, categorized = read_category(table, category)
    units = units or statistics.Units.of_table(table)
    groups = {"all": labeled}
    groups |= {name: labeled & categorized & (categories == code) for code, name in enumerate(CATEGORIES)}
    return {name: share(labels[rows], units[rows], level) for name, rows in groups.items()}


def share(outcomes: NDArray[np.bool_], units: statistics.Units, level: float = 0.95) -> dict[str, Any]:
    """A share of sequences with its interval over units, and that of independent sequences beside it.

    Args:
        outcomes: (rows,) whether each sequence counts, as it is memorized.
        units: of the rows.
        level: coverage of the intervals.

    Returns:
        `sequences`, `memorized`, `rate`; `low` and `high` over units (`statistics.cluster_rate`); `unit` and `units`, what the
        units are and how many; `low_independent` and `high_independent` (Clopper-Pearson), which hold where sequences do not
        depend on each other; `reason`, why `low` and `high` are None. Without sequences all but the counts are None.
    """
    sequences, memorized = len(outcomes), int(np.sum(outcomes))
    counts = {"sequences": sequences, "memorized": memorized, "unit": units.name, "units": units.count}
    names = ("rate", "low", "high", "low_independent", "high_independent")
    if not sequences:
        return {**counts, **dict.fromkeys(names), "reason": "no sequence"}
    exact = statistics.clopper_pearson(memorized, sequences, level)
    interval = statistics.cluster_rate(outcomes, units.codes, level)
    bounds = (None, None) if interval is None else (interval.low, interval.high)
    values = (exact.value, *bounds, exact.low, exact.high)
    return {**counts, **dict(zip(names, values, strict=True)), "reason": statistics.withheld(units)}


def rates_by_category(
    memorized: Sequence[bool],
    categories: Sequence[int | None],
    level: float = 0.95,
    documents: Sequence[Any] | None = None,
) -> dict[str, Any]:
    """The rates of `extraction_rates` under flat names: `all_rate`, `recitation_sequences`, `recitation_rate_low` and so on.

    Without documents the sequences are taken as independent, with Clopper-Pearson intervals; with them the interval is over
    documents, None below 10 of a category, and `all_documents` and so on are their numbers.
    """
    import pyarrow as pa

    table = pa.table({"is_memorized": memorized, "taxonomy": pa.array(categories, pa.int64())})
    units = None if documents is None else statistics.Units(statistics.unit_codes(documents), "document")
    result: dict[str, Any] = {}
    for name, row in extraction_rates(table, level=level, units=units).items():
        low, high = ("low", "high") if documents is not None else ("low_independent", "high_independent")
        result |= {f"{name}_{key}": row[key] for key in ("sequences", "memorized", "rate")}
        result |= {f"{name}_rate_low": row[low], f"{name}_rate_high": row[high]}
        if documents is not None:
            result[f"{name}_documents"] = row["units"]
    return result
