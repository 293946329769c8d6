"""Logistic regression on standardized factors, as plain arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memtax.errors import MemtaxError
from memtax.progress import numbered

Array = NDArray[np.float64]

MINIMUM = 10
"""Rows of each class below which nothing is fitted and no ranking is judged."""


class TooFewRowsError(MemtaxError):
    """The usable rows have too few positives or negatives for any model."""


def too_few(labels: NDArray[np.bool_], where: str) -> str | None:
    """Why rows with these labels are too few, in words; None if they suffice."""
    positives = int(labels.sum())
    for count, name in ((positives, "positive"), (len(labels) - positives, "negative")):
        if count < MINIMUM:
            return f"{numbered(count, name)} among the {where} rows, {MINIMUM} needed"
    return None


@dataclass(frozen=True, eq=False)
class Scaler:
    """Mean and standard deviation of each factor (factors,) over the rows it was fitted on."""

    mean: Array
    scale: Array

    @classmethod
    def fit(cls, values: Array) -> "Scaler":
        """Statistics of the columns of values (rows, factors); a constant column gets scale 1."""
        constant = values.min(axis=0) == values.max(axis=0)
        return cls(values.mean(axis=0), np.where(constant, 1.0, values.std(axis=0)))

    def __call__(self, values: Array) -> Array:
        """Standardized values (rows, factors)."""
        return (values - self.mean) / self.scale


@dataclass(frozen=True, eq=False)
class LogisticModel:
    """A fitted model: log odds = intercept - prior_shift + sum of coefficient x standardized factor.

    Attributes:
        coefficients: (factors,) per standard deviation; 0 for factors that were constant in training.
        intercept: of the fit with balanced class weights.
        prior_shift: log(s1 w1 / (s0 w0)), s the sampling rates and w the weights of the classes. Sampling and weighting
            move the log odds by this much (Elkan 2001; King & Zeng 2001); subtracting it gives probabilities of the data as
            they are. 0 if it was not asked for.
        threshold: probability from which a row is called positive.
        constant: names of the factors that were left out of the fit because they were constant.
        recalibration: slope and offset that were fitted to the log odds on validation rows (Platt 1999) instead of undoing
            the prior shift; None without.

    Raises:
        MemtaxError: both corrections at once.
    """

    coefficients: Array
    intercept: float
    prior_shift: float
    threshold: float
    constant: tuple[str, ...]
    recalibration: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.recalibration is not None and self.prior_shift != 0:
            raise MemtaxError("a model is either recalibrated or has its prior shift undone, not both")

    def log_odds(self, standardized: Array) -> Array:
        """Log odds of rows (rows, factors). A row's value does not depend on the other rows, to the bit."""
        # Column by column: a matrix product may sum in another order for another number of rows.
        logit = np.full(len(standardized), self.intercept - self.prior_shift)
        for column, coefficient in zip(standardized.T, self.coefficients, strict=True):
            logit += column * coefficient
        return logit if self.recalibration is None else self.recalibration[0] * logit + self.recalibration[1]

    def probability(self, standardized: Array) -> Array:
        """P(positive) of rows (rows, factors); see `log_odds`."""
        from scipy.special import expit

        result: Array = expit(self.log_odds(standardized))
        return result


def fit_logistic(
    standardized: Array, labels: NDArray[np.bool_], names: Sequence[str], sampling: float | None = 1.0
) -> LogisticModel:
    """L2-penalized (C = 1) logistic regression with balanced class weights, as in Prashanth et al. 2024, section 5.

    Args:
        standardized: (rows, factors) training rows.
        labels: (rows,) both classes present.
        names: the factors.
        sampling: how many times as likely positives were to become training rows as negatives (s1 / s0), for the prior
            shift; None leaves the shift in.

    Returns:
        A model with the threshold .5.
    """
    from sklearn.linear_model import LogisticRegression

    varies = standardized.min(axis=0) < standardized.max(axis=0)
    coefficients, intercept = np.zeros(len(names)), 0.0
    if varies.any():
        model = LogisticRegression(C=1.0, class_weight="balanced", solver="newton-cholesky", tol=1e-8, max_iter=10_000)
        model.fit(standardized[:, varies], labels)
        coefficients[varies], intercept = model.coef_[0], float(model.intercept_[0])
    positives = int(labels.sum())
    # Balanced weights are rows / (2 rows of the class), so w1 / w0 is negatives / positives.
    shift = 0.0 if sampling is None else float(np.log(sampling * (len(labels) - positives) / positives))
    constant = tuple(name for name, one in zip(names, varies, strict=True) if not one)
    return LogisticModel(coefficients, intercept, shift, 0.5, constant)


def recalibrate(log_odds: Array, labels: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and offset of the log odds (rows,) that maximize the likelihood of the labels (rows,), both classes present.

    Raises:
        MemtaxError: the log odds separate the classes, so that no finite slope is best.
    """
    from memtax.predictor import newton

    if log_odds.min() == log_odds.max():
        return 1.0, float(np.log(labels.sum() / (~labels).sum()) - log_odds[0])
    scaler = Scaler.fit(log_odds[:, None])
    try:
        fitted = newton.fit(scaler(log_odds[:, None]), labels.astype(np.uint8), np.arange(len(labels)), penalty=0.0)
    except (MemtaxError, np.linalg.LinAlgError) as error:
        raise MemtaxError(
            "the model separates the validation rows without error, so that no recalibration is best; "
            "use calibration 'prior', or more validation rows"
        ) from error
    slope = float(fitted.coefficients[0] / scaler.scale[0])
    return slope, float(fitted.intercept - slope * scaler.mean[0])
