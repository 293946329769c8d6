"""How each factor goes with memorization: rank and linear correlation, for all sequences and within each category."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memtax import statistics
from memtax.predictor import factors as declared
from memtax.predictor.copies import units_of
from memtax.predictor.factors import FACTORS
from memtax.predictor.logistic import MINIMUM, Array, too_few
from memtax.progress import numbered
from memtax.schema import CATEGORIES

_KINDS = {"nl": "natural language", "code": "code"}
"""Groups to the values of `text_kind`."""
_NUMBERS = ("spearman", "low", "high", "pearson", "xi", "xi_low", "xi_high")


def correlations(
    table: pa.Table,
    factors: Sequence[str] = FACTORS,
    target: str = "is_memorized",
    category: str = "taxonomy",
) -> list[dict[str, Any]]:
    """Spearman's, Pearson's and Chatterjee's correlation of each factor with the target, for all and by group.

    Factors are on their own scale: the logarithm that models see would change Pearson's correlation, not Spearman's.
    Each pair uses the rows that have both values; `n` says how many.

    Args:
        table: rows with the target, the category and the factors' columns.
        factors: columns, or `is_templating`.
        target: boolean column.
        category: column of indices into `memtax.schema.CATEGORIES`.

    Returns:
        One dict per factor and group (`all`; `nl` and `code` if the table has `text_kind`; each category): `factor`, `group`,
        `n`, `unit` and `units` (what intervals are over, and how many), `spearman` with its 95% interval `low` and `high`,
        `pearson`, `xi` (factor -> target) with `xi_low` and `xi_high` from subsampling of units, `reason`, which says why the
        numbers are None (fewer than 10 rows with or without the target, or with another than the factor's commonest value),
        and `interval_reason`, why intervals alone are: fewer than 10 units, or, for that of xi, too rare a target.
    """
    labels, labeled = declared.read_target(table, target)
    categories, categorized = declared.read_category(table, category)
    groups = {"all": labeled}
    kinds = np.array(table.column("text_kind").to_pylist(), object) if "text_kind" in table.column_names else None
    if kinds is not None and any(kind is not None for kind in kinds):
        groups |= {name: labeled & (kinds == kind) for name, kind in _KINDS.items()}
    groups |= {name: labeled & categorized & (categories == code) for code, name in enumerate(CATEGORIES)}
    units = units_of(table)
    found = []
    for factor in declared.resolve(factors, target):
        values = declared.read(table, factor)
        known = np.isfinite(values)
        for group, rows in groups.items():
            used = rows & known
            mine = units[used]
            facts = {"factor": factor.name, "group": group, "n": int(used.sum()), "unit": mine.name, "units": mine.count}
            found.append({**facts, **_correlate(values[used], labels[used], mine)})
    return found


def _correlate(values: Array, labels: NDArray[np.bool_], units: statistics.Units) -> dict[str, Any]:
    reason = too_few(labels, "usable") or _hardly_varies(values)
    if reason is not None:
        return {**dict.fromkeys(_NUMBERS), "reason": reason, "interval_reason": reason}
    # Independent rows keep the intervals that were made for them.
    codes = None if units.count == len(values) else units.codes
    interval = statistics.spearman_interval(values, labels, units=codes)
    xi = statistics.xi_interval(values, labels, units=codes)
    return {
        "spearman": statistics.spearman(values, labels),
        "low": interval and interval.low,
        "high": interval and interval.high,
        "pearson": statistics.pearson(values, labels),
        "xi": statistics.chatterjee_xi(values, labels),
        "xi_low": xi and xi.low,
        "xi_high": xi and xi.high,
        "reason": None,
        "interval_reason": statistics.withheld(units) or (None if codes is None else statistics.xi_withheld(labels, codes)),
    }


def _hardly_varies(values: Array) -> str | None:
    distinct, counts = np.unique(values, return_counts=True)
    common, others = distinct[counts.argmax()], int(len(values) - counts.max())
    if others == 0:
        return f"the factor is {common:g} in every row"
    if others < MINIMUM:
        return f"the factor differs from {common:g} in {numbered(others, 'row')} only, {MINIMUM} needed"
    return None
