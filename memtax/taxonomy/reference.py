"""Predictable or memorized: what a model that was not trained on the sequences completes as well."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from memtax import statistics
from memtax.schema import CATEGORIES

if TYPE_CHECKING:
    import pyarrow as pa


def beyond_reference(ours: Sequence[bool | None], theirs: Sequence[bool | None], level: float = 0.95) -> dict[str, Any]:
    """How much of what a model extracts is beyond a reference model.

    Args:
        ours: is_memorized of each sequence under the model.
        theirs: the same under the reference model.
        level: coverage of the interval, for sequences that are independent of each other.

    Returns:
        Over the sequences where both are known: `sequences`; `model_memorized` and `reference_memorized`, what each of the two
        extracts; `predictable`, what both do; `memorized`, what the model alone does, with `rate`, `low`, `high` (its share of
        the sequences, Clopper-Pearson; None without sequences).
    """
    pairs = [(bool(a), bool(b)) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    beyond = sum(a and not b for a, b in pairs)
    found: dict[str, Any] = {
        "sequences": len(pairs),
        "model_memorized": sum(a for a, _ in pairs),
        "reference_memorized": sum(b for _, b in pairs),
        "predictable": sum(a and b for a, b in pairs),
        "memorized": beyond,
        "rate": None,
        "low": None,
        "high": None,
    }
    if pairs:
        interval = statistics.clopper_pearson(beyond, len(pairs), level)
        found |= {"rate": interval.value, "low": interval.low, "high": interval.high}
    return found


def by_category(table: "pa.Table") -> dict[str, dict[str, Any]]:
    """`beyond_reference` for `all` and each category.

    Args:
        table: rows with `is_memorized`, `is_memorized_by_reference` and `taxonomy`.
    """
    ours, theirs = (table.column(name).to_pylist() for name in ("is_memorized", "is_memorized_by_reference"))
    categories = table.column("taxonomy").to_pylist()
    found = {"all": beyond_reference(ours, theirs)}
    for code, name in enumerate(CATEGORIES):
        rows = [row for row, category in enumerate(categories) if category == code]
        found[name] = beyond_reference([ours[row] for row in rows], [theirs[row] for row in rows])
    return found
