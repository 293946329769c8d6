"""Evaluation of a classifier of code and natural language: measures, thresholds and curves from labeled texts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from memtax import statistics
from memtax.errors import MemtaxError
from memtax.records import read_json_lines
from memtax.shapes import Number


def read_labels(path: str) -> tuple[list[str], list[int]]:
    """Texts and labels (1: code) from a file of JSON lines.

    Raises:
        MemtaxError: a line lacks `text` or `label`.
    """
    try:
        rows = read_json_lines(path, {"text": str, "label": Number(0, 1, whole=True)})
    except (OSError, MemtaxError) as error:
        raise MemtaxError(f"{path} must be JSON lines with `text` and `label` (0 or 1): {error}") from error
    return [row["text"] for row in rows], [row["label"] for row in rows]


def evaluate(labels: Sequence[int], scores: Sequence[float], units: ArrayLike | None = None) -> dict[str, Any]:
    """Ranking measures and thresholds of P(natural language) against labels (0 natural language, 1 code).

    Args:
        labels: (rows,) label of each row.
        scores: (rows,) P(natural language) of each row.
        units: (rows,) unit of each row, from `unit_codes`: the document that a passage was cut from. None: rows are
            independent.

    Returns:
        `rows`, `units`, `roc_auc` with its 95% interval over units (null if a class has fewer than 10 units), `pr_auc_code`,
        `pr_auc_natural_language`, `best_f1` of natural language with `best_threshold`, and the thresholds beyond which a
        class has no false positives: no code scores `natural_language_from` or more, and no natural language scores
        `code_to` or less.
    """
    prose, score = 1 - np.asarray(labels), np.asarray(scores, np.float64)
    interval = statistics.auroc_interval(prose, score, units)
    low, high = (None, None) if interval is None else (interval.low, interval.high)
    thresholds = np.unique(score)
    f1 = [statistics.f1_score(prose, (score >= threshold).astype(int)) for threshold in thresholds]
    best = int(np.argmax(f1))
    return {
        "rows": len(prose),
        "units": len(prose) if units is None else statistics.count_units(units),
        "roc_auc": {"value": statistics.auroc(prose, score), "low": low, "high": high},
        "pr_auc_code": statistics.average_precision(1 - prose, -score),
        "pr_auc_natural_language": statistics.average_precision(prose, score),
        "best_f1": float(f1[best]),
        "best_threshold": float(thresholds[best]),
        "natural_language_from": float(min(1.0, np.nextafter(score[prose == 0].max(), 2))),
        "code_to": float(max(0.0, np.nextafter(score[prose == 1].min(), -1))),
    }
