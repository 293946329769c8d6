"""How each factor goes with memorization: rank and linear correlation, for all sequences and within each category."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from memtax import statistics
from memtax.errors import MemtaxError
from memtax.schema import CATEGORIES
from memtax.taxonomy import factors as declared
from memtax.taxonomy.factors import FACTORS
from memtax.taxonomy.logistic import Array, too_few

if TYPE_CHECKING:
    import pyarrow as pa


def correlations(
    table: "pa.Table",
    factors: Sequence[str] = FACTORS,
    target: str = "is_memorized",
    category: str = "taxonomy",
    *,
    resamples: int = 1000,
    seed: int = 1024,
) -> list[dict[str, Any]]:
    """Spearman's (with a 95% bootstrap interval) and Pearson's correlation of each factor with the target.

    Factors are on their own scale: the logarithm that models see would change Pearson's correlation, not Spearman's.
    Each pair uses the rows that have both values; `n` says how many.

    Args:
        table: rows with the target, the category and the factors' columns.
        factors: columns, or `is_templating`.
        target: boolean column.
        category: column of indices into `memtax.schema.CATEGORIES`.
        resamples: bootstrap resamples of each interval.
        seed: seed of the resamples.

    Returns:
        One dict a factor and group (`all`, then each category): `factor`, `group`, `n`, `spearman`, `low`, `high`,
        `pearson`, and `reason`, which says why numbers are None: a constant factor, fewer than 10 rows with or without the
        target, or (bounds only) a factor that is constant in many resamples.
    """
    labels, labelled = declared.read_target(table, target)
    categories, categorised = declared.read_category(table, category)
    groups = {"all": labelled}
    groups |= {name: labelled & categorised & (categories == code) for code, name in enumerate(CATEGORIES)}
    found = []
    for factor in declared.resolve(factors, target):
        values = declared.read(table, factor)
        known = np.isfinite(values)
        for group, rows in groups.items():
            used = rows & known
            pair = _correlate(values[used], labels[used], resamples, seed)
            found.append({"factor": factor.name, "group": group, "n": int(used.sum()), **pair})
    return found


def _correlate(values: Array, labels: NDArray[np.bool_], resamples: int, seed: int) -> dict[str, Any]:
    reason = too_few(labels, "usable")
    if reason is None and values.min() == values.max():
        reason = f"the factor is {values[0]:g} in every row"
    if reason is not None:
        return {"spearman": None, "low": None, "high": None, "pearson": None, "reason": reason}
    found = {"spearman": statistics.spearman(values, labels), "low": None, "high": None}
    try:
        interval = statistics.bootstrap_interval(statistics.spearman, values, labels, resamples=resamples, seed=seed)
        found |= {"low": interval.low, "high": interval.high}
    except MemtaxError as error:  # a factor that differs in one or two rows is constant in many resamples
        reason = str(error)
    return {**found, "pearson": statistics.pearson(values, labels), "reason": reason}
