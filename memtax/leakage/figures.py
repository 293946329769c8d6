"""From scores to figures: metrics with intervals, the blind baseline beside them, and what they show."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from memtax import statistics
from memtax.leakage.blind import blind_scores, shift
from memtax.statistics.measures import evaluator, once

FPRS = (0.01, 0.05)
TPR = 0.95
METRICS = ("auroc", *(f"tpr_at_fpr_{rate:g}" for rate in FPRS), f"fpr_at_tpr_{TPR:g}")
RESAMPLES = 1000
FEWEST = 10
"""Texts of a kind from which a bootstrap interval is taken at its word: all pairs of 3 and 3 are in order by luck, at times."""
ALL = "all"

Figures = dict[str, Any]


def attack_metrics(labels: Sequence[bool], scores: Sequence[float | None], resamples: int = RESAMPLES) -> Figures:
    """AUROC, TPR at 1% and 5% FPR and FPR at 95% TPR, with bootstrap intervals that keep the class sizes.

    Args:
        labels: whether each text is a member.
        scores: larger means more likely a member; rows without a score are left out, and counted.
        resamples: bootstrap resamples.

    Returns:
        `members`, `nonmembers` and `without_score`, and for each metric `value`, `low` and `high`; null if a class is empty.
    """
    known = np.array([score is not None for score in scores], bool)
    y = np.asarray(labels, bool)[known]
    found: Figures = {"members": int(y.sum()), "nonmembers": int((~y).sum()), "without_score": int((~known).sum())}
    if not y.any() or y.all():
        return found | dict.fromkeys(METRICS)
    values = np.array([score for score in scores if score is not None], np.float64)
    points = statistics.operating_evaluators(y, values, FPRS, (TPR,))
    evaluators = [evaluator(statistics.auroc, y, values), *points]
    draws = statistics.resample(evaluators, len(y), resamples, 1024, strata=y)
    for name, evaluate, drawn in zip(METRICS, evaluators, draws, strict=True):
        interval = statistics.percentile_interval(once(evaluate, y), drawn)
        found[name] = {"value": interval.value, "low": interval.low, "high": interval.high}
    return found


def figures(table: pa.Table, columns: Sequence[str], resamples: int = RESAMPLES) -> Figures:
    """Figures of every attack in every domain, and over all texts where there are several domains.

    Args:
        table: `domain`, `is_member`, `text`, `tokens` and the score columns.
        columns: the score columns.
        resamples: bootstrap resamples.

    Returns:
        Domain to `members` and `nonmembers` (distinct texts), `copies` (further rows of the same texts, which do not count),
        `attacks` (column to metrics, with `verdict`), `blind`, `shift`, `set_test`.
    """
    domains = list(dict.fromkeys(table.column("domain").to_pylist()))
    found = {name: _domain(_rows(table, name), columns, resamples) for name in domains}
    return found if len(domains) == 1 else {**found, ALL: _domain(table, columns, resamples)}


def _rows(table: pa.Table, domain: str) -> pa.Table:
    import pyarrow.compute as pc

    return table.filter(pc.equal(table.column("domain"), domain))


def _domain(table: pa.Table, columns: Sequence[str], resamples: int) -> Figures:
    everyone, texts = table.column("is_member").to_pylist(), _words(table)
    # A text that stands in a set several times is one text: its copies would pass for evidence in intervals and in tests.
    firsts = {pair: row for row, pair in reversed([*enumerate(zip(texts, everyone, strict=True))])}
    rows = sorted(firsts.values())
    table, texts = table.take(pa.array(rows, pa.int64())), [texts[row] for row in rows]
    labels = table.column("is_member").to_pylist()
    tokens = table.column("tokens").to_pylist()
    blind = blind_scores(texts, labels)
    beside = attack_metrics(labels, [None] * len(labels) if blind is None else blind.tolist(), resamples)
    scores = {column: table.column(column).to_pylist() for column in columns}
    attacks = {}
    for column, values in scores.items():
        metrics = attack_metrics(labels, values, resamples)
        fewest = min(metrics["members"], metrics["nonmembers"])
        attacks[column.removeprefix("attack_")] = metrics | {"verdict": verdict(metrics["auroc"], beside["auroc"], fewest)}
    return {
        "members": sum(labels),
        "nonmembers": len(labels) - sum(labels),
        "copies": len(everyone) - len(labels),
        "attacks": attacks,
        "blind": beside,
        "shift": shift(texts, labels, [len(ids or ()) for ids in tokens], resamples),
        "set_test": _set_test(labels, list(scores.values()), blind),
    }


def _words(table: pa.Table) -> list[str]:
    """What a reader without the model has of each row: the text, or token ids, which are words as good as any."""
    tokens = table.column("tokens").to_pylist()
    return [" ".join(map(str, ids or ())) if text is None else text for text, ids in zip(_texts(table), tokens, strict=True)]


def _texts(table: pa.Table) -> list[str | None]:
    """The texts that are meant: chunks where there are chunks."""
    rows = zip(*(table.column(name).to_pylist() for name in ("text", "chunk_start", "chunk_end")), strict=True)
    return [None if text is None else text[start:end] for text, start, end in rows]


def verdict(attack: Mapping[str, float] | None, blind: Mapping[str, float] | None, fewest: int = FEWEST) -> Figures:
    """What an attack's AUROC shows, beside that of the blind baseline.

    Args:
        attack: value, low and high.
        blind: likewise.
        fewest: scored texts of the rarer kind.

    Returns:
        `shows_membership`: whether its interval lies above chance and above the blind baseline's; and `reason`.
    """
    if attack is None:
        return {"shows_membership": None, "reason": "no score for both kinds of text"}
    if fewest < FEWEST:
        return {"shows_membership": None, "reason": f"too few texts ({fewest} of a kind) for an interval to be trusted"}
    if blind is None:
        return {"shows_membership": None, "reason": "too few texts for a blind baseline"}
    if attack["low"] <= 0.5:
        return {"shows_membership": False, "reason": "shows nothing: the interval reaches chance (.5)"}
    if attack["low"] <= blind["high"]:
        reason = (
            f"shows nothing: without the model, {blind['value']:.3f} ({blind['low']:.3f} to {blind['high']:.3f}) is reached"
        )
        return {"shows_membership": False, "reason": reason}
    return {"shows_membership": True, "reason": "above chance and above the blind baseline"}


def _set_test(
    labels: Sequence[bool], columns: Sequence[Sequence[float | None]], blind: npt.NDArray[np.float64] | None
) -> Figures | None:
    """The set test, and the same test of what is known without the model: if that is significant, the other shows nothing."""
    found = set_test(labels, columns)
    if found is None:
        return None
    without = None if blind is None else set_test(labels, [blind.tolist()])
    p = None if without is None else without["p_value"]
    return {**found, "blind_p_value": p, "shows_membership": None if p is None else found["p_value"] < 0.05 <= p}


def set_test(labels: Sequence[bool], columns: Sequence[Sequence[float | None]], seed: int = 1024) -> Figures | None:
    """Dataset inference (Maini et al. 2024): were the members, as a set, trained on?

    A ridge regression combines the scores on a random half of the texts; a one-sided Welch t-test compares members with
    non-members of the other half. It presumes that both are of one distribution: see the blind baseline.

    Args:
        labels: whether each text is a (suspected) member.
        columns: score columns, each (texts,); missing scores take the fitted half's mean.
        seed: of the split.

    Returns:
        `p_value`, `statistic`, `members` and `nonmembers` tested; None with fewer than 4 texts of a kind or no usable score.
    """
    from scipy.stats import ttest_ind
    from sklearn.linear_model import RidgeCV

    y = np.asarray(labels, bool)
    rng = np.random.default_rng(seed)
    fitted = np.zeros(len(y), bool)
    for kind in (True, False):
        rows = rng.permutation(np.flatnonzero(y == kind))
        if len(rows) < 4:
            return None
        fitted[rows[: len(rows) // 2]] = True
    x = _scaled(np.array([[np.nan if v is None else v for v in column] for column in columns], np.float64).T, fitted)
    if not x.shape[1]:
        return None
    combined = RidgeCV(alphas=np.logspace(-1, 5, 13)).fit(x[fitted], y[fitted].astype(np.float64)).predict(x[~fitted])
    tested = y[~fitted]
    if np.ptp(combined) == 0:
        return None
    result = ttest_ind(combined[tested], combined[~tested], equal_var=False, alternative="greater")
    counts = {"members": int(tested.sum()), "nonmembers": int((~tested).sum())}
    return {"p_value": float(result.pvalue), "statistic": float(result.statistic), **counts}


def _scaled(x: npt.NDArray[np.float64], fitted: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Columns scaled by the rows that are fitted; constant or empty ones are dropped, extremes are clipped."""
    x = np.where(np.isfinite(x), x, np.nan)
    x = x[:, [bool(np.isfinite(column[fitted]).sum() > 1 and np.nanstd(column[fitted]) > 0) for column in x.T]]
    if not x.shape[1]:
        return x
    scaled = (x - np.nanmean(x[fitted], axis=0)) / np.nanstd(x[fitted], axis=0)
    return np.nan_to_num(np.clip(scaled, -5, 5))
