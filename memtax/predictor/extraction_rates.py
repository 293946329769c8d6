"""Number and share of memorized sequences per category."""

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
