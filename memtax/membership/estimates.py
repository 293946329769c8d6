"""From scores to figures: metrics with intervals, the blind baseline beside them, and what they show."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from memtax import statistics
from memtax.membership.blind import blind_p_value, blind_scores, shift, strongest_number
from memtax.membership.set_test import set_test
from memtax.statistics.measures import once

FPRS = (0.01, 0.05)
TPR = 0.95
METRICS = ("auroc", *(f"tpr_at_fpr_{rate:g}" for rate in FPRS), f"fpr_at_tpr_{TPR:g}")
RESAMPLES = 1000
FEWEST = statistics.FEWEST_UNITS
"""Units (documents, texts) of a kind from which there is an interval: fewer do not show how far units differ."""
_LEVEL = 0.05
"""Of the permutation test of a baseline that was chosen among lengths and years."""
_DECADE = 20
_CURVE = tuple(float(f"{10 ** (-place / _DECADE):.4g}") for place in range(3 * _DECADE, -1, -1))
"""False positive rates of a ROC curve."""
ALL = "all"
ABOVE, REACHES, BELOW = "above chance", "reaches chance", "below chance"

Figures = dict[str, Any]


def attack_metrics(
    labels: Sequence[bool],
    scores: Sequence[float | None],
    resamples: int = RESAMPLES,
    units: npt.ArrayLike | None = None,
    unit: str = "texts",
) -> Figures:
    """AUROC, TPR at 1% and 5% FPR and FPR at 95% TPR, with intervals over units.

    The interval of the AUROC is that of `auroc_interval`; the others are bootstrapped over units, members and non-members
    apart. A TPR at FPR a is withheld with fewer than 5 / a units of non-members, where its threshold hangs on a few of them;
    with more it is still optimistic, see `memtax.statistics.fewest_negatives`.

    Args:
        labels: whether each text is a member.
        scores: larger means more likely a member; rows without a score are left out, and counted.
        resamples: bootstrap resamples.
        units: (texts,) unit of each row, from `unit_codes`. None: rows are independent.
        unit: name of the units, for reasons.

    Returns:
        `members`, `nonmembers`, `without_score`, `units` (of members and of non-members), and for each metric `value`, `low`
        and `high`, with a `reason` where one of them is null; null if a class is empty.
    """
    known = np.array([score is not None for score in scores], bool)
    y = np.asarray(labels, bool)[known]
    codes = np.arange(len(y)) if units is None else np.asarray(units)[known]
    found: Figures = {"members": int(y.sum()), "nonmembers": int((~y).sum()), "without_score": int((~known).sum())}
    found["units"] = {name: statistics.count_units(codes[y == kind]) for name, kind in (("members", 1), ("nonmembers", 0))}
    if not y.any() or y.all():
        return found | dict.fromkeys(METRICS)
    values = np.array([score for score in scores if score is not None], np.float64)
    fewest, others = min(found["units"].values()), found["units"]["nonmembers"]
    few = None if fewest >= FEWEST else f"{fewest} {unit} of a kind; an interval needs {FEWEST}"
    area = None if few else statistics.auroc_interval(y, values, codes)
    found["auroc"] = _estimate(statistics.auroc(y, values), area, few)
    points = statistics.operating_evaluators(y, values, FPRS, (TPR,))
    needed = [statistics.fewest_negatives(rate) for rate in FPRS]
    draws = level = None
    if not few:
        level = statistics.expanded_level(0.95, codes, y)
        draws = statistics.resample(points, len(y), resamples, 1024, strata=y, units=codes)
    for place, (name, evaluate) in enumerate(zip(METRICS[1:], points, strict=True)):
        least = needed[place] if place < len(FPRS) else None
        if least is not None and others < least:
            reason = f"withheld: {others} {unit} of non-members; {least} are needed"
            found[name] = {"value": None, "low": None, "high": None, "reason": reason, "needed": least}
            continue
        value = once(evaluate, y)
        drawn = None if draws is None or level is None else statistics.percentile_interval(value, draws[place], level)
        found[name] = _estimate(value, drawn, few)
    return found


def roc(labels: Sequence[bool], scores: Sequence[float | None] | None, negatives: int) -> dict[str, list[float]] | None:
    """The ROC curve, where so many units of non-members support it.

    Args:
        labels: whether each text is a member.
        scores: larger means more likely a member; rows without a score are left out.
        negatives: units of non-members.

    Returns:
        `fpr`, 20 per decade from .001 up to 1 as far as a TPR is not withheld, and the `tpr` at each; None if that leaves less
        than a decade, or without a score of either kind.
    """
    rates = [rate for rate in _CURVE if (statistics.fewest_negatives(rate) or 0) <= negatives]
    if scores is None or len(rates) < _DECADE:
        return None
    known = np.array([score is not None for score in scores], bool)
    y, values = np.asarray(labels, bool)[known], np.array([score for score in scores if score is not None], np.float64)
    if not y.any() or y.all():
        return None
    points = statistics.operating_evaluators(y, values, tuple(rates))
    return {"fpr": rates, "tpr": [once(evaluate, y) for evaluate in points]}


def _estimate(value: float, interval: statistics.Interval | None, reason: str | None = None) -> Figures:
    if interval is None:
        return {"value": value, "low": None, "high": None, "reason": reason}
    return {"value": value, "low": interval.low, "high": interval.high}


def figures(table: pa.Table, columns: Sequence[str], resamples: int = RESAMPLES) -> Figures:
    """Figures of every attack in every domain, and over all texts where there are several domains.

    The unit of intervals, folds and permutations is the document where the table has a column `document`; else the text,
    of a chunk the text that it was cut from.

    Args:
        table: `domain`, `is_member`, `text`, `tokens`, the score columns, and `document` if it is known.
        columns: the score columns.
        resamples: bootstrap resamples.

    Returns:
        Domain to `members` and `nonmembers` (distinct texts), `copies` (further rows of the same texts, which do not count),
        `shared` (distinct texts of both kinds, which do not count either), `units` (`name`, and how many of each kind),
        `attacks` (column to metrics, with `verdict`), `blind` (metrics of the baseline; `feature`: the `name` of the single
        length or year that it is where one does better than the classifier, and the AUROC of the `classifier`), `shift`,
        `set_test`.
    """
    domains = list(dict.fromkeys(table.column("domain").to_pylist()))
    found = {name: _domain(_rows(table, name), columns, resamples) for name in domains}
    return found if len(domains) == 1 else {**found, ALL: _domain(table, columns, resamples)}


def _rows(table: pa.Table, domain: str) -> pa.Table:
    return table.filter(pc.equal(table.column("domain"), domain))


def _domain(table: pa.Table, columns: Sequence[str], resamples: int) -> Figures:
    table, texts, counts = _distinct(table)
    labels = table.column("is_member").to_pylist()
    lengths = [len(ids or ()) for ids in table.column("tokens").to_pylist()]
    unit, codes = units_of(table)
    scores = blind_scores(texts, labels, units=codes, lengths=lengths)
    blind = attack_metrics(labels, [None] * len(labels) if scores is None else scores.tolist(), resamples, codes, unit)
    # What an attack has to beat: the classifier, or a single length or year that does better than it.
    rival, feature = scores, None
    number = strongest_number(texts, labels, lengths)
    if number is not None and (blind["auroc"] is None or statistics.auroc(labels, number[1]) > blind["auroc"]["value"]):
        rival, feature = number[1], {"name": number[0], "classifier": blind["auroc"]}
        blind = attack_metrics(labels, number[1].tolist(), resamples, codes, unit)
    bar, domain = blind["auroc"], table.column("domain").to_pylist()
    blind["p_value"] = blind_p_value(texts, labels, units=codes, strata=domain, lengths=lengths)
    blind["roc"] = roc(labels, None if rival is None else list(rival), blind["units"]["nonmembers"])
    blind["feature"] = feature
    blind["verdict"] = _blind_verdict(bar, feature is not None, blind["p_value"])
    attacks = {}
    for column in columns:
        values = table.column(column).to_pylist()
        metrics = attack_metrics(labels, values, resamples, codes, unit)
        metrics["roc"] = roc(labels, values, metrics["units"]["nonmembers"])
        metrics["above_blind"] = _above(labels, values, rival, codes, resamples)
        fewest = min(metrics["units"].values())
        metrics["verdict"] = verdict(metrics["auroc"], bar, fewest, metrics["above_blind"], unit)
        attacks[column.removeprefix("attack_")] = metrics
    together = set_test(labels, [table.column(column).to_pylist() for column in columns], units=codes, blind=rival)
    if together is not None:
        fewest = min(together["members"], together["nonmembers"])
        shown = verdict(together["auroc"], bar, fewest, together["above_blind"], unit)
        together |= {"blind_p_value": blind["p_value"], "shows_membership": shown["shows_membership"], "verdict": shown}
    return {
        "members": sum(labels),
        "nonmembers": len(labels) - sum(labels),
        **counts,
        "units": {"name": unit, **_count(codes, labels)},
        "attacks": attacks,
        "blind": blind,
        "shift": shift(texts, labels, lengths, codes),
        "set_test": together,
    }


def _distinct(table: pa.Table) -> tuple[pa.Table, list[str], dict[str, int]]:
    """Distinct texts of one kind alone, and how many rows are left out.

    A text that stands in a set several times is one text: its copies would pass for evidence in intervals and in tests. A text
    that is among members and among non-members was trained on whatever its label says, and is evidence for neither.
    """
    labels, texts = table.column("is_member").to_pylist(), _words(table)
    firsts = {pair: row for row, pair in reversed([*enumerate(zip(texts, labels, strict=True))])}
    shared = {text for text, member in firsts if (text, not member) in firsts}
    rows = sorted(row for (text, _), row in firsts.items() if text not in shared)
    copies = len(labels) - len(firsts)
    return table.take(pa.array(rows, pa.int64())), [texts[row] for row in rows], {"copies": copies, "shared": len(shared)}


def units_of(table: pa.Table) -> tuple[str, npt.NDArray[np.int64]]:
    """What the units of resampling are called, and the code of each row's."""
    documents = table.column("document") if "document" in table.column_names else None
    texts, tokens = table.column("text"), table.column("tokens")
    codes = statistics.unit_codes(documents, texts, tokens, len(table))
    if documents is not None and documents.null_count < len(documents):
        return "documents", codes
    return "texts" if texts.null_count < len(texts) or not len(texts) else "sequences", codes


def _count(codes: npt.NDArray[np.int64], labels: Sequence[bool]) -> dict[str, int]:
    y = np.asarray(labels, bool)
    return {"members": statistics.count_units(codes[y]), "nonmembers": statistics.count_units(codes[~y])}


def _words(table: pa.Table) -> list[str]:
    """What a reader without the model has of each row: the text, or token ids, which are words as good as any."""
    tokens = table.column("tokens").to_pylist()
    return [" ".join(map(str, ids or ())) if text is None else text for text, ids in zip(_texts(table), tokens, strict=True)]


def _texts(table: pa.Table) -> list[str | None]:
    """The texts to evaluate: chunks where there are chunks."""
    rows = zip(*(table.column(name).to_pylist() for name in ("text", "chunk_start", "chunk_end")), strict=True)
    return [None if text is None else text[start:end] for text, start, end in rows]


def _above(
    labels: Sequence[bool],
    scores: Sequence[float | None],
    blind: npt.NDArray[np.float64] | None,
    units: npt.NDArray[np.int64],
    resamples: int,
) -> Figures | None:
    """AUROC of the attack minus that of the blind baseline on the same texts, resampled together."""
    known = np.array([score is not None for score in scores], bool)
    y, codes = np.asarray(labels, bool)[known], units[known]
    if blind is None or not y.any() or y.all():
        return None
    values = np.array([score for score in scores if score is not None], np.float64)
    drawn = statistics.paired_bootstrap_difference(
        statistics.auroc, y, values, blind[known], resamples=resamples, strata=y, units=codes
    )
    if drawn is None:
        value = statistics.auroc(y, values) - statistics.auroc(y, blind[known])
        return {"value": value, "low": None, "high": None}
    return {"value": drawn.value, "low": drawn.low, "high": drawn.high}


def chance(interval: Mapping[str, float | None] | None) -> str | None:
    """Whether an AUROC with its interval is above chance (.5), reaches it, or is below; None without an interval."""
    if interval is None or interval["low"] is None or interval["high"] is None:
        return None
    return ABOVE if interval["low"] > 0.5 else BELOW if interval["high"] < 0.5 else REACHES


def verdict(
    attack: Mapping[str, Any] | None,
    blind: Mapping[str, Any] | None,
    fewest: int = FEWEST,
    above_blind: Mapping[str, Any] | None = None,
    unit: str = "texts",
) -> Figures:
    """What an attack's AUROC shows, beside that of the blind baseline.

    Args:
        attack: value, low and high; the bounds are null where there is no interval.
        blind: likewise. Below .5 it is as good as chance, which every attack has to beat anyway.
        fewest: scored units of the rarer kind.
        above_blind: attack minus blind baseline, on shared resamples. None: their intervals must not overlap.
        unit: name of the units.

    Returns:
        `shows_membership`: whether the attack lies above chance and above the blind baseline, null without intervals;
        `chance`: above chance, reaches chance or below chance; and `reason`.
    """
    if attack is None:
        return {"shows_membership": None, "chance": None, "reason": "no score for both kinds of text"}
    case = chance(attack)
    if fewest < FEWEST or case is None:
        reason = f"too few {unit} ({fewest} of a kind) for an interval to be trusted; {FEWEST} are needed"
        if blind is not None:
            reason += f". On these {unit} only: {attack['value']:.3f}, without the model {blind['value']:.3f}"
        return {"shows_membership": None, "chance": None, "reason": reason}
    if blind is None:
        return {"shows_membership": None, "chance": case, "reason": f"too few {unit} for a blind baseline"}
    if case != ABOVE:
        how = "the interval reaches chance (.5)" if case == REACHES else "below chance (.5)"
        return {"shows_membership": False, "chance": case, "reason": f"shows nothing: {how}"}
    if above_blind is None or above_blind["low"] is None:
        beats = blind["high"] is not None and attack["low"] > blind["high"]
    else:
        beats = above_blind["low"] > 0
    if blind["value"] > 0.5 and not beats:
        bounds = "" if blind["low"] is None else f" ({blind['low']:.3f} to {blind['high']:.3f})"
        reason = f"shows nothing: without the model, {blind['value']:.3f}{bounds} is reached"
        return {"shows_membership": False, "chance": case, "reason": reason}
    return {"shows_membership": True, "chance": case, "reason": "above chance and above the blind baseline"}


def _blind_verdict(blind: Mapping[str, Any] | None, chosen: bool, p_value: float | None) -> Figures:
    """What the blind baseline's AUROC says of the two kinds of text.

    A single length or year is chosen on the same texts, which its interval does not know: above chance it is only where the
    permutation test, which chooses anew each time, says so too.
    """
    case = chance(blind)
    if chosen and case == ABOVE and (p_value is None or p_value > _LEVEL):
        case = REACHES
    reasons = {
        ABOVE: "above chance: the texts alone separate the two sets, so they differ by more than membership",
        REACHES: "reaches chance: the texts alone do not separate the two sets",
        BELOW: "below chance: the texts alone do not separate the two sets",
        None: "never sees the model",
    }
    return {"chance": case, "reason": reasons[case]}


__all__ = ["ALL", "METRICS", "attack_metrics", "chance", "figures", "set_test", "units_of", "verdict"]
