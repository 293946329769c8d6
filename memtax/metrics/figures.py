"""Figures of the metrics, each with its interval or the reason why that is withheld."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memtax.metrics.inputs import flags, known, units_of
from memtax.predictor.extraction_rates import extraction_rates
from memtax.progress import numbered
from memtax.statistics import (
    FEWEST_UNITS,
    Interval,
    Units,
    auroc_interval,
    count_units,
    expanded_level,
    fewest_negatives,
    fewest_units,
    percentile_interval,
    resample,
    share,
)
from memtax.statistics.measures import Evaluator, auroc, evaluator, once
from memtax.statistics.operating import operating_evaluators


def counted(units: Units | None) -> dict[str, int]:
    """`documents`: their number, if given."""
    return {} if units is None else {"documents": units.count}


def interval(name: str, found: Interval) -> dict[str, float | None]:
    """An estimate as `name`, `name_low` and `name_high`."""
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def bootstrap(
    evaluators: Mapping[str, Evaluator],
    labels: Sequence[bool],
    resamples: int,
    level: float,
    seed: int,
    stratified: bool = True,
    units: Units | None = None,
) -> dict[str, Any]:
    """Several statistics with percentile bootstrap intervals on shared resamples.

    Args:
        evaluators: name to a statistic of the rows, from `memtax.statistics`.
        labels: one per row.
        resamples: number of resamples; 0: only the statistics.
        level: coverage of the intervals.
        seed: random seed.
        stratified: whether each class keeps its size in every resample.
        units: resample whole units; with fewer than 10 (per class) intervals are null with a reason. None: independent rows.
    """
    array = np.asarray(labels, np.float64)
    values = {name: once(evaluate, array) for name, evaluate in evaluators.items()}
    if not resamples:
        return dict(values)
    strata, codes = array if stratified else None, None if units is None else units.codes
    if codes is not None and (fewest := fewest_units(codes, strata)) < FEWEST_UNITS:
        return {key: value for name, number in values.items() for key, value in withheld(name, number, fewest).items()}
    level = level if codes is None else expanded_level(level, codes, strata)
    draws = resample(list(evaluators.values()), len(array), resamples, seed, strata, codes)
    result: dict[str, Any] = {}
    for (name, value), drawn in zip(values.items(), draws, strict=True):
        result |= interval(name, percentile_interval(value, drawn, level))
    return result


def withheld(name: str, value: float, documents: int) -> dict[str, Any]:
    """An estimate whose interval is null because there are too few documents."""
    reason = f"no interval: {numbered(documents, 'document')} where {FEWEST_UNITS} are needed"
    return {name: value, f"{name}_low": None, f"{name}_high": None, f"{name}_reason": reason}


def area(
    name: str, labels: Sequence[bool], values: Sequence[float], resamples: int, level: float, units: Units | None = None
) -> dict[str, Any]:
    """AUROC with its interval (`auroc_interval`), unless no resamples are requested, or the reason why it is withheld."""
    result: dict[str, Any] = {name: once(evaluator(auroc, labels, values), np.asarray(labels, np.float64))}
    if resamples:
        found = auroc_interval(labels, values, None if units is None else units.codes, level)
        result |= {f"{name}_low": found.low if found else None, f"{name}_high": found.high if found else None}
        if found is None:
            kind = "" if units is None else "documents of "
            result[f"{name}_reason"] = f"no interval: fewer than {FEWEST_UNITS} {kind}members or non-members"
    return result


def operating(
    labels: Sequence[bool],
    values: Sequence[float],
    fprs: Sequence[float],
    tprs: Sequence[float],
    resamples: int,
    level: float,
    seed: int,
    units: Units | None = None,
) -> dict[str, Any]:
    """AUROC, TPR at each of `fprs` and FPR at each of `tprs`, with intervals, or the reasons why they are withheld."""
    outside = ~np.asarray(labels, bool)
    others = int(outside.sum()) if units is None else count_units(units.codes[outside])
    result = area("auroc", labels, values, resamples, level, units)
    names = [*(f"tpr_at_fpr_{fpr:g}" for fpr in fprs), *(f"fpr_at_tpr_{tpr:g}" for tpr in tprs)]
    points = dict(zip(names, operating_evaluators(labels, values, tuple(fprs), tuple(tprs)), strict=True))
    for name, fpr in zip(names, fprs, strict=False):
        needed = fewest_negatives(fpr)
        if needed is None or others < needed:
            least = "no number is enough" if needed is None else f"{needed:,} are needed"
            del points[name]
            result |= {name: None, **({f"{name}_low": None, f"{name}_high": None} if resamples else {})}
            kind = "" if units is None else "documents of "
            result[f"{name}_reason"] = f"withheld: {others:,} {kind}non-members; {least}"
    return {**result, **bootstrap(points, labels, resamples, level, seed, units=units)} if points else result


def separation(
    labels: Sequence[bool],
    values: Sequence[float],
    resamples: int,
    level: float,
    seed: int,
    units: Units | None = None,
) -> dict[str, Any]:
    """AUROC, TPR at 5% FPR and FPR at 95% TPR of scores that are larger for members, with intervals."""
    return operating(labels, values, (0.05,), (0.95,), resamples, level, seed, units)


def aurocs(
    scores: Mapping[str, Sequence[float | None]],
    references: Sequence[float],
    resamples: int,
    level: float,
    units: Units | None = None,
) -> dict[str, Any]:
    """AUROC of each score, over the rows that have it, as `auroc_{score}` with its interval."""
    result: dict[str, Any] = {}
    for name, column in scores.items():
        rows, values = known(column)
        labels = flags([references[row] for row in rows], "references")
        result |= area(f"auroc_{name}", labels, values, resamples, level, None if units is None else units[rows])
    return result


def rate(name: str, outcomes: Sequence[bool] | NDArray[np.bool_], level: float, units: Units | None = None) -> dict[str, Any]:
    """A rate with its interval, over documents if given, otherwise for independent rows (Clopper & Pearson 1934)."""
    array = np.asarray(outcomes, bool)
    return rate_of(name, share(array, units or Units.of_rows(len(array)), level), units)


def rate_of(name: str, row: Mapping[str, Any], units: Units | None) -> dict[str, Any]:
    """A row of `statistics.share` as `name`, `name_low`, `name_high` and, if its interval is withheld, `name_reason`."""
    low, high = ("low_independent", "high_independent") if units is None else ("low", "high")
    reason = {f"{name}_reason": row["reason"]} if units is not None and row["reason"] else {}
    return {name: row["rate"], f"{name}_low": row[low], f"{name}_high": row[high], **reason}


def rates_by_category(
    memorized: Sequence[bool],
    categories: Sequence[int | None],
    level: float = 0.95,
    documents: Sequence[Any] | None = None,
) -> dict[str, Any]:
    """The rates of `extraction_rates` under flat names: `all_rate`, `recitation_sequences`, `recitation_rate_low` and so on.

    Without documents, sequences are assumed to be independent, with Clopper-Pearson intervals. With documents, intervals are
    over documents (None if a category has fewer than 10), and `all_documents` and so on are their numbers.
    """
    table = pa.table({"is_memorized": memorized, "taxonomy": pa.array(categories, pa.int64())})
    units = units_of(documents)
    result: dict[str, Any] = {}
    for name, row in extraction_rates(table, level=level, units=units).items():
        low, high = ("low", "high") if documents is not None else ("low_independent", "high_independent")
        result |= {f"{name}_{key}": row[key] for key in ("sequences", "memorized", "rate")}
        result |= {f"{name}_rate_low": row[low], f"{name}_rate_high": row[high]}
        if documents is not None:
            result[f"{name}_documents"] = row["units"]
            result |= {f"{name}_rate_reason": row["reason"]} if row["reason"] else {}
    return result
