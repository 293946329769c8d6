"""Attacks on paired evidence: each token's log-probability under the attacked model and under its base.

`deltas` are log p(token) under the model minus that under the reference model, both given the true tokens before it. The
natural reference of a fine-tuned model is the model that it was fine-tuned from.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

Values = npt.NDArray[np.float64]

SIZES = (2, 3, 4, 6, 9, 13, 18, 25, 32, 40)
"""Window sizes of WBC in tokens, as published with its code."""
FORCED = 1e300
"""Above every ratio P / N of log-probabilities; the scale of EZ's forced scores of single rows."""
_FEWEST_ERRORS = 2


def ez(deltas: Values, errors: npt.NDArray[np.bool_]) -> float | None:
    """P / N: gains over losses against the reference at tokens that the model predicts wrongly (arXiv 2601.12104, EZ-MIA).

    P is the sum of max(delta, 0) and N that of max(-delta, 0) over the error positions, those whose token is not the argmax.
    The first scored token, whose context is a single token, is left out. Without an error position, or with N = 0, the ratio
    does not exist and the text counts as a member: its score lies above every ratio (`FORCED`), and `raise_forced` brings it
    right above the largest ratio of a set. The released code gives these texts the lowest score instead.

    Args:
        deltas: (tokens), in nats.
        errors: (tokens), whether the model's argmax is another token.

    Returns:
        The ratio; `FORCED` * (1 + P / (1 + P)) if N is 0, `FORCED` * 2 without an error position. None without a scored token,
        with a single error position and N > 0, or with an infinite delta.
    """
    if not len(deltas) or not np.isfinite(deltas).all():
        return None
    wrong = np.array(errors, bool)
    wrong[0] = False
    at_errors = deltas[wrong]
    if not len(at_errors):
        return 2 * FORCED
    gained, lost = float(at_errors[at_errors > 0].sum()), float(-at_errors[at_errors < 0].sum())
    if lost == 0:
        return FORCED * (1 + gained / (1 + gained))
    return gained / lost if len(at_errors) >= _FEWEST_ERRORS else None


def raise_forced(scores: Sequence[float | None]) -> list[float | None]:
    """Scores of a set in which forced ones lie 1 to 2 above the largest ratio (0 if there is none); the order is unchanged."""
    most = max((score for score in scores if score is not None and score < FORCED), default=0.0)
    return [score if score is None or score < FORCED else most + score / FORCED for score in scores]


def wbc(deltas: Values, sizes: Sequence[int] = SIZES) -> float | None:
    """Share of token windows whose likelihood exceeds the reference's, averaged over window sizes (arXiv 2601.02751, WBC).

    A window counts if the sum of its deltas is above 0; a tie counts against membership. A size beyond the text is cut to it.

    Args:
        deltas: (tokens), in nats.
        sizes: window sizes in tokens.

    Returns:
        A share in [0, 1]; None without a scored token, or with an infinite delta.
    """
    if not len(deltas) or not np.isfinite(deltas).all():
        return None
    # Sums of differences, each window by itself: equal models give exact zeros, and no rounding of other windows enters.
    windows = [sliding_window_view(deltas, min(size, len(deltas))) for size in sizes]
    return float(np.mean([np.mean(window.sum(axis=1) > 0) for window in windows]))


def window_sizes(least: int = 2, most: int = 40, number: int = 10) -> tuple[int, ...]:
    """Geometric window sizes of the paper's equation 12, an alternative to `SIZES`."""
    return tuple(round(least * (most / least) ** (place / (number - 1))) for place in range(number))
