"""Log-probabilities of the tokens of texts of any length, from windows of the model's context."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from memtax.errors import RowError
from memtax.lm.special_tokens import text_positions

if TYPE_CHECKING:
    from memtax.lm.scores import TokenScores

Values = npt.NDArray[np.float64]
Tokens = Sequence[int]


def token_values(
    model: Any,
    sequences: Sequence[Tokens],
    moments: bool = False,
    batch_size: int | None = None,
    *,
    errors: bool = False,
) -> list[tuple[Values, ...]]:
    """Log-probability of every token after the first (mean and variance of log p; errors), for texts of any length.

    Texts longer than the model's context are read in windows that overlap by half; a token is scored in the first window
    that contains it, so it has at least half a window of context.

    Args:
        model: a causal language model.
        sequences: token ids of each text; equal texts are read once.
        moments: whether to return means and variances too.
        batch_size: rows per forward pass; None finds the largest that fits.
        errors: whether to return, last, 1 for tokens that are not the argmax and 0 for the others; NaN where it is not known.

    Returns:
        For each text, arrays of shape (tokens - 1), float64.

    Raises:
        RowError: the model cannot process a text, or its logits are NaN.
    """
    from memtax.lm.scores import score

    keys = [tuple(sequence) for sequence in sequences]
    places = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    windows: list[Tokens] = []
    parts: list[list[tuple[int, int]]] = []
    for key in places:
        parts.append([])
        for start, end, seen in _windows(len(key), text_positions(model)):
            parts[-1].append((len(windows), max(seen - start - 1, 0)))
            windows.append(key[start:end])
    try:
        most = batch_size and batch_size * max(map(len, windows), default=1)
        scores = score(model, windows, moments=moments, batch_tokens=most)
    except RowError as error:
        text = next(text for text, part in enumerate(parts) if error.row in [window for window, _ in part])
        raise error.at(keys.index(list(places)[text])) from error
    columns = [scores.split(array) for array in _arrays(scores, moments, errors)]
    found = [
        tuple(np.concatenate([column[window][skipped:] for window, skipped in part]).astype(np.float64) for column in columns)
        for part in parts
    ]
    return [found[places[key]] for key in keys]


def _arrays(scores: "TokenScores", moments: bool, errors: bool) -> list[npt.NDArray[Any]]:
    found: list[npt.NDArray[Any]] = [scores.logprobs]
    if moments:
        assert scores.means is not None
        assert scores.variances is not None
        found += [scores.means, scores.variances]
    if errors:
        found.append(np.where(np.isin(np.arange(len(scores.match)), _unknown(scores)), np.nan, ~scores.match))
    return found


def _unknown(scores: "TokenScores") -> npt.NDArray[np.int64]:
    """Entries of the sequences whose argmax is not known."""
    rows = [] if scores.unknown is None else np.flatnonzero(scores.unknown).tolist()
    parts = [np.arange(scores.offsets[row], scores.offsets[row + 1]) for row in rows]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _windows(length: int, limit: int | None) -> list[tuple[int, int, int]]:
    """Start, end and number of already scored tokens of each window."""
    if limit is None or length <= limit:
        return [(0, length, 0)]
    found = [(0, limit, 0)]
    while found[-1][1] < length:
        seen = found[-1][1]
        start = seen - max(limit // 2, 1)
        found.append((start, min(start + limit, length), seen))
    return found
