"""A partition grown rule by rule, of any depth, while each rule pays on validation rows beyond the luck of the search."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memtax.files import write_json
from memtax.predictor.groups import Part, Problem, losses
from memtax.predictor.logistic import Array
from memtax.predictor.partition_search import SearchConfig, judge
from memtax.predictor.partitions import Codes, Group, members
from memtax.progress import progress_bar
from memtax.statistics import FEWEST_UNITS

GRID = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Quantiles a rule may ask about."""
ALPHA = 0.05
RESAMPLES = 2000
MOST_RULES = 16
_ROWS = 4096


@dataclass(frozen=True)
class Candidate:
    """A group to be divided: rows at or above a factor's threshold from those below.

    Attributes:
        leaf: place of the group among the leaves.
        upper: rows at or above the threshold.
        lower: rows below it.
    """

    leaf: int
    upper: Group
    lower: Group


@dataclass(frozen=True)
class Gains:
    """Gains of candidates on validation rows: mean log loss saved (candidates,) in nats, and the adjusted p of the best."""

    mean: Array
    best: int
    p: float


def grow(problem: Problem, config: SearchConfig, alpha: float = ALPHA, most: int = MOST_RULES) -> dict[str, Any]:
    """Start with one group and divide, each time, the group and place that gain most.

    A rule stays if its gain in validation log loss is significant: the paired bootstrap draws validation units with Poisson
    weights that both partitions share, and compares the studentised gain with the largest one among all candidates of the
    step (max-T; Westfall & Young 1993), times all candidates tried so far over those of this step (Bonferroni between
    steps). Test rows are read once, at the end.

    Args:
        problem: prepared with the quantiles that rules may ask about (`GRID`).
        config: target, seed and resamples of the final judgement.
        alpha: the largest corrected p of a rule that stays.
        most: rules after which growth ends anyway.

    Returns:
        JSON-ready `rules` (in order: `group` that was divided, `factor`, `quantile`, `threshold`, `gain`, `p`), `stopped`
        (the best candidate that was refused, or None), `tried`, `groups` (conditions, rows and coefficients) and `metrics`.
    """
    leaves: list[Group] = [()]
    rules: list[dict[str, Any]] = []
    tried, stopped = 0, None
    with progress_bar("rules", None, "candidates", unit_scale=False) as bar:
        while len(rules) < most:
            candidates = _candidates(problem, leaves)
            if not candidates:
                break
            tried += len(candidates)
            bar.update(len(candidates))
            gains = _gains(problem, leaves, candidates, config.seed + len(rules))
            chosen = candidates[gains.best]
            factor, quantile, _ = chosen.upper[-1]
            gain, p = float(gains.mean[gains.best]), min(1.0, gains.p * tried / len(candidates))
            rule: dict[str, Any] = {
                "group": _name(chosen.leaf),
                "factor": problem.split_on[factor],
                "quantile": problem.quantiles[quantile],
                "threshold": float(problem.bounds[factor, quantile]),
                "gain": gain,
                "p": p,
                "candidates": len(candidates),
            }
            if p > alpha or gain <= 0:
                stopped = rule
                break
            rules.append(rule)
            leaves = [*leaves[: chosen.leaf], chosen.upper, *leaves[chosen.leaf + 1 :], chosen.lower]
    assigned = assign(problem.parts["test"].codes, leaves)
    return {
        "rules": rules,
        "stopped": stopped,
        "tried": tried,
        "alpha": alpha,
        "groups": [_describe(problem, place, leaf) for place, leaf in enumerate(leaves)],
        "metrics": judge(problem, {"partition": leaves}, assigned, config),
    }


def assign(codes: Codes, leaves: Sequence[Group]) -> NDArray[np.int64]:
    """Group of each row of codes (factors, rows)."""
    groups = np.zeros(codes.shape[1], np.int64)
    for place, leaf in enumerate(leaves):
        groups[members(codes, leaf)] = place
    return groups


def save(found: dict[str, Any], folder: Path) -> None:
    """Write `greedy.json`."""
    write_json(folder / "greedy.json", found)


def _name(place: int) -> str:
    return chr(ord("A") + place)


def _candidates(problem: Problem, leaves: Sequence[Group]) -> list[Candidate]:
    """Divisions whose both sides have enough training rows for a model of their own."""
    codes = problem.parts["train"].codes
    found = []
    for place, leaf in enumerate(leaves):
        own = codes[:, members(codes, leaf)]
        for factor in range(len(problem.split_on)):
            # Equal thresholds divide alike: only the last of them (the one that a code can stop at) is tried.
            for quantile in np.unique(own[factor]):
                if quantile > 0:
                    condition = (factor, int(quantile) - 1)
                    found.append(Candidate(place, (*leaf, (*condition, True)), (*leaf, (*condition, False))))
    fits = problem.fit_groups(group for one in found for group in (one.upper, one.lower))
    return [one for one in found if fits[one.upper].reason is None and fits[one.lower].reason is None]


def _gains(problem: Problem, leaves: Sequence[Group], candidates: Sequence[Candidate], seed: int) -> Gains:
    """Bootstrap all candidates on the same units, a block of whole units at a time: memory does not grow with the rows.

    Below 10 units nothing is significant.
    """
    part = problem.parts["validation"]
    order = np.argsort(part.units.codes, kind="stable")
    starts = np.flatnonzero(np.diff(part.units.codes[order], prepend=-1))
    rng = np.random.default_rng(seed)
    sums, squares, crossed = np.zeros((3, len(candidates)))
    drawn = np.zeros((RESAMPLES, len(candidates)))
    weight, lengths = np.zeros((RESAMPLES, 1)), 0.0
    # Blocks end where a unit does.
    bounds = _blocks(starts, len(order))
    for first, last in pairwise(bounds):
        rows = order[first:last]
        block = Part(part.values[rows], part.labels[rows], part.codes[:, rows], part.units[rows])
        own = starts[(starts >= first) & (starts < last)] - first
        gained = np.add.reduceat(_block(problem, block, leaves, candidates), own, axis=0)
        sizes = np.diff(own, append=last - first).astype(np.float64)
        sums += gained.sum(axis=0)
        squares += (gained * gained).sum(axis=0)
        crossed += sizes @ gained
        lengths += float((sizes * sizes).sum())
        weights = rng.poisson(1.0, (RESAMPLES, len(gained))).astype(np.float64)
        drawn += weights @ gained
        weight += (weights @ sizes)[:, None]
    total = len(part.labels)
    mean = sums / total
    # The sum over units of (gain - mean x rows) squared.
    error = np.sqrt(np.maximum(squares - 2 * mean * crossed + mean * mean * lengths, 0)) / total
    moving = error > 0
    if not moving.any() or len(starts) < FEWEST_UNITS:
        return Gains(mean, 0, 1.0)
    best = int(np.argmax(np.where(moving, mean, -np.inf)))
    centered = (drawn[:, moving] - weight * mean[moving]) / total / error[moving]
    exceed = (centered.max(axis=1) >= mean[best] / error[best]).sum()
    return Gains(mean, best, float((1 + exceed) / (1 + RESAMPLES)))


def _blocks(starts: NDArray[np.int64], rows: int) -> list[int]:
    """Bounds of blocks of at least `_ROWS` rows, each where a unit starts, the last at the end."""
    bounds = [0]
    for start in starts.tolist():
        if start - bounds[-1] >= _ROWS:
            bounds.append(start)
    return [*bounds, rows]


def _block(problem: Problem, block: Part, leaves: Sequence[Group], candidates: Sequence[Candidate]) -> Array:
    """Log loss that each candidate saves on each row (rows, candidates); 0 outside the group that it divides."""
    leaf_of = assign(block.codes, leaves)
    old = np.empty(len(block.labels))
    fits = problem.fit_groups(leaves)
    for place, leaf in enumerate(leaves):
        own = leaf_of == place
        fitted = fits[leaf].fit
        old[own] = losses(block.values[own] @ fitted.coefficients + fitted.intercept, block.labels[own])[0]
    result = np.zeros((len(block.labels), len(candidates)))
    for column, one in enumerate(candidates):
        own = np.flatnonzero(leaf_of == one.leaf)
        factor, quantile, _ = one.upper[-1]
        above = block.codes[factor, own] > quantile
        for side, rows in ((one.upper, own[above]), (one.lower, own[~above])):
            fitted = problem.known[side].fit
            odds = block.values[rows] @ fitted.coefficients + fitted.intercept
            result[rows, column] = old[rows] - losses(odds, block.labels[rows])[0]
    return result


def _describe(problem: Problem, place: int, leaf: Group) -> dict[str, Any]:
    fitted = problem.fit_groups([leaf])[leaf]
    return {
        "group": _name(place),
        "conditions": [
            f"{problem.split_on[factor]} {'>=' if above else '<'} {problem.bounds[factor, quantile]:.6g}"
            for factor, quantile, above in leaf
        ],
        "rows": fitted.rows,
        "coefficients": dict(zip(problem.factors, fitted.fit.coefficients.tolist(), strict=True)),
        "intercept": fitted.fit.intercept,
    }
