"""Operating points of a ranking: the rate of one kind of decision at a given rate of the other."""

import math

import numpy as np
from numpy.typing import ArrayLike

from memtax.errors import MemtaxError
from memtax.statistics.arrays import Array, sort, sum_ties, two_classes
from memtax.statistics.measures import Evaluator, once

_ROUNDING = 1e-12
_EXPECTED_ABOVE = 5


def fewest_negatives(fpr: float) -> int | None:
    """Negatives from which a TPR at this FPR is worth reporting: 5 of them are expected above the threshold.

    Even then the TPR is optimistic: of n negatives, the chosen threshold has a true FPR of (floor(fpr n) + 1) / (n + 1) on
    average, .012 for .01 and 500. With fewer negatives it may be several times `fpr`.

    Returns:
        ceil(5 / fpr); None for an FPR of 0, which no number of negatives shows.
    """
    return None if fpr <= 0 else math.ceil(_EXPECTED_ABOVE / fpr - _ROUNDING)


def tpr_at_fpr(labels: ArrayLike, scores: ArrayLike, fpr: float = 0.01) -> float:
    """Largest true positive rate of a threshold whose false positive rate is at most `fpr`; nothing is interpolated.

    Args:
        labels: (rows,) 0 or 1, both present.
        scores: (rows,) larger means more likely 1.
        fpr: the false positive rate that is allowed.

    Raises:
        MemtaxError: lengths differ, no rows, NaN, one class only, or a rate outside [0, 1].
    """
    return once(operating_evaluators(labels, scores, fprs=(fpr,))[0], labels)


def fpr_at_tpr(labels: ArrayLike, scores: ArrayLike, tpr: float = 0.95) -> float:
    """Smallest false positive rate of a threshold whose true positive rate is at least `tpr`. Arguments as `tpr_at_fpr`."""
    return once(operating_evaluators(labels, scores, tprs=(tpr,))[0], labels)


def operating_evaluators(
    labels: ArrayLike, scores: ArrayLike, fprs: tuple[float, ...] = (), tprs: tuple[float, ...] = ()
) -> list[Evaluator]:
    """Evaluators for `resample`: the TPR at each of `fprs`, then the FPR at each of `tprs`; they share their work.

    Args:
        labels: 1 for positives (rows,).
        scores: larger for positives (rows,).
        fprs: false positive rates, in [0, 1].
        tprs: true positive rates, in [0, 1].

    Raises:
        MemtaxError: a rate outside [0, 1], or labels and scores that cannot be used.
    """
    for rate in (*fprs, *tprs):
        if not 0 <= rate <= 1:
            raise MemtaxError(f"a rate must be between 0 and 1, got {rate}")
    curve = _Curve(*two_classes(labels, scores))

    def true_at(rate: float) -> Evaluator:
        return lambda weights: curve.true_at(weights, rate)

    def false_at(rate: float) -> Evaluator:
        return lambda weights: curve.false_at(weights, rate)

    return [true_at(rate) for rate in fprs] + [false_at(rate) for rate in tprs]


class _Curve:
    """Rates at or above each distinct score from the highest down, for the weights that were last asked for."""

    def __init__(self, labels: Array, scores: Array) -> None:
        self.order, self.starts = sort(-scores)
        self.labels = labels[self.order]
        self.weights: Array | None = None
        self.true = self.false = np.empty((0, 0))

    def _rates(self, weights: Array) -> None:
        if self.weights is weights:
            return
        # Held, so that no other array can come to have its identity.
        self.weights = weights
        ordered = weights[:, self.order]
        positives, rows = sum_ties(ordered * self.labels, self.starts), sum_ties(ordered, self.starts)
        true, false = np.cumsum(positives, axis=1), np.cumsum(rows - positives, axis=1)
        with np.errstate(invalid="ignore"):
            self.true, self.false = true / true[:, -1:], false / false[:, -1:]

    def true_at(self, weights: Array, rate: float) -> Array:
        self._rates(weights)
        allowed = (self.false <= rate + _ROUNDING).sum(axis=1)
        found = np.take_along_axis(self.true, np.maximum(allowed - 1, 0)[:, None], axis=1)[:, 0]
        return np.where(np.isnan(self.false[:, -1]), np.nan, np.where(allowed > 0, found, 0.0))

    def false_at(self, weights: Array, rate: float) -> Array:
        self._rates(weights)
        first = (self.true < rate - _ROUNDING).sum(axis=1)
        return np.take_along_axis(self.false, np.minimum(first, self.false.shape[1] - 1)[:, None], axis=1)[:, 0]
