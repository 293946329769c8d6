"""Calibration of probabilities."""

from typing import Any

from memtax.metrics.figures import bootstrap, counted
from memtax.metrics.inputs import Column, columns, flags, numbers, units_of
from memtax.statistics import curves, measures


def calibration_error(
    predictions: Column,
    references: Column,
    documents: Column | None = None,
    bins: int = 15,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 1024,
    curve: bool = False,
) -> dict[str, Any]:
    """Expected calibration error, Brier score and log loss of probabilities.

    Expected calibration error of probabilities with bins of equal width, Brier score and log loss, each with a bootstrap
    interval.

    Args:
        predictions (`list` of `float`): probabilities of label 1, in [0, 1].
        references (`list` of `int`): labels, 0 or 1; one of them may be absent.
        documents (`list` of `str` or `int`, *optional*): document of each row. Intervals are then over documents, as rows of
            one depend on each other, and null with a reason below 10 documents. Without it rows are taken as independent.
        bins (`int`): bins of equal width over [0, 1]; the last one is closed. Defaults to 15.
        resamples (`int`): bootstrap resamples of the rows or documents; 0: no intervals. Defaults to 1000.
        level (`float`): coverage of the intervals. Defaults to 0.95.
        seed (`int`): of the resamples. Defaults to 1024.
        curve (`bool`): also return the reliability curve. Defaults to `False`.

    Returns:
        `ece`: mean over rows of |mean probability - share of label 1| in the row's bin, in [0, 1]; 0 is best.
        `brier_score`: mean squared difference of probability and label, in [0, 1]; 0 is best.
        `log_loss`: mean negative log-likelihood in nats, at least 0.
        Each with `..._low` and `..._high`. `rows`: how many there are.
        `curve` (on request): `predicted` (mean probability), `observed` (share of label 1) and `rows` of each bin with rows.

    Raises:
        MemtaxError: columns are missing, empty, of different lengths, or hold values that the measure cannot take.

    Example:
        >>> import memtax
        >>> results = memtax.metrics.calibration_error(predictions=[0.2, 0.2, 0.9, 0.9], references=[0, 1, 1, 1], bins=5)
        >>> round(results["ece"], 3), round(results["brier_score"], 3)
        (0.2, 0.175)
    """
    predictions, references, documents = columns(2, predictions=predictions, references=references, documents=documents)
    labels, predictions = flags(references, "references"), numbers(predictions, "predictions")
    wanted = {
        "ece": measures.calibration_evaluator(labels, predictions, bins),
        "brier_score": measures.evaluator(measures.brier_score, labels, predictions),
        "log_loss": measures.evaluator(measures.log_loss, labels, predictions),
    }
    units = units_of(documents)
    result = bootstrap(wanted, labels, resamples, level, seed, stratified=False, units=units) | counted(units)
    result["rows"] = len(labels)
    if curve:
        names = ("predicted", "observed", "rows")
        points = curves.reliability_curve(labels, predictions, bins)
        result["curve"] = {name: values.tolist() for name, values in zip(names, points, strict=True)}
    return result
