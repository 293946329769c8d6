"""Statistics of labels, scores, probabilities and pairs of columns, as functions of row weights.

`auroc(labels, scores)` is the case of all weights one, and a bootstrap resample is the case of weights that say how often
each row was drawn (Efron & Tibshirani 1993, section 6). So the data are sorted once, not once a resample, and whatever is
evaluated on the same weights is paired.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from memtax.errors import MemtaxError
from memtax.statistics.arrays import (
    Array,
    bin_of,
    columns,
    probabilities_of,
    ratio,
    require_binary,
    sort,
    standardized,
    sum_ties,
    two_classes,
)

Evaluator = Callable[[Array], Array]
"""Weights (resamples, rows) to one value a resample; NaN where a resample leaves the statistic undefined."""

BINS = 15


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: P(score of a positive > score of a negative) + P(equal) / 2.

    Args:
        labels: (rows,) 0 or 1, both present.
        scores: (rows,) larger means more likely 1.

    Raises:
        MemtaxError: lengths differ, no rows, NaN, or one class only.
    """
    return once(_auroc(labels, scores), labels)


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the precision-recall curve as sum of (R_k - R_{k-1}) P_k over distinct scores; no interpolation.

    Arguments and errors as in `auroc`.
    """
    return once(_average_precision(labels, scores), labels)


def f1_score(labels: ArrayLike, decisions: ArrayLike) -> float:
    """2 TP / (2 TP + FP + FN) of decisions (rows,) in 0 and 1. Arguments and errors as in `auroc`."""
    return once(_f1(labels, decisions), labels)


def precision_score(labels: ArrayLike, decisions: ArrayLike) -> float:
    """TP / (TP + FP) of decisions (rows,) in 0 and 1; 0 if nothing is decided positive. Arguments as in `f1_score`."""
    return once(_precision(labels, decisions), labels)


def recall_score(labels: ArrayLike, decisions: ArrayLike) -> float:
    """TP / (TP + FN) of decisions (rows,) in 0 and 1. Arguments as in `f1_score`."""
    return once(_recall(labels, decisions), labels)


def log_loss(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean negative log-likelihood in nats of probabilities (rows,) in [0, 1]; one class may be absent.

    Probabilities are kept 2^-52 away from 0 and 1, as in scikit-learn: one certain error must not outweigh everything.
    """
    return once(_log_loss(labels, probabilities), labels)


def brier_score(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean squared difference of probabilities (rows,) in [0, 1] and labels (Brier 1950); one class may be absent."""
    return once(_brier(labels, probabilities), labels)


def expected_calibration_error(labels: ArrayLike, probabilities: ArrayLike, bins: int = BINS) -> float:
    """Mean over rows of |mean probability - share of positives| of the row's bin (Naeini et al. 2015).

    Args:
        labels: (rows,) 0 or 1; one class may be absent.
        probabilities: (rows,) in [0, 1].
        bins: number of bins of equal width; bin b is [b/bins, (b+1)/bins), the last one closed.
    """
    return once(calibration_evaluator(labels, probabilities, bins), labels)


def calibration_noise(labels: ArrayLike, probabilities: ArrayLike, bins: int = BINS) -> Evaluator:
    """How far a resample's bins lie from those of the data: sum of |gap in the resample - gap in the data|, gaps as in ECE.

    By the triangle inequality no calibration error of the resample differs from that of the data by more, so quantiles of
    this bound the error of the calibration error itself; see `intervals.calibration_interval`.
    """
    y, p = probabilities_of(labels, probabilities)
    order, starts = sort(bin_of(p, bins).astype(np.float64))
    residuals = (y - p)[order]
    gaps = np.add.reduceat(residuals, starts) / len(y)

    def evaluate(weights: Array) -> Array:
        moved = np.add.reduceat(weights[:, order] * residuals, starts, axis=1) / weights.sum(1)[:, None]
        return np.abs(moved - gaps).sum(1)

    return evaluate


def pearson(x: ArrayLike, y: ArrayLike) -> float:
    """Pearson's correlation of two columns (rows,), neither constant."""
    return once(_pearson(x, y), x)


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rank correlation, ties at their mean rank, of two columns (rows,), neither constant."""
    return once(_spearman(x, y), x)


def evaluator(statistic: Callable[..., float], *arrays: ArrayLike) -> Evaluator:
    """The statistic as a function of row weights: what `resample` evaluates.

    Args:
        statistic: of columns (rows,) to a number; those of this module are evaluated without repeating rows.
        arrays: its columns.

    Returns:
        A function of weights (resamples, rows) to values (resamples,).

    Raises:
        MemtaxError: no row, or columns of different lengths.
    """
    if statistic in _EVALUATORS:
        return _EVALUATORS[statistic](*arrays)
    columns = [np.asarray(array) for array in arrays]
    if not columns or not len(columns[0]) or len({len(column) for column in columns}) != 1:
        raise MemtaxError(f"columns of one length with at least one row are needed, not lengths {[len(c) for c in columns]}")

    def evaluate(weights: Array) -> Array:
        rows = [np.repeat(np.arange(weights.shape[1]), counts.astype(np.int64)) for counts in weights]
        return np.array([statistic(*(column[chosen] for column in columns)) for chosen in rows], np.float64)

    return evaluate


def once(evaluate: Evaluator, column: ArrayLike) -> float:
    """The statistic of the data themselves: every row of `column` has weight one."""
    return float(evaluate(np.ones((1, np.asarray(column).shape[0])))[0])


def _auroc(labels: ArrayLike, scores: ArrayLike) -> Evaluator:
    y, s = two_classes(labels, scores)
    order, starts = sort(s)
    y = y[order]

    def evaluate(weights: Array) -> Array:
        weights = weights[:, order]
        positives, rows = sum_ties(weights * y, starts), sum_ties(weights, starts)
        negatives = rows - positives
        below = np.cumsum(negatives, axis=1) - negatives / 2
        return ratio(np.einsum("bn,bn->b", positives, below), positives.sum(1) * negatives.sum(1))

    return evaluate


def _average_precision(labels: ArrayLike, scores: ArrayLike) -> Evaluator:
    y, s = two_classes(labels, scores)
    order, starts = sort(-s)
    y = y[order]

    def evaluate(weights: Array) -> Array:
        weights = weights[:, order]
        positives, rows = sum_ties(weights * y, starts), sum_ties(weights, starts)
        # A score that nobody in the resample has adds no recall; max(., 1) only keeps 0 / 0 away.
        precision = np.cumsum(positives, axis=1) / np.maximum(np.cumsum(rows, axis=1), 1)
        return ratio(np.einsum("bn,bn->b", positives, precision), positives.sum(1))

    return evaluate


def _f1(labels: ArrayLike, decisions: ArrayLike) -> Evaluator:
    y, decided = two_classes(labels, decisions)
    require_binary(decided, "decisions")
    return lambda weights: ratio(2 * weights @ (y * decided), weights @ (y + decided))


def _precision(labels: ArrayLike, decisions: ArrayLike) -> Evaluator:
    y, decided = two_classes(labels, decisions)
    require_binary(decided, "decisions")
    # Nothing decided positive: 0, as F1 has it.
    return lambda weights: weights @ (y * decided) / np.maximum(weights @ decided, 1)


def _recall(labels: ArrayLike, decisions: ArrayLike) -> Evaluator:
    y, decided = two_classes(labels, decisions)
    require_binary(decided, "decisions")
    return lambda weights: ratio(weights @ (y * decided), weights @ y)


def _log_loss(labels: ArrayLike, probabilities: ArrayLike) -> Evaluator:
    y, p = probabilities_of(labels, probabilities)
    smallest = np.finfo(np.float64).eps
    losses = -np.log(np.clip(np.where(y == 1, p, 1 - p), smallest, 1))
    return lambda weights: weights @ losses / weights.sum(1)


def _brier(labels: ArrayLike, probabilities: ArrayLike) -> Evaluator:
    y, p = probabilities_of(labels, probabilities)
    return lambda weights: weights @ (p - y) ** 2 / weights.sum(1)


def calibration_evaluator(labels: ArrayLike, probabilities: ArrayLike, bins: int = BINS) -> Evaluator:
    """`expected_calibration_error` as a function of row weights (resamples, rows), for `resample`."""
    y, p = probabilities_of(labels, probabilities)
    order, starts = sort(bin_of(p, bins).astype(np.float64))
    # A bin's share of rows times its gap is |sum over its rows of (y - p)| / rows.
    residuals = (y - p)[order]
    return lambda weights: np.abs(np.add.reduceat(weights[:, order] * residuals, starts, axis=1)).sum(1) / weights.sum(1)


def _pearson(x: ArrayLike, y: ArrayLike) -> Evaluator:
    a, b = (standardized(column) for column in columns(x=x, y=y))
    return lambda weights: _correlation(weights, a[None], b[None])


def _spearman(x: ArrayLike, y: ArrayLike) -> Evaluator:
    rank_x, rank_y = (_ranker(standardized(column)) for column in columns(x=x, y=y))
    return lambda weights: _correlation(weights, rank_x(weights), rank_y(weights))


def _ranker(column: Array) -> Evaluator:
    """Weights (resamples, rows) to mean ranks (resamples, rows) over the number of rows, up to a constant."""
    order, starts = sort(column)
    group = np.empty(len(column), np.int64)
    group[order] = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(column))))

    def rank(weights: Array) -> Array:
        rows = sum_ties(weights[:, order], starts)
        return ((np.cumsum(rows, axis=1) - rows / 2) / len(column))[:, group]

    return rank


def _correlation(weights: Array, a: Array, b: Array) -> Array:
    total = weights.sum(1)
    a = a - (np.einsum("bn,bn->b", weights, np.broadcast_to(a, weights.shape)) / total)[:, None]
    b = b - (np.einsum("bn,bn->b", weights, np.broadcast_to(b, weights.shape)) / total)[:, None]
    weighted = weights * a
    product = np.einsum("bn,bn->b", weighted, a) * np.einsum("bn,bn->b", weights * b, b)
    # Both columns are of order one: below this a column is constant within the resample, up to rounding.
    product[product < 1e-24] = 0.0
    return ratio(np.einsum("bn,bn->b", weighted, b), np.sqrt(product))


_EVALUATORS: dict[Callable[..., float], Callable[..., Evaluator]] = {
    auroc: _auroc,
    average_precision: _average_precision,
    f1_score: _f1,
    precision_score: _precision,
    recall_score: _recall,
    log_loss: _log_loss,
    brier_score: _brier,
    expected_calibration_error: calibration_evaluator,
    pearson: _pearson,
    spearman: _spearman,
}
