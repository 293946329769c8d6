"""How well a classifier separates code from natural language: figures, thresholds and curves from labeled texts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from memtax import statistics
from memtax.errors import MemtaxError
from memtax.records import read_json_lines
from memtax.shapes import Number


def read_labels(path: str) -> tuple[list[str], list[int]]:
    """Texts and labels (1: code) of a file of JSON lines.

    Raises:
        MemtaxError: a line lacks one of them.
    """
    try:
        rows = read_json_lines(path, {"text": str, "label": Number(0, 1, whole=True)})
    except (OSError, MemtaxError) as error:
        raise MemtaxError(f"{path} must be JSON lines with `text` and `label` (0 or 1): {error}") from error
    return [row["text"] for row in rows], [row["label"] for row in rows]


def evaluate(labels: Sequence[int], scores: Sequence[float], units: ArrayLike | None = None) -> dict[str, Any]:
    """Ranking measures and thresholds of P(natural language) against labels (0 natural language, 1 code).

    Args:
        labels: of the rows.
        scores: P(natural language) of the rows.
        units: (rows,) unit of each, from `unit_codes`: the document that a passage was cut from. None: rows are
            independent.

    Returns:
        `rows`, `units`, `roc_auc` with its 95% interval over units (null where a class is in fewer than 10), `pr_auc_code`,
        `pr_auc_natural_language`, `best_f1` of natural language with `best_threshold`, and the thresholds where a class's
        false positives vanish: from `natural_language_from` on no code is called natural language, up to `code_to` no natural
        language is called code.
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
