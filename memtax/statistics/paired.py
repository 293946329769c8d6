"""Two yes-or-no measurements of the same rows."""

import math

from numpy.typing import ArrayLike

from memtax.errors import MemtaxError
from memtax.statistics.arrays import columns, require_binary
from memtax.statistics.clusters import MeanOverUnits
from memtax.statistics.intervals import Interval, tail_of
from memtax.statistics.units import FEWEST_UNITS


def mcnemar(newly: int, no_longer: int) -> float:
    """Exact two-sided p-value that a change is as likely one way as the other (McNemar 1947, binomial form).

    Args:
        newly: rows that are yes only in the second measurement.
        no_longer: rows that are yes only in the first.

    Returns:
        The p-value; 1 where no row changed.

    Raises:
        MemtaxError: a count is negative.
    """
    from scipy.stats import binomtest

    if newly < 0 or no_longer < 0:
        raise MemtaxError(f"counts of changes cannot be negative: {newly} and {no_longer}")
    changed = newly + no_longer
    return float(binomtest(newly, changed).pvalue) if changed else 1.0


def cluster_difference(first: ArrayLike, second: ArrayLike, units: ArrayLike, level: float = 0.95) -> Interval | None:
    """Difference of two paired rates over rows in units: Newcombe's interval of the effective number of rows.

    The effective number is the variance of the rows' differences over the variance of their mean by leaving one unit out,
    reduced for each bound by its quantile as in `cluster_rate`; without any change, units count in place of rows.

    Args:
        first: (rows,) 0 or 1.
        second: (rows,) 0 or 1, of the same rows.
        units: (rows,) unit of each row, from `unit_codes`.
        level: coverage over new units.

    Returns:
        Second minus first with its interval; None below `FEWEST_UNITS` units. Where each row is its own unit, the interval of
        `paired_difference`.

    Raises:
        MemtaxError: a value is not 0 or 1, lengths differ, no row, or a level outside (0, 1).
    """
    from scipy.special import stdtrit

    a, b = columns(first=first, second=second)
    require_binary(a, "first")
    require_binary(b, "second")
    clusters = MeanOverUnits(b - a, units)
    if clusters.number < FEWEST_UNITS:
        return None
    rows, tail = len(a), tail_of(level)
    both, newly = float((a * b).sum()), float(((1 - a) * b).sum())
    no_longer, neither = float((a * (1 - b)).sum()), float(((1 - a) * (1 - b)).sum())

    def of_effective(number: float) -> Interval:
        share = min(number / rows, 1.0)
        return paired_difference(both * share, no_longer * share, newly * share, neither * share, level)

    if clusters.number == rows:
        return of_effective(float(rows))
    if not clusters.variance > 0:
        return of_effective(clusters.equal_size)
    trials, reach = float((b - a).var()) / clusters.variance, float(-stdtrit(rows - 1, tail))
    low, high = (of_effective(trials * (reach / quantile) ** 2) for quantile in clusters.quantiles(tail))
    return Interval(low.value, low.low, high.high)


def paired_difference(both: float, no_longer: float, newly: float, neither: float, level: float = 0.95) -> Interval:
    """Difference of two paired rates, second minus first, with a score interval (Newcombe 1998b, method 10).

    Args:
        both: rows that are yes in both; an effective number of rows need not be whole.
        no_longer: rows that are yes only in the first.
        newly: rows that are yes only in the second.
        neither: rows that are yes in none.
        level: coverage.

    Raises:
        MemtaxError: a negative count, no row, or a level outside (0, 1).
    """
    rows = both + no_longer + newly + neither
    if rows <= 0 or min(both, no_longer, newly, neither) < 0:
        raise MemtaxError(f"no difference of rates from counts {both}, {no_longer}, {newly}, {neither}")
    first, second = both + no_longer, both + newly
    one, two = _wilson(first, rows, level), _wilson(second, rows, level)
    margins = first * (rows - first) * second * (rows - second)
    link = float(both * neither - newly * no_longer)
    link = max(0.0, link - rows / 2) if link > 0 else link  # Newcombe's continuity correction
    phi = link / math.sqrt(margins) if margins else 0.0
    difference = two.value - one.value
    low = difference - _reach(two.value - two.low, one.high - one.value, phi)
    high = difference + _reach(two.high - two.value, one.value - one.low, phi)
    return Interval(difference, max(-1.0, low), min(1.0, high))


def _reach(a: float, b: float, phi: float) -> float:
    return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))


def _wilson(successes: float, rows: float, level: float) -> Interval:
    """Wilson's score interval of a rate."""
    from scipy.stats import norm

    z = float(norm.isf(tail_of(level)))
    rate = successes / rows
    middle = (rate + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(rate * (1 - rate) / rows + z * z / (4 * rows * rows))
    return Interval(rate, min(rate, middle - half), max(rate, middle + half))
