"""The interval of an area under the ROC curve, for rows that are independent and for rows in units."""

import numpy as np
from numpy.typing import ArrayLike

from memtax.statistics.arrays import Array, two_classes
from memtax.statistics.clusters import MeanOverUnits, binomial_interval
from memtax.statistics.intervals import Interval, tail_of
from memtax.statistics.units import FEWEST_UNITS, unit_index

_CAP = 2.0
_MISSES = 5.0


def auroc_interval(
    labels: ArrayLike, scores: ArrayLike, units: ArrayLike | None = None, level: float = 0.95
) -> Interval | None:
    """Area under the ROC curve, with an exact binomial interval of the effective number of rows.

    The variance is that of the structural components (DeLong et al. 1988: of each positive the share of negatives below it,
    of each negative the share of positives above it), each class summed by unit and divided by the rows outside the unit,
    as in leaving one unit out. As for a rate (`cluster_rate`; Korn & Graubard 1998), the effective number is A (1 - A) /
    variance, reduced by Student's t with Satterthwaite's degrees of freedom. It is at most twice the effective rows of the
    smaller class unless many rows of that class are ranked wrong: few errors show little of how rows differ, and a sample
    without any error none of it, where the effective rows of the smaller class alone count. The percentile bootstrap says
    [1, 1] there.

    Args:
        labels: (rows,) 0 or 1, both present.
        scores: (rows,) larger means more likely 1.
        units: (rows,) unit of each row, from `unit_codes`; a unit may have rows of both classes. None: rows are independent.
        level: coverage.

    Returns:
        The area with its interval; None where a class has fewer than `FEWEST_UNITS` units.

    Raises:
        MemtaxError: lengths differ, no rows, NaN, or one class only.
    """
    from scipy.stats import norm, t

    y, s = two_classes(labels, scores)
    index = np.arange(len(y)) if units is None else unit_index(units, len(y))[0]
    positive = y == 1
    classes = [
        _Class(_shares_below(s[positive], s[~positive]), index[positive]),
        _Class(1 - _shares_below(s[~positive], s[positive]), index[~positive]),
    ]
    area = float(classes[0].components.mean())
    if min(side.mean.number for side in classes) < FEWEST_UNITS:
        return None
    errors = np.zeros(int(index.max()) + 1)
    for side in classes:
        errors += side.errors(len(errors))
    variance = float((errors**2).sum())
    smaller = min(side.effective for side in classes)
    effective = smaller
    if variance > 0:
        parts = [side.mean.variance for side in classes]
        freedom = sum(parts) ** 2 / sum(part**2 / side.mean.freedom for part, side in zip(parts, classes, strict=True))
        tail = tail_of(level)
        effective = area * (1 - area) / variance * float(norm.isf(tail) / t.isf(tail, freedom)) ** 2
        effective = min(effective, smaller * max(_CAP, smaller * min(area, 1 - area) / _MISSES))
    return binomial_interval(area, effective, level)


class _Class:
    """Structural components (rows,) of one class, with the variance of their mean over units."""

    def __init__(self, components: Array, units: Array) -> None:
        self.components, self.units = components, units
        self.mean = MeanOverUnits(components, units)
        rows, spread = len(components), float(components.var())
        self.effective = self.mean.equal_size
        if self.mean.variance > 0:
            self.effective = min(max(self.effective, spread / self.mean.variance), float(rows))

    def errors(self, number: int) -> Array:
        """How far leaving out each of `number` units moves the mean."""
        sums = np.bincount(self.units, self.components - self.components.mean(), number)
        left: Array = sums / (len(self.units) - np.bincount(self.units, minlength=number))
        return left


def _shares_below(values: Array, others: Array) -> Array:
    """Of each value (rows,) the share of `others` below it, ties counted half."""
    ordered = np.sort(others)
    below: Array = (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / (2.0 * len(others))
    return below
