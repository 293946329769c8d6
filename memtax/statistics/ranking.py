"""The interval of an area under the ROC curve, for rows that are independent and for rows in units."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memtax.statistics.arrays import Array, two_classes
from memtax.statistics.clusters import MeanOverUnits, binomial_interval, effective_cap, moved_quantiles
from memtax.statistics.intervals import Interval, tail_of
from memtax.statistics.units import FEWEST_UNITS, unit_index


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

    Over units, the bound on the side of the units that carry the variance moves by their skewness (`moved_quantiles`), as far
    as it exceeds that of the binomial interval. Pairs of rows of one unit say nothing of how rows of different units rank:
    where units have rows of both classes, the bounds are the outer ones of those around the area and around the area of
    pairs of different units alone.

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
    y, s = two_classes(labels, scores)
    index = np.arange(len(y)) if units is None else unit_index(units, len(y))[0]
    positive, tail = y == 1, tail_of(level)
    classes = (
        _Class(_shares_below(s[positive], s[~positive]), index[positive]),
        _Class(1 - _shares_below(s[~positive], s[positive]), index[~positive]),
    )
    area = float(classes[0].components.mean())
    if min(side.mean.number for side in classes) < FEWEST_UNITS:
        return None
    between = _between(positive, s, index, area)
    spread = _Spread(classes, int(index.max()) + 1, between, tail)
    low = binomial_interval(min(area, between), spread.effective(min(area, between), spread.below), level)
    high = binomial_interval(max(area, between), spread.effective(max(area, between), spread.above), level)
    return Interval(area, low.low, high.high)


class _Spread:
    """Variance of an area, and how many standard errors away its bounds are."""

    def __init__(self, classes: "tuple[_Class, _Class]", number: int, area: float, tail: float) -> None:
        from scipy.special import ndtri, stdtrit

        errors = classes[0].errors(number) + classes[1].errors(number)
        self.variance = float((errors**2).sum())
        self.smaller = min(side.effective for side in classes)
        self.normal = float(-ndtri(tail))
        self.below = self.above = self.normal
        if not self.variance > 0:
            return
        parts = [side.mean.variance for side in classes]
        freedom = sum(parts) ** 2 / sum(part**2 / side.mean.freedom for part, side in zip(parts, classes, strict=True))
        self.below = self.above = float(-stdtrit(freedom, tail))
        if not all(side.independent for side in classes):
            spread = area * (1 - area)
            own = (1 - 2 * area) * self.variance**0.5 / spread if spread > 0 else 0.0
            fewest = min(side.mean.number for side in classes)
            self.below, self.above = moved_quantiles(errors, fewest, freedom, tail, own)

    def effective(self, area: float, quantile: float) -> float:
        """Number of rows whose binomial interval has this variance, for a bound as many standard errors away."""
        if not self.variance > 0:
            return self.smaller
        number = area * (1 - area) / self.variance * (self.normal / quantile) ** 2
        return min(number, effective_cap(self.smaller, area))


class _Class:
    """Structural components (rows,) of one class, with the variance of their mean over units."""

    def __init__(self, components: Array, units: Array) -> None:
        self.components, self.units = components, units
        self.mean = MeanOverUnits(components, units)
        rows, spread = len(components), float(components.var())
        self.independent = self.mean.number == rows
        self.effective = self.mean.equal_size
        if self.mean.variance > 0:
            self.effective = min(max(self.effective, spread / self.mean.variance), float(rows))

    def errors(self, number: int) -> Array:
        """How far leaving out each of `number` units moves the mean."""
        sums = np.bincount(self.units, self.components - self.components.mean(), number)
        left: Array = sums / (len(self.units) - np.bincount(self.units, minlength=number))
        return left


def _between(positive: NDArray[np.bool_], scores: Array, index: NDArray[np.int64], area: float) -> float:
    """The area of the pairs whose rows are of different units; that of all pairs where no unit has rows of both classes."""
    _, ranks = np.unique(scores, return_inverse=True)
    keys = index * (int(ranks.max()) + 1) + ranks.ravel()
    ones, zeros = (np.bincount(index[side], minlength=int(index.max()) + 1) for side in (positive, ~positive))
    inside, pairs = int(ones @ zeros), int(positive.sum()) * int((~positive).sum())
    if inside in (0, pairs):
        return area
    others, own = np.sort(keys[~positive]), index[positive]
    before = (np.cumsum(zeros) - zeros)[own]
    won = (np.searchsorted(others, keys[positive], "left") + np.searchsorted(others, keys[positive], "right")) / 2 - before
    return float(np.clip((area * pairs - won.sum()) / (pairs - inside), 0.0, 1.0))


def _shares_below(values: Array, others: Array) -> Array:
    """Of each value (rows,) the share of `others` below it, ties counted half."""
    ordered = np.sort(others)
    below: Array = (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / (2.0 * len(others))
    return below
