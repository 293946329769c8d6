"""How well probabilities predict a target on held-out rows: in aggregate and by category, with paired intervals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memtax import statistics
from memtax.schema import CATEGORIES
from memtax.taxonomy.logistic import Array, too_few

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
OF_DECISIONS = ("f1", "precision", "recall")
"""Metrics that read decisions; the others read probabilities."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of the held-out rows, and of which categories it cannot speak (category to the reason).

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
) -> dict[str, Any]:
    """Metrics of each model, their differences, and curves.

    All models and metrics of a group of rows are evaluated on the same bootstrap resamples of its rows, so that
    differences are paired. A group with fewer than 10 positives or negatives gets the reason instead of values.

    Args:
        labels: (rows,) the target.
        categories: (rows,) indices into `names`.
        predictions: name to prediction; the first is what the others are compared with.
        resamples: bootstrap resamples for the 95% percentile intervals.
        seed: seed of the resamples.
        names: of the groups of rows.

    Returns:
        JSON-ready `models`, `differences` (the others minus the first) and `curves`.
    """
    groups = {"aggregate": np.ones(len(labels), bool)}
    groups |= {name: categories == code for code, name in enumerate(names)}
    models: dict[str, dict[str, Any]] = {name: {} for name in predictions}
    differences: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    for group, rows in groups.items():
        found = labels[rows]
        few = too_few(found, "test")
        spoken = {name: one for name, one in predictions.items() if few is None and group not in one.silent}
        values, draws = _measure(found, rows, spoken, resamples, seed) if spoken else ({}, {})
        for name, one in predictions.items():
            intervals = {metric: values.get((name, metric)) for metric in METRICS}
            models[name][group] = {
                "n": len(found),
                "positives": int(found.sum()),
                "reason": few or one.silent.get(group),
                **{metric: None if interval is None else asdict(interval) for metric, interval in intervals.items()},
            }
            if name in spoken:
                curves.append({"model": name, "category": group, **_curves(found, one.probabilities[rows])})
        first, *others = predictions
        pairs = [(name, first) for name in others if name in spoken and first in spoken]
        differences += [_difference(metric, group, pair, values, draws) for pair in pairs for metric in METRICS]
    return {"models": models, "differences": differences, "curves": curves}


_Key = tuple[str, str]


def _measure(
    labels: NDArray[np.bool_], rows: NDArray[np.bool_], predictions: Mapping[str, Prediction], resamples: int, seed: int
) -> tuple[dict[_Key, statistics.Interval], dict[_Key, Array]]:
    """Interval and bootstrap values of every (model, metric), all from the same resamples."""
    columns = {(name, metric): one.column(metric, rows) for name, one in predictions.items() for metric in METRICS}
    evaluators = [statistics.evaluator(METRICS[metric], labels, column) for (_, metric), column in columns.items()]
    noisy = [statistics.calibration_noise(labels, one.probabilities[rows]) for one in predictions.values()]
    found = statistics.resample([*evaluators, *noisy], len(labels), resamples, seed)
    draws = dict(zip(columns, found, strict=False))
    noise = dict(zip(predictions, found[len(columns) :], strict=True))
    values = {}
    for (name, metric), column in columns.items():
        value, own = METRICS[metric](labels, column), draws[name, metric]
        values[name, metric] = (
            statistics.calibration_interval(value, own, noise[name])
            if metric == "ece"
            else statistics.percentile_interval(value, own)
        )
    return values, draws


def _difference(
    metric: str, group: str, models: tuple[str, str], values: Mapping[_Key, statistics.Interval], draws: Mapping[_Key, Array]
) -> dict[str, Any]:
    """The first model's value minus the second's, on shared resamples."""
    first, second = ((model, metric) for model in models)
    value = values[first].value - values[second].value
    apart = draws[first] - draws[second]
    if metric == "ece":
        apart = apart - apart.mean() + value  # resamples are biased upwards, and not both models alike
    interval = statistics.percentile_interval(value, apart)
    return {"metric": metric, "category": group, "model": models[0], "against": models[1], **asdict(interval)}


def _curves(labels: NDArray[np.bool_], probabilities: Array) -> dict[str, dict[str, list[float]]]:
    fpr, tpr = statistics.roc_curve(labels, probabilities)
    recall, precision = statistics.pr_curve(labels, probabilities)
    predicted, observed, count = statistics.reliability_curve(labels, probabilities)
    return {
        "roc": {"fpr": fpr.tolist(), "tpr": tpr.tolist()},
        "pr": {"recall": recall.tolist(), "precision": precision.tolist()},
        "reliability": {"predicted": predicted.tolist(), "observed": observed.tolist(), "count": count.tolist()},
    }
