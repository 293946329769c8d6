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


Texts = Sequence[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.float64]]]
"""Of each text, the number of tokens, and the start and log p_z of its windows."""


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
    texts: Texts,
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
    if not texts:
        return []
    limits = [(threshold, float(np.log(threshold))) for threshold in THRESHOLDS]
    return [{"threshold": given, **reaching(texts, limit, prompt, continuation, stride)} for given, limit in limits]


def reaching(texts: Texts, limit: float, prompt: int, continuation: int, stride: int) -> dict[str, Any]:
    """Share of windows, and of tokens in any suffix, with a log p_z of at least `limit`; other arguments as for `measure`.

    Returns:
        `windows`, `tokens`, `share` and `coverage`.
    """
    windows = np.concatenate([logprobs for _, _, logprobs in texts])
    best = [token_logprobs(length, begins, logprobs, prompt, continuation) for length, begins, logprobs in texts]
    tokens = np.concatenate([values[~np.isnan(values)] for values in best])
    span = prompt + continuation
    row: dict[str, Any] = {"windows": len(windows), "tokens": len(tokens)}
    for name, series, overlap in (("share", windows, -(-span // stride)), ("coverage", tokens, span)):
        block = max(overlap, int(np.sqrt(len(series))))
        interval: statistics.Interval = block_bootstrap_mean(series >= limit, block)
        row[name] = {"value": interval.value, "low": interval.low, "high": interval.high}
    return row


def census(texts: Texts, matched: Texts, prompt: int, continuation: int, stride: int) -> dict[str, Any]:
    """Windows that are more probable than every window of matched texts that the model never saw (arXiv 2607.12649).

    Nothing is sampled, so there is no p-value: no window of the matched texts counts, by construction, and whether they are
    as predictable as the texts is for the reader to judge. A window as probable as the threshold does not count.

    Args:
        texts: as for `measure`.
        matched: likewise, texts of the same kind.
        prompt: tokens in a window's prefix.
        continuation: tokens in a window's suffix.
        stride: tokens between windows.

    Returns:
        `largest` (log p_z of the likeliest window of each matched text, in nats; null where sampling yields none of them),
        `log_threshold` (the largest of these), and the keys of `reaching` for the texts.
    """
    largest = [float(logprobs.max()) for _, _, logprobs in matched]
    threshold = max(largest)
    found = reaching(texts, float(np.nextafter(threshold, np.inf)), prompt, continuation, stride)
    finite = [value if np.isfinite(value) else None for value in (threshold, *largest)]
    return {"largest": finite[1:], "log_threshold": finite[0], **found}


def heat(values: npt.NDArray[np.float64], bins: int = BINS) -> list[float | None]:
    """The largest log p_z in each of `bins` equal parts of a text, from `token_logprobs`; None where no suffix reaches."""
    # Edges are proportional, so that a column of the map is the same fraction of every text.
    edges = np.linspace(0, len(values), min(bins, max(len(values), 1)) + 1).astype(int)
    pieces = np.split(values, edges[1:-1])
    known = [piece[~np.isnan(piece)] for piece in pieces]
    # Below e^-700 values are not distinguished: a finite number stays a number in JSON.
    return [max(float(piece.max()), -700.0) if len(piece) else None for piece in known]
