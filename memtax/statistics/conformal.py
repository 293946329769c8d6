"""Split-conformal comparison with scores of texts that are known not to be members (Vovk et al. 2005; Bates et al. 2023).

If a score and the calibration scores are exchangeable, its p-value is at most alpha with probability at most alpha.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from memtax.errors import MemtaxError


def fewest_calibration(alpha: float) -> int:
    """Fewest calibration scores with which a score can exceed all at this rate: ceil(1 / alpha) - 1.

    Raises:
        MemtaxError: alpha is not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise MemtaxError(f"alpha={alpha} must be above 0 and below 1")
    # 1 / 0.05 is 20.000000000000004 in some forms of the same number; the rate is meant exactly.
    return math.ceil(1 / alpha - 1e-9) - 1


def conformal_threshold(calibration: npt.ArrayLike, alpha: float) -> float | None:
    """The k-th largest calibration score with k = floor(alpha (n + 1)); a score must exceed it. None if k is 0.

    Args:
        calibration: (n,) scores of texts that were not used for training, -inf included.
        alpha: rate at which such texts exceed the threshold, at most and on average over calibration sets.

    Raises:
        MemtaxError: a score is NaN, or alpha is not between 0 and 1.
    """
    values = _sorted(calibration)
    if len(values) < fewest_calibration(alpha):
        return None
    return float(values[-math.floor(alpha * (len(values) + 1) + 1e-9)])


def conformal_p_values(calibration: npt.ArrayLike, scores: Sequence[float | None]) -> list[float | None]:
    """(1 + number of calibration scores at or above the score) / (n + 1); None for a score that is None.

    Raises:
        MemtaxError: a calibration score is NaN.
    """
    values = _sorted(calibration)
    below = [None if score is None else int(np.searchsorted(values, score, side="left")) for score in scores]
    return [None if rank is None else (1 + len(values) - rank) / (len(values) + 1) for rank in below]


def largest_of_units(scores: npt.ArrayLike, units: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The largest score of each unit, in the order of the units' codes."""
    values, codes = np.asarray(scores, np.float64), np.unique(np.asarray(units), return_inverse=True)[1]
    largest = np.full(int(codes.max(initial=-1)) + 1, -np.inf)
    np.maximum.at(largest, codes, values)
    return largest


def _sorted(calibration: npt.ArrayLike) -> npt.NDArray[np.float64]:
    values = np.sort(np.asarray(calibration, np.float64))
    if np.isnan(values).any():
        raise MemtaxError("a calibration score is NaN; leave out rows without a score")
    return values
