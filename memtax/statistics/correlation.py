"""An interval for a rank correlation that needs no resampling, so that millions of rows are no trouble."""

import numpy as np
from numpy.typing import ArrayLike

from memtax.statistics.arrays import Array, columns, sort, standardized
from memtax.statistics.clusters import MeanOverUnits
from memtax.statistics.intervals import Interval, tail_of
from memtax.statistics.measures import evaluator, spearman
from memtax.statistics.units import FEWEST_UNITS, unit_index

_JACKKNIFE = 200


def spearman_interval(x: ArrayLike, y: ArrayLike, level: float = 0.95, units: ArrayLike | None = None) -> Interval | None:
    """Spearman's correlation with a large-sample interval that holds for any joint distribution, ties included.

    The standard error is that of the correlation's influence function, with the part that comes from the ranks being
    estimated; the interval is symmetric after Fisher's transform. The textbook error 1 / sqrt(n - 3) holds for
    independent continuous columns only, not for a yes-or-no target.

    With A, B the centered mean ranks over n, C = mean(AB), V = mean(A^2), W = mean(B^2), and k(i, j) = [x_i < x_j] +
    [x_i = x_j] / 2, moving a share e of the data onto row i changes C by e (A_i B_i + mean_j k(i, j) B_j +
    mean_j k'(i, j) A_j - 3 C), with k' the same in y, and V, W likewise.

    Args:
        x: (rows,) not constant.
        y: (rows,) not constant.
        level: coverage; close to nominal from some ten rows of the rarer value on.
        units: (rows,) unit of each row, from `unit_codes`: influences are summed by unit, with the variance and degrees of
            freedom of `cluster_mean`; for up to 200 units the variance is at least that of computing the correlation again
            without each, which sees what a unit with most of the rarer value weighs. None: rows are independent.

    Returns:
        The correlation with its interval; None below `FEWEST_UNITS` units.

    Raises:
        MemtaxError: lengths differ, no rows, NaN, or a constant column.
    """
    from scipy.special import ndtri
    from scipy.stats import t

    first, second = (_Ranks(standardized(column)) for column in columns(x=x, y=y))
    a, b = first.centered, second.centered
    covariance, variance_a, variance_b = (a * b).mean(), (a * a).mean(), (b * b).mean()
    scale = np.sqrt(variance_a * variance_b)
    value = float(np.clip(covariance / scale, -1.0, 1.0))
    influence = (a * b + first.above(b) + second.above(a) - 3 * covariance) / scale
    influence -= value / 2 * ((a * a + 2 * first.above(a)) / variance_a - 3)
    influence -= value / 2 * ((b * b + 2 * second.above(b)) / variance_b - 3)
    if units is None:
        error, quantile = float(np.sqrt((influence * influence).mean() / len(a))), float(-ndtri(tail_of(level)))
    else:
        clusters = MeanOverUnits(influence, units)
        if clusters.number < FEWEST_UNITS:
            return None
        variance = max(clusters.variance, _jackknife(x, y, units))
        error, quantile = float(np.sqrt(variance)), float(t.isf(tail_of(level), clusters.freedom))
    if abs(value) == 1.0:
        return Interval(value, value, value)
    half = quantile * error / (1 - value * value)
    return Interval(value, float(np.tanh(np.arctanh(value) - half)), float(np.tanh(np.arctanh(value) + half)))


def _jackknife(x: ArrayLike, y: ArrayLike, units: ArrayLike) -> float:
    """Variance of the correlation by leaving out one unit at a time; 0 above `_JACKKNIFE` units."""
    index, sizes = unit_index(units, len(np.asarray(x)))
    if len(sizes) > _JACKKNIFE:
        return 0.0
    evaluate = evaluator(spearman, x, y)
    left_out = np.concatenate([evaluate((index != unit)[None].astype(np.float64)) for unit in range(len(sizes))])
    left_out = left_out[~np.isnan(left_out)]
    return float((len(left_out) - 1) * left_out.var()) if len(left_out) > 1 else 0.0


class _Ranks:
    """Ranks of a column, and sums over the rows that rank above each."""

    def __init__(self, column: Array) -> None:
        self.order, self.starts = sort(column)
        self.sizes = np.diff(np.append(self.starts, len(column)))
        self.centered = self._spread((self.starts + self.sizes / 2) / len(column) - 0.5)

    def above(self, values: Array) -> Array:
        """For each row i, the mean over all rows j of k(i, j) values_j."""
        sums = np.add.reduceat(values[self.order], self.starts)
        return self._spread((sums.sum() - np.cumsum(sums) + sums / 2) / len(values))

    def _spread(self, groups: Array) -> Array:
        """Values of the runs of equal rows (groups,) to the rows (rows,)."""
        rows = np.empty(len(self.order))
        rows[self.order] = np.repeat(groups, self.sizes)
        return rows
