"""One point of the ROC curve: the rate of one kind at a bound on the other."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from memtax.errors import MemtaxError
from memtax.statistics.arrays import Array, sort, two_classes
from memtax.statistics.intervals import Interval, percentile_interval, resample
from memtax.statistics.measures import Evaluator, once


def tpr_at_fpr(labels: ArrayLike, scores: ArrayLike, fpr: float) -> float:
    """Largest true positive rate of any threshold whose false positive rate is at most `fpr`; nothing is interpolated.

    Args:
        labels: (rows,) 0 or 1, both present.
        scores: (rows,) larger means more likely 1.
        fpr: the bound, in [0, 1].

    Raises:
        MemtaxError: lengths differ, no rows, NaN, one class only, or a bound that is no rate.
    """
    return once(tpr_evaluator(labels, scores, fpr), labels)


def fpr_at_tpr(labels: ArrayLike, scores: ArrayLike, tpr: float) -> float:
    """Smallest false positive rate of any threshold whose true positive rate is at least `tpr`; see `tpr_at_fpr`."""
    return once(fpr_evaluator(labels, scores, tpr), labels)


def tpr_evaluator(labels: ArrayLike, scores: ArrayLike, fpr: float) -> Evaluator:
    """`tpr_at_fpr` as a function of row weights (resamples, rows), for `resample`."""
    rates = _rates(labels, scores, fpr)

    def evaluate(weights: Array) -> Array:
        true, false = rates(weights)
        found: Array = np.where(false <= fpr, true, 0.0).max(axis=1)
        return found

    return evaluate


def fpr_evaluator(labels: ArrayLike, scores: ArrayLike, tpr: float) -> Evaluator:
    """`fpr_at_tpr` as a function of row weights (resamples, rows), for `resample`."""
    rates = _rates(labels, scores, tpr)

    def evaluate(weights: Array) -> Array:
        true, false = rates(weights)
        found: Array = np.where(true >= tpr, false, 1.0).min(axis=1)
        return found

    return evaluate


def bootstrap_intervals(
    evaluators: Mapping[str, Evaluator], labels: ArrayLike, resamples: int, level: float, seed: int, stratified: bool = True
) -> dict[str, Interval]:
    """Percentile bootstrap intervals of several statistics on shared resamples.

    Args:
        evaluators: name to statistic, all over the same rows.
        labels: (rows,) 0 or 1.
        resamples: resamples drawn; 0 gives estimates with bounds of NaN.
        level: coverage.
        seed: seed of the draws.
        stratified: whether each class keeps its size in every resample.
    """
    values = {name: once(evaluate, labels) for name, evaluate in evaluators.items()}
    if not resamples:
        return {name: Interval(value, math.nan, math.nan) for name, value in values.items()}
    draws = resample(list(evaluators.values()), np.asarray(labels).shape[0], resamples, seed, labels if stratified else None)
    found = zip(values.items(), draws, strict=True)
    return {name: percentile_interval(value, drawn, level) for (name, value), drawn in found}


def _rates(labels: ArrayLike, scores: ArrayLike, bound: float) -> "_Rates":
    if not 0 <= bound <= 1:
        raise MemtaxError(f"a rate lies in [0, 1], not at {bound}")
    return _Rates(*two_classes(labels, scores))


class _Rates:
    """True and false positive rates (resamples, thresholds) by falling threshold, for row weights."""

    def __init__(self, labels: Array, scores: Array) -> None:
        self.order, starts = sort(-scores)
        self.labels = labels[self.order]
        self.ends = np.append(starts[1:], len(labels)) - 1

    def __call__(self, weights: Array) -> tuple[Array, Array]:
        ordered = weights[:, self.order]
        positives = np.cumsum(ordered * self.labels, axis=1)
        rows = np.cumsum(ordered, axis=1)
        negatives = rows - positives
        # A resample without one class has no rate: NaN, which percentile_interval counts.
        with np.errstate(invalid="ignore", divide="ignore"):
            return positives[:, self.ends] / positives[:, -1:], negatives[:, self.ends] / negatives[:, -1:]
