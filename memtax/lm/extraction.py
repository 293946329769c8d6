"""From token scores to what they say about memorization. Arithmetic on arrays alone: no torch here.

The prompt is tokens 0..prompt-1 of a sequence, the continuation tokens prompt..prompt+continuation-1. Greedy decoding from
the prompt gives the continuation exactly if and only if every token of the continuation is the argmax given the true tokens
before it, so one pass under teacher forcing decides it. The same holds for the length of the leading run.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

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
"""The columns that `columns` gives, in its order."""

Floats = npt.NDArray[np.floating[Any]]
Matches = npt.NDArray[np.bool_]


class Scores(Protocol):
    """Token scores end to end, as `memtax.lm.scores.TokenScores` holds them; entry j of a sequence is its token j + 1."""

    @property
    def logprobs(self) -> npt.NDArray[np.float32]:
        """Log-probability of each scored token."""

    @property
    def match(self) -> Matches:
        """Whether each scored token is the argmax."""

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Where each sequence's entries begin, and the end of the last one's."""


def perplexity(logprobs: Floats) -> npt.NDArray[np.float32]:
    """Exponential of the mean loss over the tokens: (sequences, tokens) to (sequences,). Infinite beyond float32."""
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(-np.mean(logprobs, axis=-1, dtype=np.float64)), dtype=np.float32)


def total_logprob(logprobs: Floats) -> npt.NDArray[np.float32]:
    """Log-probability of all tokens together: (sequences, tokens) to (sequences,), in nats."""
    return np.asarray(np.sum(logprobs, axis=-1, dtype=np.float64), dtype=np.float32)


def is_memorized(match: Matches) -> Matches:
    """Whether greedy decoding gives the whole continuation: (sequences, tokens) to (sequences,)."""
    return np.all(match, axis=-1)


def match_length(match: Matches) -> npt.NDArray[np.int32]:
    """Leading tokens that greedy decoding gets right: (sequences, tokens) to (sequences,)."""
    return np.cumprod(match, axis=-1, dtype=np.int32).sum(axis=-1, dtype=np.int32)


def exact_memorization(match: Matches) -> npt.NDArray[np.float32]:
    """Share of tokens that are the argmax: (sequences, tokens) to (sequences,)."""
    return np.asarray(np.mean(match, axis=-1, dtype=np.float64), dtype=np.float32)


def extraction_strength(match: Matches) -> npt.NDArray[np.float32]:
    """1 - k/T, with k the least prefix of the T tokens after which all match: the matching suffix over T.

    0 if the last token mismatches. (sequences, tokens) to (sequences,).
    """
    return (match_length(match[..., ::-1]) / match.shape[-1]).astype(np.float32)


def columns(scores: Scores, prompt: int, continuation: int) -> dict[str, list[Any]]:
    """The columns of `COLUMNS` for every sequence.

    Args:
        scores: the sequences' token scores.
        prompt: tokens of the prompt, at least 1.
        continuation: tokens of the continuation, at least 1.

    Returns:
        One list a column, one entry a sequence. None where the sequence does not reach the end of the prompt or of the
        continuation, or where there is no token to score: the first token of a prompt never is.
    """
    lengths = np.diff(scores.offsets)
    end = prompt + continuation - 1
    head = lengths >= prompt - 1 if prompt > 1 else np.zeros(len(lengths), dtype=bool)
    whole = lengths >= end
    prompts = scores.logprobs[_window(scores, head, 0, prompt - 1)]
    places = _window(scores, whole, prompt - 1, end)
    logprobs, match = scores.logprobs[places], scores.match[places]
    on_match: dict[str, Callable[[Matches], npt.NDArray[Any]]] = {
        "is_memorized": is_memorized,
        "match_length": match_length,
        "exact_memorization": exact_memorization,
        "extraction_strength": extraction_strength,
    }
    found = {
        "prompt_perplexity": _fill(head, perplexity(prompts) if prompt > 1 else np.empty(0)),
        "continuation_perplexity": _fill(whole, perplexity(logprobs)),
        "sequence_perplexity": _sequence_perplexities(scores),
        **{name: _fill(whole, function(match)) for name, function in on_match.items()},
        "continuation_logprob": _fill(whole, total_logprob(logprobs)),
    }
    return {name: found[name] for name in COLUMNS}


def _window(scores: Scores, rows: Matches, start: int, stop: int) -> npt.NDArray[np.int64]:
    """Places of the entries start..stop-1 of the chosen sequences: (chosen, stop - start)."""
    return scores.offsets[:-1][rows][:, None] + np.arange(start, stop)[None, :]


def _fill(rows: Matches, values: npt.NDArray[Any]) -> list[Any]:
    """The values at the chosen rows, None elsewhere."""
    filled: list[Any] = [None] * len(rows)
    for row, value in zip(np.flatnonzero(rows), values.tolist(), strict=True):
        filled[row] = value
    return filled


def _sequence_perplexities(scores: Scores) -> list[float | None]:
    """Perplexity of each sequence over all its scored tokens; None for sequences without any."""
    pieces = np.split(scores.logprobs, scores.offsets[1:-1])[: len(scores.offsets) - 1]
    return [float(perplexity(piece)) if piece.size else None for piece in pieces]
