"""Number and share of memorized sequences per category."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from memtax import statistics
from memtax.predictor.factors import read_category, read_target
from memtax.schema import CATEGORIES


def extraction_rates(
    table: pa.Table,
    target: str = "is_memorized",
    category: str = "taxonomy",
    level: float = 0.95,
    units: statistics.Units | None = None,
) -> dict[str, dict[str, Any]]:
    """Memorized sequences by category, with intervals over documents.

    Rows with a null target are not counted; rows with a null category count in `all` only.

    Args:
        table: rows with the target and the category.
        target: boolean column.
        category: column of indices into `memtax.schema.CATEGORIES`.
        level: coverage of the intervals.
        units: units of the rows; None derives them from the table's `document`, `text` and `tokens`.

    Returns:
        `all` and each category to the keys of `statistics.share`.
    """
    labels, labeled = read_target(table, target)
    categories, categorized = read_category(table, category)
    units = units or statistics.Units.of_table(table)
    groups = {"all": labeled}
    groups |= {name: labeled & categorized & (categories == code) for code, name in enumerate(CATEGORIES)}
    return {name: statistics.share(labels[rows], units[rows], level) for name, rows in groups.items()}


def rates_by_category(
    memorized: Sequence[bool],
    categories: Sequence[int | None],
    level: float = 0.95,
    documents: Sequence[Any] | None = None,
) -> dict[str, Any]:
    """The rates of `extraction_rates` under flat names: `all_rate`, `recitation_sequences`, `recitation_rate_low` and so on.

    Without documents, sequences are assumed to be independent, with Clopper-Pearson intervals. With documents, intervals are
    over documents (None if a category has fewer than 10), and `all_documents` and so on are their numbers.
    """
    table = pa.table({"is_memorized": memorized, "taxonomy": pa.array(categories, pa.int64())})
    units = None if documents is None else statistics.Units(statistics.unit_codes(documents), "document")
    result: dict[str, Any] = {}
    for name, row in extraction_rates(table, level=level, units=units).items():
        low, high = ("low", "high") if documents is not None else ("low_independent", "high_independent")
        result |= {f"{name}_{key}": row[key] for key in ("sequences", "memorized", "rate")}
        result |= {f"{name}_rate_low": row[low], f"{name}_rate_high": row[high]}
        if documents is not None:
            result[f"{name}_documents"] = row["units"]
            result |= {f"{name}_rate_reason": row["reason"]} if row["reason"] else {}
    return result
