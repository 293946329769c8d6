"""Intervals: exact for a rate, bootstrap for everything else."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from memtax.errors import MemtaxError
from memtax.statistics.arrays import Array
from memtax.statistics.measures import Evaluator, calibration_noise, evaluator, expected_calibration_error, once
from memtax.statistics.units import FEWEST_UNITS, expanded_level, fewest_units, strata_of, unit_index

_CHUNK = 1 << 19  # weights held at once: a few MB stay in the cache, and memory does not grow with the resamples
_MOST_UNDEFINED = 0.05
_LARGE = 100_000
_THREADS = 8


@dataclass(frozen=True)
class Interval:
    """A value with the bounds `low` and `high` of its interval."""

    value: float
    low: float
    high: float


def clopper_pearson(successes: int, trials: int, level: float = 0.95) -> Interval:
    """A rate with its exact binomial interval (Clopper & Pearson 1934): covers at least `level` for any true rate.

    Args:
        successes: how many of the trials succeeded.
        trials: independent trials, at least one.
        level: coverage.

    Raises:
        MemtaxError: not 0 <= successes <= trials, no trial, or a level outside (0, 1).
    """
    from scipy.special import betaincinv

    if trials < 1 or not 0 <= successes <= trials:
        raise MemtaxError(f"no rate of {successes} successes in {trials} trials: 0 <= successes <= trials, trials >= 1")
    tail = tail_of(level)
    low = betaincinv(successes, trials - successes + 1, tail) if successes else 0.0
    high = betaincinv(successes + 1, trials - successes, 1 - tail) if successes < trials else 1.0
    return Interval(successes / trials, float(low), float(high))


def bootstrap_interval(
    statistic: Callable[..., float],
    *arrays: ArrayLike,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 1024,
    strata: ArrayLike | None = None,
    units: ArrayLike | None = None,
) -> Interval | None:
    """Percentile bootstrap interval of `statistic(*arrays)` over rows that are drawn together with replacement.

    That of a calibration error is `calibration_interval`. With units, the percentiles are those of `expanded_level`.

    Statistics of this module are evaluated many resamples at a time; any other function is called once per resample.

    Args:
        statistic: function of the arrays; the order of rows must not matter to it.
        arrays: columns of equal length.
        resamples: resamples drawn.
        level: coverage.
        seed: seed of the draws.
        strata: (rows,) group of each row; each group keeps its size in every resample. None: rows are drawn freely.
        units: (rows,) unit of each row, from `unit_codes`; whole units are drawn. None: rows are independent.

    Returns:
        The interval; None where a stratum has fewer than `FEWEST_UNITS` units.

    Raises:
        MemtaxError: the statistic is undefined on the data, or on more than 5% of the resamples.
    """
    evaluate = evaluator(statistic, *arrays)
    value, rows = once(evaluate, arrays[0]), np.asarray(arrays[0]).shape[0]
    if units is not None:
        if fewest_units(units, strata) < FEWEST_UNITS:
            return None
        level = expanded_level(level, units, strata)
    if statistic is expected_calibration_error:
        draws, noise = resample([evaluate, calibration_noise(arrays[0], arrays[1])], rows, resamples, seed, strata, units)
        return calibration_interval(value, draws, noise, level)
    draws = resample([evaluate], rows, resamples, seed, strata, units)
    return percentile_interval(value, draws[0], level)


def paired_bootstrap_difference(
    statistic: Callable[..., float],
    labels: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 1024,
    strata: ArrayLike | None = None,
    units: ArrayLike | None = None,
) -> Interval | None:
    """`statistic(labels, first) - statistic(labels, second)` with an interval from resamples that both share.

    `strata`, `units` and what is returned are as in `bootstrap_interval`.
    """
    if units is not None:
        if fewest_units(units, strata) < FEWEST_UNITS:
            return None
        level = expanded_level(level, units, strata)
    evaluators = [evaluator(statistic, labels, first), evaluator(statistic, labels, second)]
    draws = resample(evaluators, np.asarray(labels).shape[0], resamples, seed, strata, units)
    value = once(evaluators[0], labels) - once(evaluators[1], labels)
    return percentile_interval(value, draws[0] - draws[1], level)


def resample(
    evaluators: Sequence[Evaluator],
    rows: int,
    resamples: int,
    seed: int,
    strata: ArrayLike | None = None,
    units: ArrayLike | None = None,
) -> Array:
    """Evaluate statistics on the same bootstrap resamples.

    Args:
        evaluators: from `evaluator`, all over the same rows.
        rows: number of rows.
        resamples: resamples drawn, at least one.
        seed: seed of the draws.
        strata: as in `bootstrap_interval`.
        units: (rows,) unit of each row; units are drawn in place of rows, each with all its rows of the stratum. A unit with
            rows in two strata is drawn in each.

    Returns:
        (evaluators, resamples) values. Columns belong together: their differences are paired.

    Raises:
        MemtaxError: no resample is asked for, or strata or units are not one per row.
    """
    if resamples < 1:
        raise MemtaxError(f"at least 1 resample is needed, not {resamples}")
    groups = strata_of(strata, rows)
    index = None
    if units is not None:
        codes = unit_index(units, rows)[0]
        index = [np.unique(codes[group], return_inverse=True)[1].ravel() for group in groups]
    rng = np.random.default_rng(seed)
    values = np.empty((len(evaluators), resamples))
    chunk = max(1, _CHUNK // max(rows, 1))
    # Each evaluator allocates a few arrays of the weights' size; numpy releases the interpreter lock on large ones.
    threads = min(len(evaluators), os.cpu_count() or 1, _THREADS) if rows >= _LARGE else 1
    for start in range(0, resamples, chunk):
        weights = np.zeros((min(chunk, resamples - start), rows))
        for drawn in weights:
            for place, group in enumerate(groups):
                number = len(group) if index is None else int(index[place].max()) + 1
                times = np.bincount(rng.integers(0, number, number), minlength=number)
                drawn[group] = times if index is None else times[index[place]]
        values[:, start : start + len(weights)] = _apply(evaluators, weights, threads)
    return values


def _apply(evaluators: Sequence[Evaluator], weights: Array, threads: int) -> list[Array]:
    if threads == 1:
        return [evaluate(weights) for evaluate in evaluators]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda evaluate: evaluate(weights), evaluators))


def percentile_interval(value: float, draws: Array, level: float = 0.95) -> Interval:
    """The interval between the outer percentiles of bootstrap values (resamples,).

    Raises:
        MemtaxError: more than 5% of the values are undefined (too few rows of a class).
    """
    tail = tail_of(level)
    defined = draws[~np.isnan(draws)]
    if len(defined) < (1 - _MOST_UNDEFINED) * len(draws):
        raise MemtaxError(
            f"the statistic is undefined on {len(draws) - len(defined)} of {len(draws)} resamples; "
            "more rows of the rarer class are needed, or strata"
        )
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(float(value), float(low), float(high))


def calibration_interval(value: float, draws: Array, noise: Array, level: float = 0.95) -> Interval:
    """The interval of an expected calibration error.

    The error is a sum of absolute values, so noise alone makes it positive, and a resample adds that bias once more: its
    percentiles hardly ever cover a small true error. The lower bound here subtracts what noise can add at most (by the
    triangle inequality); the upper bound is the percentile without the resamples' own bias.

    Args:
        value: on the data.
        draws: (resamples,) calibration errors.
        noise: (resamples,) values of `calibration_noise` on the same resamples.
        level: coverage, or more.
    """
    tail = tail_of(level)
    low = max(0.0, value - float(np.quantile(noise, 1 - tail)))
    return Interval(value, low, max(value, float(np.quantile(draws, 1 - tail) - draws.mean() + value)))


def tail_of(level: float) -> float:
    """Probability outside either bound of an interval of coverage `level`.

    Raises:
        MemtaxError: the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise MemtaxError(f"a level must be between 0 and 1, got {level}")
    return (1 - level) / 2
