"""Chatterjee's rank correlation: how far y is a function of x, of whatever shape (Chatterjee 2021)."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memtax.errors import MemtaxError
from memtax.statistics.arrays import Array, columns, sort
from memtax.statistics.intervals import Interval, tail_of
from memtax.statistics.units import FEWEST_UNITS, unit_index

ORDERS = 16
"""Random orders of tied rows that are averaged where there is no closed form."""
SUBSAMPLE_ORDERS = 4
"""Of these, for each subsample of units."""
MANY_ROWS = 20_000
"""Rows beyond which one order of ties is enough between units."""
SUBSAMPLES = 200
RARE = 10
"""Expected rows of a binary y's rarer value in a subsample."""
RARE_ROWS, RARE_UNITS = 20, 5
"""Rows with the rarer value of a binary y, and units that have them: of fewer, subsamples of units understate the error."""


def chatterjee_xi(x: ArrayLike, y: ArrayLike, orders: int = ORDERS, seed: int = 1024) -> float:
    """xi(x -> y): 0 if independent, 1 if y is a function of x, for many rows.

    xi = 1 - n sum_i |r_{i+1} - r_i| / (2 sum_i l_i (n - l_i)), with rows in the order of x, r_i the number of rows whose y is
    at most y_i, and l_i the number whose y is at least y_i. Rows that are tied in x come in random order, and the mean
    over orders is taken; for a binary y that mean over all orders has a closed form, which needs no randomness.

    Args:
        x: (rows,).
        y: (rows,) not constant.
        orders: random orders of ties, for a y that is not binary.
        seed: of these orders.

    Raises:
        MemtaxError: lengths differ, no rows, NaN, a constant y, or no order.
    """
    first, second = columns(x=x, y=y)
    if second.min() == second.max():
        raise MemtaxError(f"xi needs a y that varies; all {len(second)} values are {second[0]:g}")
    if orders < 1:
        raise MemtaxError(f"at least 1 order of ties is needed, not {orders}")
    return _xi(first, second, orders, np.random.default_rng(seed))


def xi_interval(
    x: ArrayLike,
    y: ArrayLike,
    level: float = 0.95,
    subsamples: int = SUBSAMPLES,
    orders: int = ORDERS,
    seed: int = 1024,
    units: ArrayLike | None = None,
) -> Interval | None:
    """xi(x -> y) with an interval from m-out-of-n subsampling (Dette & Kroll 2024); the bootstrap fails (Lin & Han 2024).

    Subsamples without replacement of m = n^(2/3) rows (more where y's rarer value would be missed, at most n / 2) give the
    standard error: their spread times sqrt(m / n), with the finite-population factor 1 / sqrt(1 - m / n). The interval is
    the normal one around the value on all rows (asymptotic normality: Lin & Han 2022).

    Over units, subsamples are of whole units and the quantile is Student's. Neighbors of one unit are alike whatever x is, the
    more so where x hardly varies within units: the error is that of xi between units (`_BetweenUnits`), and the bounds are the
    outer ones of those around either value.

    Args:
        x: (rows,).
        y: (rows,) not constant.
        level: coverage.
        subsamples: how many are drawn.
        orders: as in `chatterjee_xi`.
        seed: of subsamples and orders.
        units: (rows,) unit of each row, from `unit_codes`: subsamples are of whole units. None: rows are independent.

    Returns:
        xi with its interval; None below `FEWEST_UNITS` units, or, over units, where `xi_withheld` gives a reason.

    Raises:
        MemtaxError: as in `chatterjee_xi`, or fewer than 20 rows.
    """
    from scipy.stats import t

    value = chatterjee_xi(x, y, orders, seed)
    first, second = columns(x=x, y=y)
    rows = len(first)
    if rows < 20:
        raise MemtaxError(f"an interval of xi needs at least 20 rows, not {rows}")
    index, sizes = unit_index(np.arange(rows) if units is None else units, rows)
    number = len(sizes)
    if number < FEWEST_UNITS or (units is not None and xi_withheld(second, index) is not None):
        return None
    _, counts = np.unique(second, return_counts=True)
    size = number ** (2 / 3) if len(counts) > 2 else max(number ** (2 / 3), RARE * number / counts.min())
    size = int(min(size, number / 2))
    rng = np.random.default_rng(seed)
    draws = []
    others = None if units is None else _BetweenUnits(first, second, index, orders, rng)
    for draw in range(subsamples):
        chosen = rng.choice(number, size, replace=False, shuffle=False)
        if others is not None:
            draws.append(others.value(np.isin(np.arange(number), chosen), range(draw, draw + SUBSAMPLE_ORDERS)))
        elif (part := second[chosen]).min() < part.max():
            draws.append(_xi(first[chosen], part, 1, rng))
    spread = np.array(draws)[~np.isnan(draws)]
    error = float(np.std(spread) * np.sqrt(size / number / (1 - size / number))) if len(spread) > 1 else np.inf
    # Without units the effective number is that of rows: Student's t is the normal distribution.
    freedom = np.inf if others is None else max(1.0, rows**2 / float((sizes.astype(np.float64) ** 2).sum()) - 1)
    reach = float(t.isf(tail_of(level), freedom)) * error
    between = value if others is None else others.value(np.ones(number, bool), range(orders))
    # NaN where no neighbors are of different units.
    low, high = np.fmin(value, between), np.fmax(value, between)
    return Interval(value, max(float(low) - reach, -1.0), min(float(high) + reach, 1.0))


def xi_withheld(y: ArrayLike, units: ArrayLike) -> str | None:
    """Why an interval of xi over units is withheld although there are enough units; None if it is not.

    Args:
        y: (rows,); only a binary one can be too rare.
        units: (rows,) unit of each row.
    """
    (second,) = columns(y=y)
    index, _ = unit_index(units, len(second))
    values, counts = np.unique(second, return_counts=True)
    if len(values) != 2:
        return None
    rows, having = int(counts.min()), len(np.unique(index[second == values[counts.argmin()]]))
    if rows >= RARE_ROWS and having >= RARE_UNITS:
        return None
    return f"interval of xi: {rows} rows of the rarer outcome in {having} units, {RARE_ROWS} rows in {RARE_UNITS} units needed"


class _BetweenUnits:
    """Xi of neighbors of different units: 1 - mean |r_{i+1} - r_i| / mean |r_i - r_j|, both over pairs of different units only.

    Over all pairs the same ratio is `chatterjee_xi`.
    """

    def __init__(self, x: Array, y: Array, index: NDArray[np.int64], orders: int, rng: np.random.Generator) -> None:
        codes = np.unique(y, return_inverse=True)[1].ravel()
        self.distinct = int(codes.max()) + 1
        orders = 1 if len(x) > MANY_ROWS or len(np.unique(x)) == len(x) else orders
        by_x = [np.lexsort((rng.random(len(x)), x)) for _ in range(orders)]
        by_unit = np.lexsort((codes, index))
        # Units and codes of y in each order: subsets of units are then read in sequence.
        self.by_x = [(index[rows], codes[rows]) for rows in by_x]
        self.by_unit = index[by_unit], codes[by_unit]

    def value(self, kept: NDArray[np.bool_], orders: Iterable[int]) -> float:
        """The value on the rows of the units that are kept (units,), a mean over orders of ties; NaN without such pairs."""
        units, codes = (column[kept[self.by_unit[0]]] for column in self.by_unit)
        rows, counts = len(units), np.bincount(codes, minlength=self.distinct).astype(np.float64)
        sizes = np.bincount(units, minlength=len(kept))
        pairs = (rows**2 - float((sizes.astype(np.float64) ** 2).sum())) / 2
        ranks = np.cumsum(counts)
        # The sum of |r_i - r_j| over pairs, by the place of each in the order of r: of all pairs, less those within units.
        places = np.arange(rows) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        apart = (ranks * counts * (2 * ranks - counts - rows)).sum()
        apart -= ((2 * places + 1 - np.repeat(sizes, sizes)) * ranks[codes]).sum()
        jumps, neighbors = 0.0, 0
        for order in {order % len(self.by_x) for order in orders}:
            units, codes = (column[kept[self.by_x[order][0]]] for column in self.by_x[order])
            other = units[1:] != units[:-1]
            jumps += float(np.abs(np.diff(ranks[codes]))[other].sum())
            neighbors += int(other.sum())
        return 1 - jumps / neighbors / (apart / pairs) if neighbors and apart > 0 else float("nan")


def _xi(x: Array, y: Array, orders: int, rng: np.random.Generator) -> float:
    top = y.max()
    if np.isin(y, (y.min(), top)).all():
        return _xi_binary(x, y == top)
    n = len(y)
    ordered = np.sort(y)
    at_most = np.searchsorted(ordered, y, side="right")
    at_least = n - np.searchsorted(ordered, y, side="left")
    scale = 2.0 * float((at_least * (n - at_least).astype(np.float64)).sum())
    ties = len(np.unique(x)) < n
    jumps = [
        np.abs(np.diff(at_most[np.lexsort((rng.random(n), x)) if ties else np.argsort(x)])).sum()
        for _ in range(orders if ties else 1)
    ]
    return float(1 - n * np.mean(jumps) / scale)


def _xi_binary(x: Array, positive: Array) -> float:
    """Xi for y in two values, averaged over all orders of ties.

    Each change between neighbors jumps by the number of positives n1, and l (n - l) is n1 (n - n1) on positives only, so
    xi = 1 - n E[changes] / (2 n1 n0). In a run of k tied rows with a positives, each of the k - 1 neighbors differ with
    probability 2 a (k - a) / (k (k - 1)); the last row of a run and the first of the next are drawn independently.
    """
    order, starts = sort(x)
    sizes = np.diff(np.append(starts, len(x)))
    ones = np.add.reduceat(positive[order].astype(np.float64), starts)
    share = ones / sizes
    inside = 2 * ones * (1 - share)
    between = share[:-1] + share[1:] - 2 * share[:-1] * share[1:]
    total = ones.sum()
    return float(1 - len(x) * (inside.sum() + between.sum()) / (2 * total * (len(x) - total)))
