"""Dataset inference: were the members, as a set, trained on?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from memtax import statistics

_RESAMPLES = 1000


def set_test(
    labels: Sequence[bool],
    columns: Sequence[Sequence[float | None]],
    seed: int = 1024,
    *,
    units: npt.ArrayLike | None = None,
    blind: npt.NDArray[np.float64] | None = None,
) -> dict[str, Any] | None:
    """Dataset inference (Maini et al. 2024): were the members, as a set, trained on?

    Scores are averaged within units (documents), as rows of one unit are no further evidence. A ridge regression combines them
    on a random half of the units; a one-sided Welch t-test compares members with non-members of the other half. It presumes
    that both are of one distribution: see the blind baseline.

    Args:
        labels: whether each text is a (suspected) member.
        columns: score columns, each (texts,); missing scores take the fitted half's mean.
        seed: of the split.
        units: (texts,) unit of each text, from `unit_codes`. None: texts are independent.
        blind: (texts,) scores of the blind baseline.

    Returns:
        `p_value`, `statistic`, `auroc` (effect on the tested half, with its interval), `above_blind` (that AUROC minus the
        blind baseline's on the same units), `members` and
        `nonmembers` (units tested); None with fewer than 4 units of a kind or no usable score.
    """
    from scipy.stats import ttest_ind
    from sklearn.linear_model import RidgeCV

    y = np.asarray(labels, bool)
    codes = np.arange(len(y)) if units is None else np.asarray(units)
    scores = np.array([[np.nan if v is None else v for v in column] for column in columns], np.float64).T
    scores = np.column_stack([scores, np.full(len(y), np.nan) if blind is None else blind])
    scores, y, codes = _means(np.where(np.isfinite(scores), scores, np.nan), y, codes)
    fitted = _half(y, codes, np.random.default_rng(seed))
    if fitted is None:
        return None
    x = _scaled(scores[:, :-1], fitted)
    if not x.shape[1]:
        return None
    combined = RidgeCV(alphas=np.logspace(-1, 5, 13)).fit(x[fitted], y[fitted].astype(np.float64)).predict(x[~fitted])
    tested = y[~fitted]
    if np.ptp(combined) == 0:
        return None
    result = ttest_ind(combined[tested], combined[~tested], equal_var=False, alternative="greater")
    interval = statistics.auroc_interval(tested, combined, codes[~fitted])
    bounds = (None, None) if interval is None else (interval.low, interval.high)
    return {
        "p_value": float(result.pvalue),
        "statistic": float(result.statistic),
        "auroc": dict(zip(("value", "low", "high"), (statistics.auroc(tested, combined), *bounds), strict=True)),
        "above_blind": None if blind is None else _above(tested, combined, scores[~fitted, -1], codes[~fitted]),
        "members": int(tested.sum()),
        "nonmembers": int((~tested).sum()),
    }


def _above(
    tested: npt.NDArray[np.bool_], combined: npt.NDArray[np.float64], blind: npt.NDArray[np.float64], codes: npt.NDArray[Any]
) -> dict[str, float | None]:
    """AUROC of the combined score minus that of the blind baseline, units resampled together."""
    found = statistics.paired_bootstrap_difference(
        statistics.auroc, tested, combined, blind, resamples=_RESAMPLES, strata=tested, units=codes
    )
    if found is None:
        value = statistics.auroc(tested, combined) - statistics.auroc(tested, blind)
        return {"value": value, "low": None, "high": None}
    return {"value": found.value, "low": found.low, "high": found.high}


def _means(
    scores: npt.NDArray[np.float64], y: npt.NDArray[np.bool_], codes: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[Any]]:
    """Mean scores (groups, columns) of each unit's rows of one kind, with the kind and the unit."""
    if not len(y):
        return scores, y, codes
    pairs, index = np.unique(np.column_stack([codes, y]), axis=0, return_inverse=True)
    index = index.ravel()
    known = np.isfinite(scores)
    sums = np.zeros((len(pairs), scores.shape[1]))
    counts = np.zeros_like(sums)
    np.add.at(sums, index, np.where(known, scores, 0.0))
    np.add.at(counts, index, known)
    with np.errstate(invalid="ignore"):
        return sums / np.where(counts > 0, counts, np.nan), pairs[:, 1].astype(bool), pairs[:, 0]


def _half(y: npt.NDArray[np.bool_], codes: npt.NDArray[Any], rng: np.random.Generator) -> npt.NDArray[np.bool_] | None:
    """Half of the units of each kind, and of those of both kinds; None with fewer than 4 units of a kind."""
    if min(int(y.sum()), int((~y).sum())) < 4:
        return None
    both = set(codes[y].tolist()) & set(codes[~y].tolist())
    mixed = np.array([code in both for code in codes.tolist()], bool)
    chosen: set[Any] = set()
    for pool in (y & ~mixed, ~y & ~mixed, y & mixed):
        units = rng.permutation(np.flatnonzero(pool))
        chosen |= set(codes[units[: len(units) // 2]].tolist())
    fitted = np.array([code in chosen for code in codes.tolist()], bool)
    enough = all(int((y[half] == kind).sum()) >= 2 for half in (fitted, ~fitted) for kind in (True, False))
    return fitted if enough else None


def _scaled(x: npt.NDArray[np.float64], fitted: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Columns scaled by the rows that are fitted; constant or empty ones are dropped, extremes are clipped."""
    x = np.where(np.isfinite(x), x, np.nan)
    x = x[:, [bool(np.isfinite(column[fitted]).sum() > 1 and np.nanstd(column[fitted]) > 0) for column in x.T]]
    if not x.shape[1]:
        return x
    scaled = (x - np.nanmean(x[fitted], axis=0)) / np.nanstd(x[fitted], axis=0)
    return np.nan_to_num(np.clip(scaled, -5, 5))
