"""The lags at which `TemplateFilter` looks for repetitions."""

import numpy as np

from memtax.compiled import kernel
from memtax.filters._template_words import Array

ALL_LAGS = 128
"""Lags up to this are always tried; larger ones only if items vote for them, so that time stays linear in the items."""
VOTED_LAGS = 32


@kernel()
def _votes(shapes: Array, weights: Array, low: int, high: int, longest: int) -> Array:
    """Characters that recur at each lag up to `longest`.

    An item votes, weighted by its length, for the distance to the last item of its shape, and to the last position with the
    same four successive shapes (counters of one kind share a shape).
    """
    votes = np.zeros(longest + 1, np.int64)
    size = 1
    while size < 2 * (high - low):
        size *= 2
    last = np.full((2, size), -1, np.int64)
    for place in range(low + 3, high):
        run = 0
        for back in range(4):
            run = (run * 1000003 + shapes[place - back] + 11) & 0xFFFFFFFFFFFF
        for which in range(2):
            code = run if which else np.int64(shapes[place]) * 40503
            slot = (code ^ (code >> 17)) & (size - 1)
            distance = place - last[which, slot]
            if last[which, slot] >= 0 and ALL_LAGS < distance <= longest:
                votes[distance] += weights[place]
            last[which, slot] = place
    return votes


@kernel()
def candidate_lags(shapes: Array, weights: Array, low: int, high: int, longest: int) -> Array:
    """The lags to try, in ascending order: all short ones, and those longer ones at which the most characters recur."""
    short = min(longest, ALL_LAGS)
    # Loops, because numpy's slice assignment, sort and concatenate take seconds to compile.
    lags = np.empty(short + VOTED_LAGS, np.int64)
    for count in range(short):
        lags[count] = count + 1
    count = short
    if longest == short:
        return lags[:count]
    votes = _votes(shapes, weights, low, high, longest)
    for lag in np.argsort(votes)[-VOTED_LAGS:]:
        if votes[lag] > 0:
            at = count
            while at > short and lags[at - 1] > lag:
                lags[at] = lags[at - 1]
                at -= 1
            lags[at] = lag
            count += 1
    return lags[:count]
