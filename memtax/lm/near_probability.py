"""Bounds on the probability of drawing a continuation within a number of edits of the true one (arXiv 2603.24917).

A beam search over what the sampling scheme can draw drops the prefixes that no completion brings within the edits.
Its final sequences are distinct, each is drawn with exactly its probability, and all are close enough, so their sum is a lower
bound; what the width of the beam discarded is the gap to an upper one.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from memtax.errors import MemtaxError, RowError
from memtax.lm.decoding import Decoding
from memtax.lm.generation import NO_NUMBERS, unusable
from memtax.lm.head import call, decompose, keeps_cache
from memtax.lm.scores import evaluation
from memtax.lm.special_tokens import bos_of, with_bos

WIDTH = 20
"""Prefixes kept at each token by default."""
DISTANCES = ("levenshtein", "hamming")

Logprobs = npt.NDArray[np.float64]
Step = Callable[[Sequence[int], Sequence[int]], Logprobs]
"""From the places of the kept prefixes among the former ones and the last token of each (both empty at first), the
log-probability of every next token: (prefixes, vocabulary), one row at first."""


class Bounds(NamedTuple):
    """Log-probabilities, in nats.

    Attributes:
        low: the probability is at least this.
        high: it is at most this.
    """

    low: float
    high: float


def near_probability(
    step: Step, true: Sequence[int], edits: int, width: int | None = WIDTH, distance: str = "levenshtein"
) -> Bounds:
    """Bounds on the probability of drawing as many tokens as the true continuation has, at most `edits` from it.

    End-of-sequence is a token like any other.

    Args:
        step: the model.
        true: token ids of the true continuation.
        edits: maximum distance.
        width: prefixes kept at each token, and the true one besides; None: all, which gives the probability itself.
        distance: `levenshtein` (insertions, deletions and substitutions) or `hamming` (substitutions).

    Raises:
        MemtaxError: a number is out of range, or the true continuation is empty.
    """
    _check(true, edits, width, distance)
    target, length = np.asarray(true, np.int64), len(true)
    tokens = np.unique(target)
    logprobs = np.zeros(1)
    rows = np.arange(length + 1)[None] if distance == "levenshtein" else np.zeros((1, 1), np.int64)
    is_true = np.ones(1, bool)
    parents: Sequence[int] = ()
    last: Sequence[int] = ()
    discarded: list[float] = []
    for place in range(length):
        given = step(parents, last)
        # One row of distances per token of the true continuation, and one for every other token.
        if distance == "levenshtein":
            options = [_next_row(rows, target == token) for token in (*tokens, None)]
            left = np.abs((length - np.arange(length + 1)) - (length - place - 1))
            reach = np.stack([(option + left).min(1) for option in options], 1)
        else:
            options = [rows + int(token != target[place]) for token in (*tokens, None)]
            reach = np.stack([option[:, 0] for option in options], 1)
        group = np.full(given.shape[1], len(tokens))
        group[tokens[tokens < given.shape[1]]] = np.flatnonzero(tokens < given.shape[1])
        candidates = np.where(reach[:, group] <= edits, logprobs[:, None] + given, -np.inf)
        chosen, rest = _widest(candidates, width, (is_true, int(target[place])))
        discarded.append(rest)
        kept, picked = np.divmod(chosen, given.shape[1])
        logprobs = candidates[kept, picked]
        rows = np.stack(options, 1)[kept, group[picked]]
        is_true = is_true[kept] & (picked == target[place])
        parents, last = kept.tolist(), picked.tolist()
        if not len(kept):
            break
    low = _sum(logprobs[rows[:, -1] <= edits])
    return Bounds(min(low, 0.0), min(_sum([low, *discarded]), 0.0))


def _check(true: Sequence[int], edits: int, width: int | None, distance: str) -> None:
    if not len(true) or edits < 0:
        raise MemtaxError(f"edits={edits} must be at least 0, of a continuation of at least 1 token, not {len(true)}")
    if width is not None and width < 1:
        raise MemtaxError(f"width={width} must be at least 1")
    if distance not in DISTANCES:
        raise MemtaxError(f"unknown distance {distance!r}; choose one of {', '.join(DISTANCES)}")


def _next_row(rows: npt.NDArray[np.int64], same: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Edit distances to every beginning of the true continuation after one more token: (prefixes, length + 1) to the same."""
    stepped = np.concatenate([rows[:, :1] + 1, np.minimum(rows[:, 1:] + 1, rows[:, :-1] + ~same)], 1)
    # An insertion on the way: r_j = min over i <= j of r_i + j - i.
    places = np.arange(rows.shape[1])
    found: npt.NDArray[np.int64] = np.minimum.accumulate(stepped - places, axis=1) + places
    return found


def _widest(
    candidates: Logprobs, width: int | None, own: tuple[npt.NDArray[np.bool_], int]
) -> tuple[npt.NDArray[np.int64], float]:
    """Flat places of the most probable candidates and of the true continuation, and the log of what the others sum to."""
    flat = candidates.ravel()
    possible = np.flatnonzero(flat > -np.inf)
    if width is None or len(possible) <= width:
        return possible, -math.inf
    chosen = possible[np.argpartition(-flat[possible], width - 1)[:width]]
    true = np.flatnonzero(own[0]) * candidates.shape[1] + own[1]
    chosen = np.union1d(chosen, true[flat[true] > -np.inf])
    rest = flat.copy()
    rest[chosen] = -np.inf
    return chosen, _sum(rest[possible])


def _sum(logs: Sequence[float] | Logprobs) -> float:
    """Log of the sum of exponentials."""
    values = np.asarray(logs, np.float64)
    most = float(values.max(initial=-math.inf))
    return most if most == -math.inf else most + math.log(float(np.exp(values - most).sum()))


def near_logprobs(
    model: Any,
    sequences: Sequence[Sequence[int]],
    prompts: Sequence[int],
    continuation: int,
    edits: int,
    *,
    width: int = WIDTH,
    decoding: Decoding | None = None,
) -> list[Bounds | None]:
    """`near_probability` (Levenshtein) under a model, for every sequence; end-of-sequence is a token like any other.

    It costs as much as drawing `width` samples of each.

    Args:
        model: as for `memtax.lm.scores.score`.
        sequences: token ids of each sequence.
        prompts: tokens in the prompt of each.
        continuation: tokens in the continuation.
        edits: maximum distance.
        width: prefixes kept at each token.
        decoding: the sampling scheme; None: the model's own distribution.

    Returns:
        None for a sequence that is shorter than prompt and continuation.

    Raises:
        RowError: the model's logits for a sequence are NaN.
    """
    found: list[Bounds | None] = []
    with evaluation(model), torch.inference_mode():
        for row, (sequence, prompt) in enumerate(zip(sequences, prompts, strict=True)):
            if len(sequence) < prompt + continuation:
                found.append(None)
                continue
            reader = _Reader(model, with_bos(sequence[:prompt], bos_of(model)), decoding or Decoding())
            try:
                found.append(near_probability(reader, list(sequence[prompt : prompt + continuation]), edits, width))
            except RowError as error:
                raise error.at(row) from error
    return found


class _Reader:
    """A model as a `Step`: reads a prompt once, then one token of every kept prefix at a time.

    Args:
        model: as for `memtax.lm.scores.score`.
        prompt: token ids.
        decoding: the sampling scheme.
    """

    def __init__(self, model: Any, prompt: Sequence[int], decoding: Decoding) -> None:
        self.model, self.decoding = model, decoding
        self.parts = decompose(model)
        self.cached = self.parts is not None and keeps_cache(model)
        self.ids = torch.tensor([list(prompt)], device=model.device)
        self.cache: Any = None

    def __call__(self, parents: Sequence[int], last: Sequence[int]) -> Logprobs:
        if len(parents):
            places = torch.tensor(parents, device=self.ids.device)
            self.ids = torch.cat([self.ids[places], torch.tensor(last, device=self.ids.device)[:, None]], -1)
            if self.cache is not None:
                self.cache.reorder_cache(places)
        fresh = self.ids if self.cache is None else self.ids[:, -1:]
        if self.parts is None:
            logits = call(self.model, input_ids=self.ids, use_cache=False).logits[:, -1]
        else:
            positions = torch.arange(self.ids.shape[1], device=self.ids.device).expand(len(self.ids), -1)
            output = call(
                self.parts.backbone,
                input_ids=fresh,
                attention_mask=torch.ones_like(self.ids),
                position_ids=positions[:, -fresh.shape[1] :],
                past_key_values=self.cache,
                use_cache=self.cached,
            )
            cache = getattr(output, "past_key_values", None)
            self.cache = cache if self.cached and hasattr(cache, "reorder_cache") else None
            logits = self.parts.logits(output[0][:, -1])
        if bool(unusable(logits).any()):
            raise RowError(NO_NUMBERS, 0)
        drawn: Logprobs = self.decoding.distribution(logits.float()).double().cpu().numpy()
        return drawn
