"""How well probabilities predict a target on held-out rows: in aggregate and by category, with paired intervals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memtax import statistics
from memtax.predictor.logistic import Array, too_few
from memtax.predictor.usable_rows import few_units
from memtax.schema import CATEGORIES

METRICS: dict[str, Callable[..., float]] = {
    "roc_auc": statistics.auroc,
    "pr_auc": statistics.average_precision,
    "ece": statistics.expected_calibration_error,
    "brier": statistics.brier_score,
    "log_loss": statistics.log_loss,
    "f1": statistics.f1_score,
    "precision": statistics.precision_score,
    "recall": statistics.recall_score,
}
LEVEL = 0.95
MOST_UNDEFINED = 0.05
"""Share of resamples without one of the classes beyond which an interval is withheld."""
OF_DECISIONS = ("f1", "precision", "recall")
"""Metrics that read decisions; the others read probabilities."""


@dataclass(frozen=True)
class Estimate:
    """A value with the bounds of its interval; None where that is withheld."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, eq=False)
class Prediction:
    """A model's predictions for the held-out rows, and the categories without a prediction (category to the reason).

    Attributes:
        probabilities: of being memorized (rows,).
        decisions: whether they reach the model's threshold (rows,).
        silent: category to the reason.
    """

    probabilities: Array
    decisions: NDArray[np.bool_]
    silent: Mapping[str, str]

    def column(self, metric: str, rows: NDArray[np.bool_]) -> NDArray[Any]:
        """The column that a metric reads, for the chosen rows."""
        return (self.decisions if metric in OF_DECISIONS else self.probabilities)[rows]


def evaluate(
    labels: NDArray[np.bool_],
    categories: NDArray[np.int64],
    predictions: Mapping[str, Prediction],
    resamples: int,
    seed: int,
    names: Sequence[str] = CATEGORIES,
    units: statistics.Units | None = None,
) -> dict[str, Any]:
    """Metrics of each model, their differences, and curves.

    All models and metrics of a group of rows are evaluated on the same bootstrap resamples of its units, so that
    differences are paired, but for those of calibration errors; the area under the ROC curve alone has the interval of
    `statistics.auroc_interval`. A group with fewer than 10 positives or negatives gets the reason instead of values, one with
    fewer than 10 units values whose `low` and `high` are None, with the reason.

    Args:
        labels: (rows,) the target.
        categories: (rows,) indices into `names`.
        predictions: name to prediction; the first is what the others are compared with.
        resamples: bootstrap resamples for the 95% percentile intervals.
        seed: seed of the resamples.
        names: of the groups of rows.
        units: of resampling; None: each row is its own.

    Returns:
        JSON-ready `models` (each group with `n`, `units`, `positives`, `reason`, `interval_reason` and the metrics),
        `differences` (the others minus the first) and `curves`.
    """
    units = units if units is not None else statistics.Units.of_rows(len(labels))
    groups = {"aggregate": np.ones(len(labels), bool)}
    groups |= {name: categories == code for code, name in enumerate(names)}
    models: dict[str, dict[str, Any]] = {name: {} for name in predictions}
    differences: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    for group, rows in groups.items():
        found = labels[rows]
        few = too_few(found, "test")
        spoken = {name: one for name, one in predictions.items() if few is None and group not in one.silent}
        own = units[rows]
        values, draws = _measure(found, rows, spoken, resamples, seed, own) if spoken else ({}, {})
        for name, one in predictions.items():
            intervals = {metric: values.get((name, metric)) for metric in METRICS}
            models[name][group] = {
                "n": len(found),
                "units": own.count,
                "positives": int(found.sum()),
                "reason": few or one.silent.get(group),
                "interval_reason": None if few else few_units(own),
                **{metric: None if interval is None else asdict(interval) for metric, interval in intervals.items()},
            }
            if name in spoken:
                curves.append({"model": name, "category": group, **_curves(found, one.probabilities[rows])})
        first, *others = predictions
        pairs = [(name, first) for name in others if name in spoken and first in spoken]
        differences += [_difference(metric, group, pair, values, draws, own) for pair in pairs for metric in METRICS]
    return {"models": models, "differences": differences, "curves": curves}


_Key = tuple[str, str]


def _measure(
    labels: NDArray[np.bool_],
    rows: NDArray[np.bool_],
    predictions: Mapping[str, Prediction],
    resamples: int,
    seed: int,
    units: statistics.Units,
) -> tuple[dict[_Key, Estimate], dict[_Key, Array]]:
    """Interval and bootstrap values of every (model, metric), all from the same resamples of units."""
    columns = {(name, metric): one.column(metric, rows) for name, one in predictions.items() for metric in METRICS}
    evaluators = [statistics.evaluator(METRICS[metric], labels, column) for (_, metric), column in columns.items()]
    noisy = [statistics.calibration_noise(labels, one.probabilities[rows]) for one in predictions.values()]
    if units.count < statistics.FEWEST_UNITS:
        return {key: Estimate(METRICS[key[1]](labels, column)) for key, column in columns.items()}, {}
    codes = _codes(units)
    found = statistics.resample([*evaluators, *noisy], len(labels), resamples, seed, units=codes)
    level = _level(units)
    draws = dict(zip(columns, found, strict=False))
    noise = dict(zip(predictions, found[len(columns) :], strict=True))
    values = {}
    for (name, metric), column in columns.items():
        value, own = METRICS[metric](labels, column), draws[name, metric]
        interval: statistics.Interval | None
        if metric == "ece":
            interval = statistics.calibration_interval(value, own, noise[name], level)
        elif metric == "roc_auc":
            interval = statistics.auroc_interval(labels, column, codes)
        else:
            interval = _percentiles(value, own, level)
        values[name, metric] = Estimate(value) if interval is None else Estimate(value, interval.low, interval.high)
    return values, draws


def _codes(units: statistics.Units) -> NDArray[np.int64] | None:
    """Codes of units; None where each row is its own, whose resamples need none."""
    return None if units.count == len(units.codes) else units.codes


def _level(units: statistics.Units) -> float:
    """Level of the percentiles that cover 95%."""
    codes = _codes(units)
    return LEVEL if codes is None else statistics.expanded_level(LEVEL, codes)


def _percentiles(value: float, draws: Array, level: float) -> statistics.Interval | None:
    """None where too many resamples lack a class: the rarer class is in too few units."""
    return None if np.isnan(draws).mean() > MOST_UNDEFINED else statistics.percentile_interval(value, draws, level)


def _difference(
    metric: str,
    group: str,
    models: tuple[str, str],
    values: Mapping[_Key, Estimate],
    draws: Mapping[_Key, Array],
    units: statistics.Units,
) -> dict[str, Any]:
    """The first model's value minus the second's, on shared resamples; of calibration errors from either's interval.

    Noise adds to a calibration error, and the more the smaller the true one is: resamples of a difference hardly cover it.
    The bounds are those that both intervals allow, as biases do not cancel like errors.
    """
    first, second = ((model, metric) for model in models)
    value = values[first].value - values[second].value
    facts = {"metric": metric, "category": group, "model": models[0], "against": models[1]}
    if not draws:
        return {**facts, **asdict(Estimate(value))}
    interval = (
        _allowed(values[first], values[second])
        if metric == "ece"
        else _percentiles(value, draws[first] - draws[second], _level(units))
    )
    return {**facts, **asdict(Estimate(value) if interval is None else interval)}


def _allowed(first: Estimate, second: Estimate) -> statistics.Interval | None:
    """The differences that the intervals of both allow; None where one of them is withheld."""
    if first.low is None or first.high is None or second.low is None or second.high is None:
        return None
    return statistics.Interval(first.value - second.value, first.low - second.high, first.high - second.low)


def _curves(labels: NDArray[np.bool_], probabilities: Array) -> dict[str, dict[str, list[float]]]:
    fpr, tpr = statistics.roc_curve(labels, probabilities)
    recall, precision = statistics.pr_curve(labels, probabilities)
    predicted, observed, count = statistics.reliability_curve(labels, probabilities)
    return {
        "roc": {"fpr": fpr.tolist(), "tpr": tpr.tolist()},
        "pr": {"recall": recall.tolist(), "precision": precision.tolist()},
        "reliability": {"predicted": predicted.tolist(), "observed": observed.tolist(), "count": count.tolist()},
    }
