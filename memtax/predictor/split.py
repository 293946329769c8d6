"""Training, validation and test rows, each with the same mix of target and category."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memtax.errors import MemtaxError

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers of each part, ascending; together they are all rows, each once."""

    train: Rows
    validation: Rows
    test: Rows


def stratified_split(
    strata: NDArray[np.int64], validation: float, test: float, seed: int, groups: NDArray[np.int64] | None = None
) -> Split:
    """Deal the rows of every stratum to the three parts.

    Each stratum gives its rounded share to test, then to validation, and keeps at least one row for training: a stratum
    of one or two rows (at the default shares) is for training only. Where groups have several rows, whole groups are dealt,
    the largest first, each to the part that lacks most of what the group has; a group that is larger than validation and
    test may be is for training.

    Args:
        strata: (rows,) stratum of each row.
        validation: share of the rows for choosing thresholds.
        test: share of the rows for the final figures.
        seed: seed of the shuffle.
        groups: (rows,) group of each row, whose rows stay together; None: each row is dealt by itself.

    Raises:
        MemtaxError: a share is not inside (0, 1), or the two leave nothing for training.
    """
    if not (0 < validation < 1 and 0 < test < 1 and validation + test < 1):
        raise MemtaxError(f"validation ({validation}) and test ({test}) are shares above 0 that leave some rows for training")
    rng = np.random.default_rng(seed)
    if groups is not None and len(np.unique(groups)) < len(groups):
        part = _deal(strata, np.array([1 - validation - test, validation, test]), rng, groups)
    else:
        part = np.zeros(len(strata), np.int8)
        for stratum in np.unique(strata):
            rows = rng.permutation(np.flatnonzero(strata == stratum))
            tested = min(int(len(rows) * test + 0.5), len(rows) - 1)
            validated = min(int(len(rows) * validation + 0.5), len(rows) - 1 - tested)
            part[rows[:tested]] = 2
            part[rows[tested : tested + validated]] = 1
    train, validation_rows, test_rows = (np.flatnonzero(part == which) for which in range(3))
    return Split(train, validation_rows, test_rows)


def _deal(
    strata: NDArray[np.int64], shares: NDArray[np.float64], rng: np.random.Generator, groups: NDArray[np.int64]
) -> NDArray[np.int8]:
    """Part (rows,) of each row: 0, 1 or 2, with shares (3,)."""
    index = np.unique(groups, return_inverse=True)[1].ravel()
    kinds = np.unique(strata, return_inverse=True)[1].ravel()
    counts = np.zeros((int(index.max()) + 1, int(kinds.max()) + 1))
    np.add.at(counts, (index, kinds), 1)
    sizes, totals = counts.sum(axis=1), counts.sum(axis=0)
    # Shuffled first, so that equals come in a random order.
    order = rng.permutation(len(counts))
    order = order[np.argsort(-sizes[order], kind="stable")]
    wanted = shares[:, None] * totals  # (parts, strata) rows that a part lacks
    room = shares * sizes.sum()
    part = np.zeros(len(counts), np.int8)
    for group in order:
        own = counts[group]
        # Lack relative to the part's share of a stratum, weighted by what the group has of it.
        lack = (wanted / (shares[:, None] * totals)) @ own
        lack[1:][sizes[group] > np.maximum(room[1:], 1)] = -np.inf
        best = int(lack.argmax())
        part[group] = best
        wanted[best] -= own
        room[best] -= sizes[group]
    return part[index]
