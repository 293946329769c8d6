"""Rates and means whose rows come in units that depend on each other, such as windows of one document."""

import math

import numpy as np
from numpy.typing import ArrayLike

from memtax.errors import MemtaxError
from memtax.statistics.arrays import Array, columns, require_binary
from memtax.statistics.intervals import Interval, clopper_pearson, tail_of
from memtax.statistics.units import FEWEST_UNITS, count_units, unit_codes, unit_index

__all__ = ["FEWEST_UNITS", "bounded_mean", "cluster_mean", "cluster_rate", "count_units", "sign_flip_test", "unit_codes"]

PERMUTATIONS = 9_999
_ENUMERATED = 16
_CHUNK = 1 << 20
_CAP = 2.0
_MISSES = 5.0


def cluster_rate(outcomes: ArrayLike, units: ArrayLike, level: float = 0.95) -> Interval | None:
    """A rate over rows in units, with an exact binomial interval of the effective number of rows (Korn & Graubard 1998).

    The effective number is rate (1 - rate) / variance, the variance that of leaving one unit out, times the squared ratio
    of Student's quantiles of independent rows to those of the units (`MeanOverUnits.quantiles`). Without any success or any
    failure no variance can be estimated, and units count in place of rows: (sum n)^2 / sum n^2 of n rows.

    Args:
        outcomes: (rows,) 0 or 1.
        units: (rows,) code of the unit of each row, from `unit_codes`.
        level: coverage over new units.

    Returns:
        The rate of all rows, with its interval; None below `FEWEST_UNITS` units, which say nothing about other units. Where
        each row is its own unit, the interval of Clopper & Pearson.

    Raises:
        MemtaxError: outcomes are not 0 or 1, lengths differ, no row, or a level outside (0, 1).
    """
    from scipy.special import stdtrit

    (y,) = columns(outcomes=outcomes)
    require_binary(y, "outcomes")
    clusters = MeanOverUnits(y, units)
    if clusters.number < FEWEST_UNITS:
        return None
    tail, rows, rate = tail_of(level), len(y), float(y.mean())
    if clusters.number == rows:
        return clopper_pearson(int(y.sum()), rows, level)
    if not clusters.variance > 0:
        return binomial_interval(rate, min(clusters.equal_size, float(rows)), level)
    trials, reach = rate * (1 - rate) / clusters.variance, float(-stdtrit(rows - 1, tail))
    low, high = (
        binomial_interval(rate, min(trials * (reach / quantile) ** 2, float(rows)), level)
        for quantile in clusters.quantiles(tail)
    )
    return Interval(rate, low.low, high.high)


def binomial_interval(rate: float, effective: float, level: float) -> Interval:
    """Clopper and Pearson's interval for a rate of `effective` trials, which need not be a whole number."""
    from scipy.special import betaincinv

    tail, successes = tail_of(level), rate * effective
    low = betaincinv(successes, effective - successes + 1, tail) if rate > 0 else 0.0
    high = betaincinv(successes + 1, effective - successes, 1 - tail) if rate < 1 else 1.0
    return Interval(rate, float(low), float(high))


def cluster_mean(values: ArrayLike, units: ArrayLike, level: float = 0.95) -> Interval | None:
    """A mean over rows in units, with Student's interval of the variance of leaving one unit out (Bell & McCaffrey 2002).

    Its quantiles are those of `MeanOverUnits.quantiles`, so that it need not be symmetric.

    For the difference of two paired rates, `values` are the rows' differences.

    Args:
        values: (rows,).
        units: (rows,) code of the unit of each row.
        level: coverage over new units.

    Returns:
        The mean of all rows, with its interval; None below `FEWEST_UNITS` units.

    Raises:
        MemtaxError: lengths differ, no row, NaN, or a level outside (0, 1).
    """
    (x,) = columns(values=values)
    tail, clusters, mean = tail_of(level), MeanOverUnits(x, units), float(x.mean())
    if clusters.number < FEWEST_UNITS:
        return None
    if not clusters.variance > 0:
        return Interval(mean, mean, mean)
    below, above = (quantile * math.sqrt(clusters.variance) for quantile in clusters.quantiles(tail))
    return Interval(mean, mean - below, mean + above)


def bounded_mean(values: ArrayLike, units: ArrayLike, lowest: float, highest: float, level: float = 0.95) -> Interval | None:
    """A mean of values that have a least and a greatest one, with a binomial interval of the effective number of units.

    As for a rate (`cluster_rate`), with the mean's place p between the two bounds: the effective number is p (1 - p) /
    variance, at most twice the effective units unless many values lie away from the nearer bound. Where all values are at a
    bound, the units alone count; Student's interval (`cluster_mean`) would be a point there.

    Args:
        values: (rows,) from `lowest` to `highest`.
        units: (rows,) code of the unit of each row.
        lowest: the least value there can be.
        highest: the greatest, above the least.
        level: coverage over new units.

    Returns:
        The mean of all rows, with its interval; None below `FEWEST_UNITS` units.

    Raises:
        MemtaxError: a value is out of bounds or NaN, lengths differ, no row, or a level outside (0, 1).
    """
    from scipy.special import ndtri

    (x,) = columns(values=values)
    width, tail = highest - lowest, tail_of(level)
    if width <= 0 or x.min() < lowest or x.max() > highest:
        raise MemtaxError(f"values from {x.min():g} to {x.max():g} are not all from {lowest:g} to {highest:g}")
    scaled = (x - lowest) / width
    clusters, place = MeanOverUnits(scaled, units), float(scaled.mean())
    if clusters.number < FEWEST_UNITS:
        return None
    number = clusters.equal_size
    bounds = (number, number)
    if clusters.variance > 0:
        most = effective_cap(number, place)
        trials = place * (1 - place) / clusters.variance
        below, above = (min(trials * float(ndtri(tail) / quantile) ** 2, most) for quantile in clusters.quantiles(tail))
        bounds = (below, above)
    low, high = (binomial_interval(place, one, level) for one in bounds)
    return Interval(float(x.mean()), lowest + width * low.low, lowest + width * high.high)


def effective_cap(number: float, place: float) -> float:
    """Most rows that an effective number may stand for: few values away from a bound show little of how rows differ.

    Args:
        number: rows, or units, that the value rests on.
        place: the value, from 0 to 1.
    """
    return number * max(_CAP, number * min(place, 1 - place) / _MISSES)


class MeanOverUnits:
    """Variance of a mean over rows in units, and the degrees of freedom of that variance.

    With e_g the sum of unit g's deviations from the mean and n_g of n rows: variance = (G - 1) / G sum_g (e_g / (n - n_g))^2,
    the jackknife. Its degrees of freedom (Satterthwaite) are (sum v)^2 / sum v^2 - 1 with v_g = n_g (1 - r) + n_g^2 r the
    variance of e_g where rows of a unit correlate by r, which is estimated by the moments of the e_g.
    """

    def __init__(self, values: Array, units: ArrayLike) -> None:
        index, sizes = unit_index(units, len(values))
        rows, self.number = len(values), len(sizes)
        self.equal_size = rows**2 / float((sizes.astype(np.float64) ** 2).sum())
        sums = np.bincount(index, values - values.mean())
        self.variance, self.freedom = 0.0, 1.0
        self._changes = sums / np.maximum(rows - sizes, 1)
        if self.number < 2:
            return
        self.variance = float((self.number - 1) / self.number * (self._changes**2).sum())
        spread = float(values.var())
        pairs = float((sizes * (sizes - 1.0)).sum())
        shared = ((sums**2).sum() - spread * rows) / (pairs * spread) if pairs * spread > 0 else 0.0
        shared = min(max(shared, 0.0), 1.0)
        parts = sizes * (1 - shared) + sizes.astype(np.float64) ** 2 * shared
        self.freedom = max(1.0, float(parts.sum() ** 2 / (parts**2).sum()) - 1)

    def quantiles(self, tail: float) -> tuple[float, float]:
        """Standard errors to the lower and to the upper bound of an interval of a mean whose variance is above 0."""
        return moved_quantiles(self._changes, self.number, self.freedom, tail)


def moved_quantiles(changes: Array, number: int, freedom: float, tail: float, own: float = 0.0) -> tuple[float, float]:
    """Standard errors to the lower and to the upper bound of an interval, by what leaving out each unit changes.

    Where a few units carry most of the variance, as large ones with high values do, a sample without such units
    understates the value and its variance together. The bound on that side is therefore t + (1 + 2 t^2) skewness / 6
    standard errors away (Johnson 1978): the skewness that of the changes d_g of the value when unit g is left out, adjusted
    for the number of units (Joanes & Gill 1998, G1), and t of the number of units that carry the variance,
    (sum d^2)^2 / sum d^4, at least 2. Neither bound is nearer than Student's t of `freedom`.

    Args:
        changes: (units,) of the value, not all 0; 0 for codes without rows.
        number: of units.
        freedom: degrees of freedom of the variance.
        tail: probability outside either bound.
        own: skewness that the interval has by itself, which moves its bounds already.
    """
    from scipy.special import stdtrit

    squares = changes**2
    total = float(squares.sum())
    adjusted = math.sqrt(number * (number - 1)) / (number - 2)
    skewness = adjusted * float((changes**3).sum()) / total**1.5 - own
    carrying = max(2.0, total**2 / float((squares**2).sum()))
    plain = float(-stdtrit(freedom, tail))
    wide = float(-stdtrit(min(freedom, carrying), tail))
    shift = skewness * (1 + 2 * wide**2) / 6
    return max(plain, wide - shift), max(plain, wide + shift)


def sign_flip_test(differences: ArrayLike, units: ArrayLike, permutations: int = PERMUTATIONS, seed: int = 1024) -> float:
    """Two-sided p-value that paired differences are as likely to have either sign, for all rows of a unit at once.

    Differences are summed by unit; under the null hypothesis each sum may change its sign. With all sums of one size this
    is McNemar's exact test over units; up to 16 sums other than 0 all signs are enumerated, else they are drawn.

    Args:
        differences: (rows,) second minus first measurement.
        units: (rows,) code of the unit of each row.
        permutations: signs drawn where they are not enumerated; the smallest p-value is 1 / (permutations + 1).
        seed: of these draws.

    Returns:
        The p-value; 1 where no sum differs from 0.

    Raises:
        MemtaxError: lengths differ, no row, NaN, or no permutation.
    """
    from scipy.stats import binomtest

    (x,) = columns(differences=differences)
    if permutations < 1:
        raise MemtaxError(f"at least 1 permutation is needed, not {permutations}")
    index, _ = unit_index(units, len(x))
    sums = np.bincount(index, x)
    sums = sums[sums != 0]
    if not len(sums):
        return 1.0
    sizes, counts = np.unique(np.abs(sums), return_counts=True)
    if len(sizes) == 1:
        return float(binomtest(int((sums > 0).sum()), len(sums)).pvalue)
    bound = abs(sums.sum()) - 1e-9 * np.abs(sums).sum()
    if len(sums) <= _ENUMERATED:
        signs = (np.arange(1 << len(sums))[:, None] >> np.arange(len(sums)) & 1) * 2.0 - 1
        return float((np.abs(signs @ sums) >= bound).mean())
    # Of the sums of one size, a binomial number is positive: draws do not grow with the number of units.
    rng = np.random.default_rng(seed)
    extreme, chunk = 0, max(1, _CHUNK // len(sizes))
    for start in range(0, permutations, chunk):
        positive = rng.binomial(counts, 0.5, size=(min(chunk, permutations - start), len(sizes)))
        extreme += int((np.abs((2.0 * positive - counts) @ sizes) >= bound).sum())
    return (extreme + 1) / (permutations + 1)
