"""Sliding windows over long texts: which passages can be extracted from the tokens before them (Cooper et al. 2025).

This is array arithmetic only: the forward pass treats windows like any other sequences.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from memtax import statistics
from memtax.errors import MemtaxError
from memtax.statistics.block_bootstrap import block_bootstrap_mean

THRESHOLDS = (0.5, 0.1, 0.01, 0.001)
"""Thresholds on the probability p_z of a suffix; windows above them count."""

BINS = 200
"""Columns in the heat map."""


def starts(length: int, window: int, stride: int) -> npt.NDArray[np.int64]:
    """Start of each window of a text: every `stride` tokens, as long as a whole window fits.

    Raises:
        MemtaxError: the stride is below 1.
    """
    if stride < 1:
        raise MemtaxError(f"stride={stride} must be at least 1 token")
    return np.arange(0, length - window + 1, stride, dtype=np.int64)


def token_logprobs(
    length: int, begins: npt.NDArray[np.int64], logprobs: npt.NDArray[np.float64], prompt: int, continuation: int
) -> npt.NDArray[np.float64]:
    """For each token of a text, the largest log p_z of the suffixes that contain it; NaN if there is none."""
    found = np.full(length, -np.inf)
    held = np.zeros(length, dtype=bool)
    for begin, logprob in zip(begins + prompt, logprobs, strict=True):
        part = slice(begin, begin + continuation)
        found[part] = np.maximum(found[part], logprob)
        held[part] = True
    return np.where(held, found, np.nan)


def measure(
    texts: Sequence[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.float64]]],
    prompt: int,
    continuation: int,
    stride: int,
) -> list[dict[str, Any]]:
    """Share of windows and of tokens above each threshold.

    Args:
        texts: for each text, its token count and the start and log p_z of its windows.
        prompt: tokens in a window's prefix.
        continuation: tokens in a window's suffix.
        stride: tokens between windows.

    Returns:
        One row per threshold: `threshold`, `windows`, `tokens`, `share` (windows with p_z of at least the threshold) and
        `coverage` (tokens in the suffix of such a window, among those in any suffix), each with `value`, `low`, `high` from
        a block bootstrap whose blocks span overlapping windows, and at least the square root of the series length.
    """
    windows = np.concatenate([logprobs for _, _, logprobs in texts]) if texts else np.empty(0)
    best = [token_logprobs(length, begins, logprobs, prompt, continuation) for length, begins, logprobs in texts]
    tokens = np.concatenate([values[~np.isnan(values)] for values in best]) if best else np.empty(0)
    if not len(windows):
        return []
    span = prompt + continuation
    rows = []
    for threshold in THRESHOLDS:
        row: dict[str, Any] = {"threshold": threshold, "windows": len(windows), "tokens": len(tokens)}
        for name, series, overlap in (("share", windows, -(-span // stride)), ("coverage", tokens, span)):
            block = max(overlap, int(np.sqrt(len(series))))
            interval: statistics.Interval = block_bootstrap_mean(series >= np.log(threshold), block)
            row[name] = {"value": interval.value, "low": interval.low, "high": interval.high}
        rows.append(row)
    return rows


def heat(values: npt.NDArray[np.float64], bins: int = BINS) -> list[float | None]:
    """The largest log p_z in each of `bins` equal parts of a text, from `token_logprobs`; None where no suffix reaches."""
    # Edges are proportional, so that a column of the map is the same fraction of every text.
    edges = np.linspace(0, len(values), min(bins, max(len(values), 1)) + 1).astype(int)
    pieces = np.split(values, edges[1:-1])
    known = [piece[~np.isnan(piece)] for piece in pieces]
    # Below e^-700 values are not distinguished: a finite number stays a number in JSON.
    return [max(float(piece.max()), -700.0) if len(piece) else None for piece in known]
