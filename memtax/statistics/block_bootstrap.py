"""Intervals for series whose neighbors depend on each other, such as overlapping windows of one text."""

import numpy as np
from numpy.typing import ArrayLike

from memtax.errors import MemtaxError
from memtax.statistics.intervals import Interval, percentile_interval


def block_bootstrap_mean(
    values: ArrayLike, block: int, *, resamples: int = 1000, level: float = 0.95, seed: int = 1024
) -> Interval:
    """Mean of a series with a percentile interval from resamples of whole blocks (Politis & Romano 1992, circular blocks).

    Args:
        values: (n,) the series in its order.
        block: entries per block, at least as many as depend on each other; capped at n.
        resamples: resamples drawn.
        level: coverage.
        seed: seed of the draws.

    Raises:
        MemtaxError: the series is empty, or the block is below 1.
    """
    series = np.asarray(values, dtype=np.float64)
    if not len(series) or block < 1:
        raise MemtaxError(f"no block bootstrap of {len(series)} values in blocks of {block}: at least 1 of each is needed")
    length = min(block, len(series))
    # Sum of the block that starts at each place, going on at the front when it passes the end.
    sums = np.concatenate([[0.0], np.cumsum(np.concatenate([series, series[: length - 1]]))])
    totals = sums[length:] - sums[:-length]
    blocks = -(-len(series) // length)
    rng = np.random.default_rng(seed)
    draws = np.array([totals[rng.integers(0, len(series), blocks)].mean() / length for _ in range(resamples)])
    return percentile_interval(float(series.mean()), draws, level)
