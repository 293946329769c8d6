"""Perplexity against the number of duplicates, for memorized sequences and the others, and how far the two lie apart."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memtax import statistics
from memtax.predictor.copies import units_of
from memtax.predictor.factors import FROM_SCORES, read_target
from memtax.statistics.measures import Evaluator

Array = NDArray[np.float64]

BINS = (0, 1, 2, 3, 6, 11, 101, 1001, 10001)
"""Least number of duplicates of each bin; the last is open. From 6 on a sequence is recitation, unless told otherwise."""
CELLS = 5
"""Cells of the histograms whose divergence is taken, of equal numbers of sequences of both kinds together."""
PSEUDOCOUNT = 0.5
"""Sequences added to each cell, so that an empty one has a finite logarithm (Krichevsky & Trofimov 1981)."""
FEWEST = 10
"""Fewer memorized sequences, or others, than this in a bin have no median and no divergence."""
RESAMPLES = 1000
SEED = 1024


def perplexities_by_duplicates(table: pa.Table, target: str = "is_memorized") -> dict[str, list[dict[str, Any]]]:
    """Medians of perplexity, and the divergence between memorized sequences and the others, by number of duplicates.

    Intervals (95%) are bootstraps over documents, or over what stands for them (`memtax.predictor.copies.units_of`).

    Args:
        table: `sequence_duplicates`, the target, and those of `FROM_SCORES` that are known.
        target: boolean column.

    Returns:
        `medians`: for each perplexity, bin (`from`, `to`, None for no end) and group (`memorized`, `rest`): `sequences`,
        `unit`, `units`, `median`, `low`, `high`, and `reason`, why one of them is None. `divergence`: for each perplexity and
        bin the numbers of sequences `memorized` and `rest`, `kl` (nats, `divergence_evaluator`; less the bias that noise
        adds, where there is an interval) and the same others. Bins
        without a sequence are left out; both are empty without the columns.
    """
    names = [name for name in FROM_SCORES if name in table.column_names]
    if "sequence_duplicates" not in table.column_names or not names:
        return {"medians": [], "divergence": []}
    labels, known = read_target(table, target)
    units, duplicates = units_of(table), table.column("sequence_duplicates")
    counts = duplicates.fill_null(-1).to_numpy().astype(np.int64)
    values = np.column_stack([table.column(name).to_numpy(zero_copy_only=False).astype(float) for name in names])
    usable = known & np.isfinite(values).all(axis=1)
    medians, divergences = [], []
    for bounds, inside in _bins(counts):
        rows = usable & inside
        if not rows.any():
            continue
        for group, label in (("memorized", True), ("rest", False)):
            own = rows & (labels == label)
            measured = _medians(values[own], units[own])
            medians += [
                {"perplexity": name, **bounds, "group": group, **row} for name, row in zip(names, measured, strict=True)
            ]
        measured = _divergences(labels[rows], values[rows], units[rows])
        divergences += [{"perplexity": name, **bounds, **row} for name, row in zip(names, measured, strict=True)]
    return {"medians": medians, "divergence": divergences}


def _bins(counts: NDArray[np.int64]) -> Iterator[tuple[dict[str, int | None], NDArray[np.bool_]]]:
    ends = [start - 1 for start in BINS[1:]]
    for start, end in zip(BINS, [*ends, None], strict=True):
        yield {"from": start, "to": end}, (counts >= start) & (counts <= (np.iinfo(np.int64).max if end is None else end))


def _medians(values: Array, units: statistics.Units) -> list[dict[str, Any]]:
    """The median of each column of values (rows, perplexities), all from the same resamples of units."""
    facts = {"sequences": len(values), "unit": units.name, "units": units.count}
    nothing = dict.fromkeys(("median", "low", "high"))
    if len(values) < FEWEST:
        return [{**facts, **nothing, "reason": f"{len(values)} sequences, {FEWEST} needed"}] * values.shape[1]
    points = [float(value) for value in np.median(values, axis=0)]
    if reason := _few(units.count, units.name):
        return [{**facts, **nothing, "median": point, "reason": reason} for point in points]
    evaluators = [median_evaluator(column) for column in values.T]
    draws = statistics.resample(evaluators, len(values), RESAMPLES, SEED, units=units.codes)
    level = statistics.expanded_level(0.95, units.codes)
    rows = []
    for point, own in zip(points, draws, strict=True):
        interval = statistics.percentile_interval(point, own, level)
        rows.append({**facts, "median": point, "low": interval.low, "high": interval.high, "reason": None})
    return rows


def _few(count: int, name: str, of: str = "") -> str | None:
    """Why an interval over so few units is withheld; None if it is not."""
    if count >= statistics.FEWEST_UNITS:
        return None
    return f"{count} {name}{'' if count == 1 else 's'}{of}, {statistics.FEWEST_UNITS} needed"


def median_evaluator(values: Array) -> Evaluator:
    """The median of values (rows,) as a function of row weights (resamples, rows), for `statistics.resample`."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]

    def evaluate(weights: Array) -> Array:
        below = np.cumsum(weights[:, order], axis=1)
        half = below[:, -1:] / 2
        lower, upper = (below >= half).argmax(axis=1), (below > half).argmax(axis=1)
        middle: Array = (ordered[lower] + ordered[upper]) / 2
        return middle

    return evaluate


def _divergences(labels: NDArray[np.bool_], values: Array, units: statistics.Units) -> list[dict[str, Any]]:
    """The divergence in each column of values (rows, perplexities), all from the same resamples of units."""
    memorized = int(labels.sum())
    rest = len(labels) - memorized
    sides = {label: units[labels == label].count for label in (True, False)}
    facts = {"memorized": memorized, "rest": rest, "unit": units.name, "units": units.count}
    nothing = dict.fromkeys(("kl", "low", "high"))
    if min(memorized, rest) < FEWEST:
        few = f"{memorized} memorized and {rest} other sequences, {FEWEST} of each needed"
        return [{**facts, **nothing, "reason": few}] * values.shape[1]
    evaluators = [divergence_evaluator(labels, cells_of(column)) for column in values.T]
    points = [float(evaluate(np.ones((1, len(labels))))[0]) for evaluate in evaluators]
    fewest = min(sides, key=sides.__getitem__)
    of = f" with {'a memorized' if fewest else 'another'} sequence"
    if reason := _few(sides[fewest], units.name, of):
        return [{**facts, **nothing, "kl": point, "reason": reason} for point in points]
    draws = statistics.resample(evaluators, len(labels), RESAMPLES, SEED, units=units.codes)
    level = statistics.expanded_level(0.95, units.codes)
    return [{**facts, **_corrected(point, own, level), "reason": None} for point, own in zip(points, draws, strict=True)]


def _corrected(value: float, draws: Array, level: float) -> dict[str, float]:
    """A divergence and its interval without the bias that noise adds.

    Noise makes a divergence larger, in the data as in resamples, by about what the resamples' mean exceeds the value. The
    lower bound is without both biases; the upper keeps that of the data, as the correction is itself an estimate.
    """
    bias = float(draws.mean()) - value
    interval = statistics.percentile_interval(value, draws, level)
    corrected = max(value - bias, 0.0)
    low = min(max(interval.low - 2 * bias, 0.0), corrected)
    return {"kl": corrected, "low": low, "high": max(interval.high - bias, corrected)}


def cells_of(values: Array) -> NDArray[np.int64]:
    """The cell (rows,) of each value: `CELLS` of equal numbers of rows; equal values share a cell."""
    edges = np.quantile(values, np.arange(1, CELLS) / CELLS)
    return np.searchsorted(edges, values, side="right").astype(np.int64)


def divergence_evaluator(labels: NDArray[np.bool_], cells: NDArray[np.int64]) -> Evaluator:
    """The symmetric Kullback-Leibler divergence KL(p, q) + KL(q, p) in nats (Jeffreys 1946), as a function of row weights.

    p and q are the shares of memorized and of other rows in each cell, with `PSEUDOCOUNT` rows more in each.

    Args:
        labels: (rows,) whether memorized.
        cells: (rows,) from `cells_of`.

    Returns:
        Weights (resamples, rows) to divergences (resamples,).
    """
    held = np.zeros((len(labels), 2, CELLS))
    held[np.arange(len(labels)), labels.astype(np.int64), cells] = 1
    flat = held.reshape(len(labels), -1)

    def evaluate(weights: Array) -> Array:
        counts = (weights @ flat).reshape(len(weights), 2, CELLS) + PSEUDOCOUNT
        shares = counts / counts.sum(axis=2, keepdims=True)
        divergence: Array = ((shares[:, 1] - shares[:, 0]) * np.log(shares[:, 1] / shares[:, 0])).sum(axis=1)
        return divergence

    return evaluate
