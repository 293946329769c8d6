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


def stratified_split(strata: NDArray[np.int64], validation: float, test: float, seed: int) -> Split:
    """Deal the rows of every stratum to the three parts.

    Each stratum gives its rounded share to test, then to validation, and keeps at least one row for training: a stratum
    of one or two rows (at the default shares) is for training only.

    Args:
        strata: (rows,) stratum of each row.
        validation: share of the rows for choosing thresholds.
        test: share of the rows for the final figures.
        seed: seed of the shuffle.

    Raises:
        MemtaxError: a share is not inside (0, 1), or the two leave nothing for training.
    """
    if not (0 < validation < 1 and 0 < test < 1 and validation + test < 1):
        raise MemtaxError(f"validation ({validation}) and test ({test}) are shares above 0 that leave some rows for training")
    rng = np.random.default_rng(seed)
    part = np.zeros(len(strata), np.int8)
    for stratum in np.unique(strata):
        rows = rng.permutation(np.flatnonzero(strata == stratum))
        tested = min(int(len(rows) * test + 0.5), len(rows) - 1)
        validated = min(int(len(rows) * validation + 0.5), len(rows) - 1 - tested)
        part[rows[:tested]] = 2
        part[rows[tested : tested + validated]] = 1
    train, validation_rows, test_rows = (np.flatnonzero(part == which) for which in range(3))
    return Split(train, validation_rows, test_rows)
