"""Curves for plotting, thinned to a few hundred points."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memtax.errors import MemtaxError
from memtax.statistics.arrays import Array, bin_of, probabilities_of, sort, two_classes
from memtax.statistics.measures import BINS


def roc_curve(labels: ArrayLike, scores: ArrayLike, points: int = 200) -> tuple[Array, Array]:
    """False and true positive rates by falling threshold, from (0, 0) to (1, 1), thinned to at most `points` points."""
    positives, rows = _cumulative(labels, scores)
    negatives = rows - positives
    fpr = np.concatenate([[0.0], negatives / negatives[-1]])
    tpr = np.concatenate([[0.0], positives / positives[-1]])
    return _thin(fpr, tpr, points)


def pr_curve(labels: ArrayLike, scores: ArrayLike, points: int = 200) -> tuple[Array, Array]:
    """Recall and precision by falling threshold, thinned; it starts at recall 0 with the first threshold's precision."""
    positives, rows = _cumulative(labels, scores)
    recall, precision = positives / positives[-1], positives / rows
    return _thin(np.concatenate([[0.0], recall]), np.concatenate([precision[:1], precision]), points)


def reliability_curve(labels: ArrayLike, probabilities: ArrayLike, bins: int = BINS) -> tuple[Array, Array, NDArray[np.int64]]:
    """Mean probability, share of positives and rows of each bin that has rows; bins as in `expected_calibration_error`."""
    y, p = probabilities_of(labels, probabilities)
    index = bin_of(p, bins)
    count = np.bincount(index, minlength=bins)
    filled = count > 0
    predicted = np.bincount(index, p, bins)[filled] / count[filled]
    observed = np.bincount(index, y, bins)[filled] / count[filled]
    return predicted, observed, count[filled]


def _cumulative(labels: ArrayLike, scores: ArrayLike) -> tuple[Array, Array]:
    """Positives and rows at or above each distinct score, from the highest down."""
    y, s = two_classes(labels, scores)
    order, starts = sort(-s)
    ends = np.append(starts[1:], len(y)) - 1
    return np.cumsum(y[order])[ends], (ends + 1).astype(np.float64)


def _thin(x: Array, y: Array, points: int) -> tuple[Array, Array]:
    """Keep the ends and points at even steps along the curve, so that no skipped point is off by more than a step."""
    if points < 2:
        raise MemtaxError(f"a curve needs at least 2 points, not {points}")
    if len(x) > points:
        length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
        keep = np.unique(np.searchsorted(length, np.linspace(0.0, length[-1], points)))
        keep[-1] = len(x) - 1
        x, y = x[keep], y[keep]
    return x, y


def best_threshold(labels: ArrayLike, scores: ArrayLike) -> float:
    """The score t for which deciding `score >= t` has the largest F1; the highest such score if several have it."""
    positives, rows = _cumulative(labels, scores)
    # F1 = 2 TP / (predicted positives + positives)
    best = int(np.argmax(2 * positives / (rows + positives[-1])))
    return float(np.unique(np.asarray(scores, np.float64))[::-1][best])
