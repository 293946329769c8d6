"""Greedy decoding from the first mismatch on, and an extraction test that stops at it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from memtax.errors import RowError
from memtax.lm.head import Parts, call, decompose, ignores_padding, keeps_cache
from memtax.lm.memory import FAILURES, fitting, smaller
from memtax.lm.scores import BATCH_TOKENS, TokenScores, evaluation, score
from memtax.lm.special_tokens import bos_of, with_bos

FIRST_LOOK = 4
"""Continuation tokens checked first in exact-only mode: most sequences fail on one of them."""

Tokens = Sequence[int]

NO_NUMBERS = "the model's logits for {row} are not numbers (NaN) or infinite; check its weights, or try dtype float32"
"""Error for a row to decode."""


def unusable(logits: torch.Tensor) -> torch.Tensor:
    """Rows of `logits` (rows, vocabulary) that contain NaN, or +infinity from an overflow; -infinity marks forbidden tokens."""
    return (logits.isnan() | logits.isposinf()).any(-1)


def match_lengths(
    model: Any,
    sequences: Sequence[Tokens],
    prompt: int | Sequence[int],
    continuation: int,
    *,
    suppressed: int | None = None,
    batch_tokens: int | None = None,
) -> list[int | None]:
    """Number of leading continuation tokens that greedy decoding predicts correctly, at minimal cost.

    A short pass checks the first few tokens of the continuation; only sequences without a mismatch get the full pass. The
    head is never applied to the prompt.

    Args:
        model: as for `memtax.lm.scores.score`.
        sequences: token ids of each sequence.
        prompt: tokens in the prompt, of all sequences or of each.
        continuation: tokens in the continuation.
        suppressed: a token id that greedy decoding must not choose.
        batch_tokens: as for `score`.

    Returns:
        One number per sequence, `continuation` for memorized ones; None if it is shorter than prompt and continuation.

    Raises:
        RowError: the model cannot process a sequence, or its logits are NaN.
    """
    found: list[int | None] = [None] * len(sequences)
    prompts = [prompt] * len(sequences) if isinstance(prompt, int) else list(prompt)
    left = [row for row, sequence in enumerate(sequences) if len(sequence) >= prompts[row] + continuation]
    for looked in (FIRST_LOOK, continuation) if continuation > 2 * FIRST_LOOK else (continuation,):
        cut, starts = [sequences[row][: prompts[row] + looked] for row in left], [prompts[row] for row in left]
        try:
            scores = score(model, cut, suppressed=suppressed, start=starts, match_only=True, batch_tokens=batch_tokens)
        except RowError as error:
            raise error.at(left[error.row]) from error
        match = scores.match.reshape(len(left), looked)
        lengths = np.cumprod(match, axis=1).sum(axis=1)
        for row, length in zip(left, lengths.tolist(), strict=True):
            found[row] = length
        left = [row for row, length in zip(left, lengths.tolist(), strict=True) if length == looked]
    return found


def greedy_continuations(
    model: Any,
    sequences: Sequence[Tokens],
    scores: TokenScores,
    prompt: int | Sequence[int],
    continuation: int,
    *,
    suppressed: int | None = None,
    batch_tokens: int | None = None,
) -> list[list[int] | None]:
    """The continuation of each prompt by free-running greedy decoding.

    Up to the first mismatch, free-running decoding and teacher forcing agree, so decoding starts there; memorized sequences
    need no decoding.

    Args:
        model: as for `memtax.lm.scores.score`.
        sequences: token ids of each sequence.
        scores: their scores, with the same `suppressed`.
        prompt: tokens in the prompt, of all sequences or of each.
        continuation: tokens in the continuation.
        suppressed: a token id that greedy decoding must not choose. By default, end-of-sequence is treated like any token.
        batch_tokens: maximum positions per batch; None as for `score`.

    Returns:
        The generated tokens of each sequence; None if it is shorter than prompt and continuation.

    Raises:
        RowError: the model's logits for a sequence are NaN.
    """
    found: list[list[int] | None] = [None] * len(sequences)
    prompts = [prompt] * len(sequences) if isinstance(prompt, int) else list(prompt)
    rows = []
    for row, (sequence, begin) in enumerate(zip(sequences, prompts, strict=True)):
        if len(sequence) < begin + continuation:
            continue
        match = scores.row(row)[1][begin - 1 : begin + continuation - 1]
        leading = int(np.cumprod(match).sum())
        found[row] = list(sequence[begin : begin + leading])
        if leading < continuation:
            rows.append(row)
    prefixes = [[*sequences[row][: prompts[row]], *(found[row] or ())] for row in rows]
    counts = [prompts[row] + continuation - len(prefix) for row, prefix in zip(rows, prefixes, strict=True)]
    try:
        generated = generate(model, prefixes, counts, suppressed, batch_tokens)
    except RowError as error:
        raise error.at(rows[error.row]) from error
    for row, tokens in zip(rows, generated, strict=True):
        found[row] = [*(found[row] or ()), *tokens]
    return found


def generate(
    model: Any,
    prefixes: Sequence[Tokens],
    counts: Sequence[int],
    suppressed: int | None = None,
    batch_tokens: int | None = None,
) -> list[list[int]]:
    """Greedy continuations of given lengths; end-of-sequence does not stop them.

    Args:
        model: as for `memtax.lm.scores.score`; its BOS is put before every prefix that does not start with it.
        prefixes: token ids, at least one each.
        counts: number of tokens to generate after each prefix.
        suppressed: a token id that must not be chosen.
        batch_tokens: maximum positions per batch; None as for `score`.

    Returns:
        The generated tokens of each prefix.

    Raises:
        RowError: the model's logits for a prefix are NaN.
        ModelError: a single row does not fit into memory.
    """
    prefixes = [with_bos(prefix, bos_of(model)) for prefix in prefixes]
    found: list[list[int]] = [[] for _ in prefixes]
    kind = "cpu" if model.device.type == "cpu" else "accelerator"
    most = batch_tokens or fitting(model, "tokens", BATCH_TOKENS[kind])
    left = sorted(range(len(prefixes)), key=lambda row: (len(prefixes[row]), -counts[row]))
    with evaluation(model), torch.inference_mode():
        parts = decompose(model)
        # Rows of equal length need no padding. If the model cannot be decomposed, position ids cannot be passed; and a
        # recurrent state may remember padding for longer than a test on a few tokens shows.
        apart = parts is None or bool(getattr(model, "_is_stateful", False))
        alike = bool(left) and (apart or not ignores_padding(model))
        while left:
            longest = len(prefixes[left[0]]) + counts[left[0]]
            rows = left[: max(most // longest, 1)]
            if alike:
                rows = [row for row in rows if len(prefixes[row]) == len(prefixes[rows[0]])]
            own = [counts[row] for row in rows]
            try:
                new = _generate_batch(model, parts, [prefixes[row] for row in rows], own, suppressed)
            except RowError as error:
                raise error.at(rows[error.row]) from error
            except FAILURES as error:
                most = smaller(model, "tokens", error, (len(rows), longest), batch_tokens is None)
                continue
            for row, tokens in zip(rows, new.tolist(), strict=True):
                found[row] = tokens[: counts[row]]
            left = left[len(rows) :]
    return found


def _generate_batch(
    model: Any, parts: Parts | None, prefixes: Sequence[Tokens], counts: Sequence[int], suppressed: int | None
) -> npt.NDArray[np.int64]:
    """(rows, largest count) token ids. Prefixes are padded on the left, so that all rows continue at the same place."""
    longest = max(map(len, prefixes))
    ids = torch.tensor([[0] * (longest - len(prefix)) + list(prefix) for prefix in prefixes], device=model.device)
    mask = torch.tensor([[0] * (longest - len(prefix)) + [1] * len(prefix) for prefix in prefixes], device=model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    # A row goes on with the others when it has what it needs: it must not reach positions that the model does not have.
    last = torch.tensor(
        [[len(prefix) + count - 1] for prefix, count in zip(prefixes, counts, strict=True)], device=model.device
    )
    new: list[torch.Tensor] = []
    cache: Any = None
    cached = parts is not None and keeps_cache(model)
    bad: torch.Tensor | None = None
    for _ in range(max(counts)):
        # A model without a usable cache, or that cannot be decomposed, reads the whole row again.
        fresh = ids if cache is None else ids[:, -1:]
        if parts is None:
            logits = call(model, input_ids=ids, attention_mask=mask, use_cache=False).logits[:, -1]
        else:
            output = call(
                parts.backbone,
                input_ids=fresh,
                attention_mask=mask,
                position_ids=positions[:, -fresh.shape[1] :],
                past_key_values=cache,
                use_cache=cached,
            )
            cache = getattr(output, "past_key_values", None)
            logits = parts.logits(output[0][:, -1])
        # Checked after the last step only, because every check synchronizes with the accelerator.
        bad = unusable(logits) if bad is None else bad | unusable(logits)
        if suppressed is not None:
            logits[:, suppressed] = -torch.inf
        token = logits.float().argmax(-1, keepdim=True).to(ids.device)
        new.append(token)
        ids = torch.cat([ids, token], -1)
        mask = torch.cat([mask, torch.ones_like(token)], -1)
        positions = torch.cat([positions, (positions[:, -1:] + 1).minimum(last)], -1)
    if bad is not None and bool(bad.any()):
        raise RowError(NO_NUMBERS, int(bad.nonzero()[0]))
    return torch.cat(new, -1).cpu().numpy()
