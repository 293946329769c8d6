"""Two yes-or-no measurements of the same rows."""

import math

from memtax.errors import MemtaxError
from memtax.statistics.intervals import Interval, tail_of


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


def paired_difference(both: int, no_longer: int, newly: int, neither: int, level: float = 0.95) -> Interval:
    """Difference of two paired rates, second minus first, with a score interval (Newcombe 1998b, method 10).

    Args:
        both: rows that are yes in both.
        no_longer: rows that are yes only in the first.
        newly: rows that are yes only in the second.
        neither: rows that are yes in none.
        level: coverage.

    Raises:
        MemtaxError: a negative count, no row, or a level outside (0, 1).
    """
    rows = both + no_longer + newly + neither
    if rows < 1 or min(both, no_longer, newly, neither) < 0:
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


def _wilson(successes: int, rows: int, level: float) -> Interval:
    """Wilson's score interval of a rate."""
    from scipy.stats import norm

    z = float(norm.isf(tail_of(level)))
    rate = successes / rows
    middle = (rate + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(rate * (1 - rate) / rows + z * z / (4 * rows * rows))
    return Interval(rate, min(rate, middle - half), max(rate, middle + half))
