"""Figures of the classifier of code and natural language."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from memtax import statistics
from memtax.report.figures import GREY, panels, style


def evaluation(labels: Sequence[int], scores: Sequence[float], found: Mapping[str, Any], names: Sequence[str]) -> Any:
    """ROC curve, precision and recall of both classes, and F1 and false-positive rates by threshold, on three axes.

    Args:
        labels: label of each passage, 0 or 1.
        scores: probability of label 0 for each passage.
        found: an entry of `evaluation.json`, as returned by `evaluate`.
        names: names of the two labels.
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    first, second = names
    prose, score = 1 - np.asarray(labels), np.asarray(scores)
    with style():
        axes = panels(None, 3.4, 1, 3)
        roc, pr, cut = axes[0]
        rates = roc_curve(prose, score)
        roc.plot(rates[0], rates[1], label=f"ROC-AUC {found['roc_auc']['value']:.3f}")
        roc.set(xlabel="false-positive rate", ylabel="true-positive rate", title="ROC curve")
        sides = ((prose, score, first, "pr_auc_natural_language"), (1 - prose, -score, second, "pr_auc_code"))
        for target, values, label, area in sides:
            precision, recall, _ = precision_recall_curve(target, values)
            pr.plot(recall, precision, label=f"{label}, PR-AUC {found[area]:.3f}")
        pr.set(xlabel="recall", ylabel="precision", title="Precision and recall")
        at = np.linspace(0, 1, 201)
        cut.plot(at, [statistics.f1_score(prose, (score >= t).astype(int)) for t in at], label=f"F1 of {first}")
        cut.plot(at, [(score[prose == 0] >= t).mean() for t in at], label=f"{second} called {first}")
        cut.plot(at, [(score[prose == 1] <= t).mean() for t in at], label=f"{first} called {second}")
        cut.axvline(found["code_to"], color=GREY, linestyle=":")
        cut.axvline(found["natural_language_from"], color=GREY, linestyle="--")
        cut.set(xlabel=f"threshold on P({first})", title="Thresholds (lines: no false positives)")
        for panel in axes[0]:
            panel.legend(fontsize="small")
    return axes
