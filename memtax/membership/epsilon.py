"""Lower bound on the epsilon of differential privacy from one training run (Steinke et al. 2023, arXiv 2305.08846).

Each of m canaries is included by its own fair coin. Afterwards an auditor ranks all of them by a score that does not depend
on the coins, guesses "in" for the highest and "out" for the lowest, and abstains on the rest. If the training is (epsilon,
delta)-differentially private for adding or removing one canary, many right guesses are improbable.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from scipy.stats import binom

from memtax.errors import MemtaxError

LEVEL = 0.95
SHARES = (0.5, 0.25, 0.125)
"""Shares of the canaries guessed "in", and as many "out"; fixed beforehand, with confidence divided among them (Bonferroni)."""
_MOST = 100.0
_STEPS = 60


def p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float = 0.0) -> float:
    """Probability bound for at least `right` right guesses if the training is (epsilon, delta)-differentially private.

    beta + 2 m delta alpha with beta = P[B >= v], B ~ Binomial(r, e^epsilon / (1 + e^epsilon)), and alpha the maximum over
    i = 1..v of P[v > B >= v - i] / i.

    Args:
        canaries: m, all canaries with a coin, those abstained on included.
        guesses: r, at most m.
        right: v, right guesses.
        epsilon: at least 0.
        delta: from 0 to 1.

    Raises:
        MemtaxError: the counts or the parameters are impossible.
    """
    if not 0 <= right <= guesses <= canaries:
        raise MemtaxError(f"right guesses, guesses and canaries must not decrease, got {right}, {guesses}, {canaries}")
    if not epsilon >= 0 or not 0 <= delta <= 1:
        raise MemtaxError(f"epsilon={epsilon} must be at least 0 and delta={delta} from 0 to 1")
    chance = float(expit(epsilon))
    beta = float(binom.sf(right - 1, guesses, chance))
    if delta == 0 or right == 0:
        return min(beta, 1.0)
    steps = np.arange(1, right + 1)
    below = np.cumsum(binom.pmf(right - steps, guesses, chance))
    return min(beta + 2 * canaries * delta * float(np.max(below / steps)), 1.0)


def lower_bound(canaries: int, guesses: int, right: int, delta: float = 0.0, level: float = LEVEL) -> float:
    """Largest epsilon that is rejected at confidence `level`, by bisection; 0 if not even epsilon = 0 is rejected.

    Raises:
        MemtaxError: as `p_value`, or the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise MemtaxError(f"level={level} must be above 0 and below 1")
    allowed = 1 - level
    if not guesses or p_value(canaries, guesses, right, 0.0, delta) > allowed:
        return 0.0
    low, high = 0.0, _MOST
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if p_value(canaries, guesses, right, middle, delta) <= allowed else (low, middle)
    return low


def guess(scores: npt.ArrayLike, included: npt.ArrayLike, each_way: int) -> int:
    """Number of right guesses: the `each_way` highest scores are called "in", the `each_way` lowest "out".

    Args:
        scores: (canaries); larger means more likely included. Equal scores are ordered by place, which must not depend on
            the coins.
        included: (canaries), the coins.
        each_way: guesses of each kind, at most half of the canaries.
    """
    order = np.argsort(np.asarray(scores, float), kind="stable")
    coins = np.asarray(included, bool)[order]
    return int(coins[len(coins) - each_way :].sum() + (~coins[:each_way]).sum())


def from_one_run(scores: Sequence[float], included: Sequence[bool], delta: float = 0.0, level: float = LEVEL) -> dict[str, Any]:
    """The best of the bounds for the numbers of guesses of `SHARES`, corrected for taking the best.

    Args:
        scores: score of each canary that had a coin, in an order that does not depend on the coins.
        included: its coin.
        delta: of (epsilon, delta).
        level: confidence.

    Returns:
        `canaries`, `guesses`, `right`, `epsilon` (the lower bound), `ceiling` (the bound if all guesses were right), `delta`
        and `level`.

    Raises:
        MemtaxError: a score is NaN, or there are fewer than 2 canaries.
    """
    values, total = np.asarray(scores, float), len(scores)
    if np.isnan(values).any():
        raise MemtaxError("a canary's score is NaN; the model's output cannot be used")
    if total < 2:
        raise MemtaxError(f"a bound on epsilon needs at least 2 canaries with a coin, got {total}")
    sizes = sorted({max(1, int(share * total)) for share in SHARES}, reverse=True)
    each = 1 - (1 - level) / len(sizes)
    best: dict[str, Any] = {}
    for size in sizes:
        right = guess(values, included, size)
        bound = lower_bound(total, 2 * size, right, delta, each)
        if not best or bound > best["epsilon"]:
            ceiling = lower_bound(total, 2 * size, 2 * size, delta, each)
            best = {"canaries": total, "guesses": 2 * size, "right": right, "epsilon": bound, "ceiling": ceiling}
    return best | {"delta": delta, "level": level}
