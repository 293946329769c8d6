"""Memorization measures computed from token scores, with array arithmetic only and without torch.

The prompt is tokens 0..prompt-1 of a sequence, the continuation tokens prompt..prompt+continuation-1. Greedy decoding from
the prompt yields the continuation exactly if and only if every token of the continuation is the argmax given the true tokens
before it, so one pass with teacher forcing decides it. The same holds for the length of the leading match.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from memtax import statistics
from memtax.errors import MemtaxError

COLUMNS = (
    "prompt_perplexity",
    "continuation_perplexity",
    "sequence_perplexity",
    "is_memorized",
    "match_length",
    "exact_memorization",
    "extraction_strength",
    "continuation_logprob",
)
"""The columns that `arrays` returns, in order."""

_NEAR = 0.5
"""Nats: log-probabilities closer to 0 than this are inverted with expm1, because 1 - exp(x) loses precision there."""
OF_A_WINDOW = tuple(name for name in COLUMNS if name != "sequence_perplexity")
"""Columns that depend on where prompt and continuation end."""

Window = tuple[int, int]
"""Prompt and continuation length in tokens."""

Floats = npt.NDArray[np.floating[Any]]
Matches = npt.NDArray[np.bool_]


class Scores(Protocol):
    """Concatenated token scores, as in `memtax.lm.scores.TokenScores`; entry j of a sequence is its token j + 1."""

    @property
    def logprobs(self) -> npt.NDArray[np.float32]:
        """Log-probability of each scored token."""

    @property
    def match(self) -> Matches:
        """Whether each scored token is the argmax."""

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Start of each sequence's entries, and end of the last one's."""


def perplexity(logprobs: Floats) -> npt.NDArray[np.float32]:
    """Exponential of the mean loss over the tokens: (sequences, tokens) to (sequences,). Infinite if too large for float32."""
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(-np.mean(logprobs, axis=-1, dtype=np.float64)), dtype=np.float32)


def total_logprob(logprobs: Floats) -> npt.NDArray[np.float32]:
    """Joint log-probability of all tokens: (sequences, tokens) to (sequences,), in nats."""
    return np.asarray(np.sum(logprobs, axis=-1, dtype=np.float64), dtype=np.float32)


def is_memorized(match: Matches) -> Matches:
    """Whether greedy decoding yields the whole continuation: (sequences, tokens) to (sequences,)."""
    return np.all(match, axis=-1)


def match_length(match: Matches) -> npt.NDArray[np.int32]:
    """Number of leading tokens that greedy decoding predicts correctly: (sequences, tokens) to (sequences,)."""
    return np.cumprod(match, axis=-1, dtype=np.int32).sum(axis=-1, dtype=np.int32)


def exact_memorization(match: Matches) -> npt.NDArray[np.float32]:
    """Share of tokens that are the argmax: (sequences, tokens) to (sequences,)."""
    return np.asarray(np.mean(match, axis=-1, dtype=np.float64), dtype=np.float32)


def extraction_strength(match: Matches) -> npt.NDArray[np.float32]:
    """1 - k/T, where k is the shortest prefix of the T tokens after which all match: length of the matching suffix over T.

    0 if the last token mismatches. (sequences, tokens) to (sequences,).
    """
    return (match_length(match[..., ::-1]) / match.shape[-1]).astype(np.float32)


def columns(scores: Scores, prompt: int | Sequence[int], continuation: int) -> dict[str, list[Any]]:
    """The columns of `COLUMNS` for every sequence, as lists; see `arrays`."""
    return {name: values.to_pylist() for name, values in arrays(scores, prompt, continuation).items()}


def arrays(scores: Scores, prompt: int | Sequence[int], continuation: int) -> dict[str, pa.Array]:
    """The columns of `COLUMNS` for every sequence.

    Args:
        scores: the sequences' token scores.
        prompt: tokens of the prompt, at least 1, of all sequences or of each.
        continuation: tokens of the continuation, at least 1.

    Returns:
        One array per column, one entry per sequence. Null if the sequence does not reach the end of the prompt or of the
        continuation, or has no token to score: the first token of a prompt is never scored.
    """
    lengths = np.diff(scores.offsets)
    before = np.broadcast_to(np.asarray(prompt, np.int64), lengths.shape) - 1
    head = (lengths >= before) & (before > 0)
    whole = lengths >= before + continuation
    prompts = np.empty(len(lengths), np.float32)
    for size in np.unique(before[head]).tolist():
        rows = head & (before == size)
        prompts[rows] = perplexity(scores.logprobs[_window(scores, rows, 0, size)])
    places = _window(scores, whole, before[whole], continuation)
    logprobs, match = scores.logprobs[places], scores.match[places]
    on_match: dict[str, Callable[[Matches], npt.NDArray[Any]]] = {
        "is_memorized": is_memorized,
        "match_length": match_length,
        "exact_memorization": exact_memorization,
        "extraction_strength": extraction_strength,
    }
    found = {
        "prompt_perplexity": _fill(head, prompts[head]),
        "continuation_perplexity": _fill(whole, perplexity(logprobs)),
        "sequence_perplexity": _sequence_perplexities(scores),
        **{name: _fill(whole, function(match)) for name, function in on_match.items()},
        "continuation_logprob": _fill(whole, total_logprob(logprobs)),
    }
    return {name: found[name] for name in COLUMNS}


def suffix(window: Window) -> str:
    """Suffix of column names for one of several windows: `_50_100`."""
    return f"_{window[0]}_{window[1]}"


def of_windows(scores: Scores, windows: Sequence[Window], prompts: Sequence[int] | None = None) -> dict[str, pa.Array]:
    """`arrays` for the first window, and those of `OF_A_WINDOW` with a suffix for the other windows.

    Args:
        scores: the sequences' token scores.
        windows: prompt and continuation lengths, at least one pair; all use the same forward pass.
        prompts: tokens of each sequence's prompt, instead of those of the first window.
    """
    found = arrays(scores, windows[0][0] if prompts is None else prompts, windows[0][1])
    for window in windows[1:]:
        more = arrays(scores, *window)
        found |= {name + suffix(window): more[name] for name in OF_A_WINDOW}
    return found


def window_columns(windows: Sequence[Window]) -> tuple[str, ...]:
    """Names of the columns that `of_windows` returns."""
    return (*COLUMNS, *(name + suffix(window) for window in windows[1:] for name in OF_A_WINDOW))


def span_logprob(logprobs: Floats, offsets: npt.NDArray[np.int64], prompt: int | Sequence[int], continuation: int) -> pa.Array:
    """Log-probability of each continuation, from concatenated token log-probabilities; null if the sequence is too short."""
    lengths = np.diff(offsets)
    before = np.broadcast_to(np.asarray(prompt, np.int64), lengths.shape) - 1
    whole = lengths >= before + continuation
    places = (offsets[:-1] + before)[whole][:, None] + np.arange(continuation)[None, :]
    return _fill(whole, total_logprob(logprobs[places]))


def queries(logprob: float | None, probability: float) -> float | None:
    """Number of samples after which at least one is the true continuation with this probability.

    The smallest n with 1 - (1 - p_z)^n >= p (Hayes et al. 2024, section 3): ceil(log(1 - p) / log(1 - p_z)), in log space.

    Args:
        logprob: log p_z, in nats.
        probability: p, above 0 and below 1.

    Returns:
        A whole number as a float, infinite on overflow; None if p_z is 0 or unknown.

    Raises:
        MemtaxError: p is out of range.
    """
    if not 0 < probability < 1:
        raise MemtaxError(f"probability={probability} must be above 0 and below 1")
    if logprob is None or logprob == -math.inf:
        return None
    if logprob >= 0:
        return 1.0
    # log(-log(1 - p_z)) is log p_z for small p_z; p_z itself would be rounded to 0.
    # Near 0, 1 - p_z is computed as -expm1(log p_z), because 1 - exp would be rounded to 0.
    miss = math.log(-math.expm1(logprob)) if logprob > -_NEAR else math.log1p(-math.exp(logprob))
    below = math.log(-miss) if logprob > -30 else logprob
    found = math.log(-math.log1p(-probability)) - below
    return max(1.0, float(math.ceil(math.exp(found)))) if found < 700 else math.inf


def discoverable(
    logprobs: Sequence[float | None],
    samples: Sequence[int],
    probabilities: Sequence[float],
    units: statistics.Units | None = None,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """Share of the continuations that are (n, p)-discoverably extractable, for each n and p.

    Args:
        logprobs: log p_z of each continuation, in nats; None is not counted.
        samples: values of n.
        probabilities: values of p, above 0 and below 1.
        units: unit of each continuation; None: each is its own unit.
        level: coverage of the intervals.

    Returns:
        One row per pair: `samples`, `probability`, `extractable` and the keys of `statistics.share` except `memorized`.

    Raises:
        MemtaxError: an n below 1, or a p outside (0, 1).
    """
    rows_known = np.array([value is not None for value in logprobs], bool)
    units = (units or statistics.Units.of_rows(len(rows_known)))[rows_known]
    known = np.array([value for value in logprobs if value is not None], dtype=np.float64)
    with np.errstate(divide="ignore"):
        # Log-probability that none of n samples is right: n log(1 - p_z).
        near = known > -_NEAR  # 1 - exp would be rounded to 0 there
        miss = np.log1p(-np.exp(np.where(near, -1.0, known)))
        miss[near] = np.log(-np.expm1(np.minimum(known[near], 0)))
    rows = []
    for n in samples:
        for p in probabilities:
            if n < 1 or n != int(n) or not 0 < p < 1:
                raise MemtaxError(f"n={n} must be a whole number, at least 1, and p={p} above 0 and below 1")
            share = statistics.share(n * miss <= math.log1p(-p), units, level)
            rows.append({"samples": n, "probability": p, "extractable": share.pop("memorized"), **share})
    return rows


def _window(scores: Scores, rows: Matches, start: int | npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Indices of the chosen sequences' entries from `start` on (of all, or of each chosen one): (chosen, count)."""
    return (scores.offsets[:-1][rows] + start)[:, None] + np.arange(count)[None, :]


def _fill(rows: Matches, values: npt.NDArray[Any]) -> pa.Array:
    """The values at the chosen rows, null elsewhere."""
    filled = np.zeros(len(rows), values.dtype)
    filled[rows] = values
    return pa.array(filled, mask=~rows)


def _sequence_perplexities(scores: Scores) -> pa.Array:
    """Perplexity of each sequence over all its scored tokens; null for sequences without any."""
    lengths = np.diff(scores.offsets)
    values = np.empty(len(lengths), np.float32)
    # Rows of one length are one array: most tables have a single length.
    for length in np.unique(lengths[lengths > 0]):
        rows = lengths == length
        values[rows] = perplexity(scores.logprobs[_window(scores, rows, 0, length)])
    return _fill(lengths > 0, values[lengths > 0])


def row_logprob(row: Any, number: int) -> float:
    """Log p_z in nats of a continuation: the sum over its tokens, minus infinity if a token is excluded.

    Args:
        row: log-probabilities of its tokens (None for an excluded one), or their sum.
        number: the row's number, for the error.

    Raises:
        MemtaxError: there is no token, a value is NaN, or a log-probability is above 0.
    """
    values = row if isinstance(row, list) else [row]
    if not values or row is None:
        raise MemtaxError(f"predictions have no token in row {number}; every continuation needs at least one")
    known = [-math.inf if value is None else value for value in values]
    for value in known:
        if math.isnan(value) or value > 0:
            raise MemtaxError(f"predictions contain {value} in row {number}; log-probabilities are at most 0")
    return math.fsum(known) if -math.inf not in known else -math.inf


def examples(logprobs: Sequence[float], probabilities: Sequence[float]) -> dict[str, list[float | int | None]]:
    """For each continuation, log p_z and the samples needed for each probability; None if no number suffices."""
    found: dict[str, list[float | int | None]] = {"logprob": [None if value == -math.inf else value for value in logprobs]}
    for p in probabilities:
        least = [queries(value, p) for value in logprobs]
        found[f"queries_p{p:g}"] = [None if n is None or n == math.inf else int(n) for n in least]
    return found
