"""How well a classifier separates code from natural language: figures, thresholds and curves from labeled texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from memtax import statistics
from memtax.errors import MemtaxError
from memtax.files import atomic_path
from memtax.filters._passages import LABELS
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


def draw_figure(folder: Path, name: str, labels: Sequence[int], scores: Sequence[float], found: dict[str, Any]) -> None:
    """ROC curve, precision and recall of both classes, and F1 and false-positive rates by threshold (PNG and SVG)."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from sklearn.metrics import precision_recall_curve, roc_curve

    prose, score = 1 - np.asarray(labels), np.asarray(scores)
    figure, (roc, pr, cut) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    rates = roc_curve(prose, score)
    roc.plot(rates[0], rates[1], label=f"ROC-AUC {found['roc_auc']['value']:.3f}")
    roc.set(xlabel="false-positive rate", ylabel="true-positive rate", title="Natural language against code")
    for target, values, label, area in (
        (prose, score, LABELS[0], found["pr_auc_natural_language"]),
        (1 - prose, -score, LABELS[1], found["pr_auc_code"]),
    ):
        precision, recall, _ = precision_recall_curve(target, values)
        pr.plot(recall, precision, label=f"{label}, PR-AUC {area:.3f}")
    pr.set(xlabel="recall", ylabel="precision", title="Precision and recall")
    at = np.linspace(0, 1, 201)
    cut.plot(at, [statistics.f1_score(prose, (score >= t).astype(int)) for t in at], label="F1 of natural language")
    cut.plot(at, [(score[prose == 0] >= t).mean() for t in at], label="code called natural language")
    cut.plot(at, [(score[prose == 1] <= t).mean() for t in at], label="natural language called code")
    cut.axvline(found["code_to"], color="grey", linestyle=":")
    cut.axvline(found["natural_language_from"], color="grey", linestyle="--")
    cut.set(xlabel="threshold on P(natural language)", title="Thresholds (lines: where false positives vanish)")
    for axes in (roc, pr, cut):
        axes.legend(fontsize="small")
    figure.suptitle(f"{name} ({found['rows']:,})")
    for ending in ("png", "svg"):
        with atomic_path(folder / f"{name.replace(' ', '_')}.{ending}") as temporary:
            figure.savefig(temporary, format=ending, dpi=150)
    plt.close(figure)
