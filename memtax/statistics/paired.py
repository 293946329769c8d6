"""Two verdicts on the same rows: McNemar's exact test, and the interval of the difference of two paired rates."""

import math

from memtax.errors import MemtaxError
from memtax.statistics.intervals import Interval, tail_of


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided p-value of McNemar's exact test: whether rows change one way as often as the other.

    Args:
        gained: rows that hold after and did not before.
        lost: rows that held before and do not after.

    Returns:
        min(1, 2 P(X <= min(gained, lost))) with X binomial (gained + lost, 1/2); 1 if no row changed.

    Raises:
        MemtaxError: a count is negative.
    """
    from scipy.stats import binom

    if min(gained, lost) < 0:
        raise MemtaxError(f"counts of changed rows are 0 or more, not {gained} and {lost}")
    return min(1.0, 2 * float(binom.cdf(min(gained, lost), gained + lost, 0.5)))


def paired_difference(gained: int, lost: int, rows: int, level: float = 0.95) -> Interval:
    """Rate after minus rate before on the same rows, with the score interval of Tango (1998, Statistics in Medicine 17).

    The interval holds every difference that the score test with the constrained maximum-likelihood variance does not reject.
    It stays within [-1, 1] and has a width even where no row changed.

    Args:
        gained: rows that hold after and did not before.
        lost: rows that held before and do not after.
        rows: all rows, at least one; they are independent of each other.
        level: coverage, about.

    Raises:
        MemtaxError: no row, or more changes than rows.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    if rows < 1 or min(gained, lost) < 0 or gained + lost > rows:
        raise MemtaxError(f"no difference of {gained} gained and {lost} lost among {rows} rows: 0 <= gained + lost <= rows")
    critical = float(norm.isf(tail_of(level))) ** 2
    estimate = (gained - lost) / rows

    def beyond(difference: float) -> float:
        """Squared score minus its critical value, both times the variance: positive where the test rejects."""
        linear = -gained - lost + (2 * rows - gained + lost) * difference
        root = math.sqrt(max(0.0, linear**2 + 8 * rows * lost * difference * (1 - difference)))
        share = (root - linear) / (4 * rows)  # constrained estimate of the share of lost rows
        variance = rows * max(0.0, 2 * share + difference * (1 - difference))
        return (gained - lost - rows * difference) ** 2 - critical * variance

    def bound(end: float) -> float:
        near = estimate + (end - estimate) * 1e-9
        return end if abs(end - estimate) < 1e-12 or beyond(end) <= 0 else float(brentq(beyond, near, end, xtol=1e-12))

    return Interval(estimate, bound(-1.0), bound(1.0))
