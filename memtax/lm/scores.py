"""The forward pass: what a causal language model says about every token of a sequence, given the tokens before it.

Everything that memtax reads off a model (perplexities, extraction, membership scores) is computed from what this module
returns. Shifting and masking live in `_needed` alone.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from memtax.errors import ModelError
from memtax.lm.batches import FEWEST, MULTIPLE, Block, PaddingSide, Ragged, blocks
from memtax.lm.head import Parts, call, decompose

BATCH_TOKENS = {"cpu": 4096, "accelerator": 65_536}
"""Positions a forward pass: what two cores, and one accelerator, are kept busy by (see `score`)."""
_CHUNK_LOGITS = {"cpu": 2**20, "accelerator": 2**26}
"""Logits held at once, as far as chunks of `_CHUNK_ROWS` rows allow: on a CPU they should stay in the cache."""
_CHUNK_ROWS = 2 * FEWEST
_WHOLE_LOGITS = 2**28
"""Logits held at once where the model gives them for a whole batch only."""


@dataclass(frozen=True)
class TokenScores:
    """Scores of the tokens 1..L-1 of every sequence, end to end: sequence i has `[offsets[i]:offsets[i + 1]]`.

    Entry j of a sequence is about its token j + 1. A sequence of no or one token has no entries.
    """

    logprobs: npt.NDArray[np.float32]
    """Log-probability of the token, in nats; -inf where the model excludes it."""
    match: npt.NDArray[np.bool_]
    """Whether the token is the argmax: of equal logits the first, as `torch.argmax` and greedy `generate` choose."""
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Scored tokens of each sequence: one fewer than it has tokens."""
        return np.diff(self.offsets)

    def row(self, index: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Log-probabilities and matches of one sequence."""
        entries = slice(self.offsets[index], self.offsets[index + 1])
        return self.logprobs[entries], self.match[entries]


def score(
    model: Any,
    sequences: Sequence[Sequence[int]],
    *,
    batch_tokens: int | None = None,
    padding_side: PaddingSide = "right",
) -> TokenScores:
    """Score every token after the first of every sequence, under teacher forcing.

    The sequences are sorted by length and padded; an attention mask and position ids make the result independent of that
    (to about 1e-5 in float32). The head is applied to the needed positions only, in chunks, in the model's own dtype;
    probabilities are reduced in float32. On a CPU the result is the same bits for 1, 2, 4, 8, ... threads.

    Args:
        model: a `transformers` causal language model, or a PEFT model around one. Dropout is off while it runs.
        sequences: token ids of each sequence, of any length.
        batch_tokens: positions a forward pass; None chooses for the model's device.
        padding_side: "right"; "left" serves models that only attend (a recurrent state remembers padding before it).

    Returns:
        The scores, in the order of the sequences.

    Raises:
        ModelError: a token id is outside the model's vocabulary, a sequence is longer than the model's positions, or the
            model's logits are not numbers.
    """
    ragged = _ragged(sequences)
    longest = _longest(model)
    _check_ids(ragged, _vocabulary(model))
    _check_lengths(ragged, longest)
    offsets = np.concatenate([[0], np.cumsum(np.maximum(ragged.lengths - 1, 0))])
    logprobs = np.empty(offsets[-1], dtype=np.float32)
    match = np.empty(offsets[-1], dtype=np.bool_)
    kind = "cpu" if model.device.type == "cpu" else "accelerator"
    with _evaluation(model), torch.inference_mode():
        parts = decompose(model)
        most = batch_tokens or BATCH_TOKENS[kind]
        if parts is None:
            most = min(most, _WHOLE_LOGITS // _vocabulary(model))
        for block in blocks(ragged, most, longest, padding_side):
            found, matched = _score_block(model, parts, block, padding_side, _CHUNK_LOGITS[kind])
            places = np.concatenate([np.arange(offsets[row], offsets[row + 1]) for row in block.rows])
            logprobs[places], match[places] = found, matched
    bad = np.flatnonzero(np.isnan(logprobs))
    if bad.size:
        row = int(np.searchsorted(offsets, bad[0], side="right")) - 1
        raise ModelError(f"the model's logits for row {row} are not numbers (NaN); check its weights, or try dtype float32")
    return TokenScores(logprobs, match, offsets)


def _score_block(
    model: Any, parts: Parts | None, block: Block, side: PaddingSide, chunk_logits: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Log-probabilities and matches of a batch's scored tokens, row after row."""
    ids = torch.from_numpy(block.ids).to(model.device)
    mask = torch.from_numpy(block.mask).to(model.device)
    arguments: dict[str, Any] = {"input_ids": ids, "attention_mask": mask.long(), "use_cache": False}
    if side == "left":
        arguments["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    # Where the model gives logits only: virtual tokens of a prompt adapter come first and have no target.
    states = call(parts.backbone, **arguments)[0] if parts else call(model, **arguments).logits[:, -ids.shape[1] :]
    rows, targets = _needed(states, ids, mask, len(block.rows))
    found, matched = [], []
    for hidden, target in _chunks(rows, targets, chunk_logits // (rows.shape[1] if parts is None else _vocabulary(model))):
        logits = (hidden if parts is None else parts.logits(hidden)).float()
        target = target.to(logits.device)
        found.append(-torch.nn.functional.cross_entropy(logits, target, reduction="none"))
        matched.append(logits.argmax(-1) == target)
    count = len(targets)
    return torch.cat(found)[:count].cpu().numpy(), torch.cat(matched)[:count].cpu().numpy()


def _needed(states: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The one shift and mask: the state at position t is about token t + 1, and both must be tokens, not padding.

    Args:
        states: (batch, length, width).
        ids: (batch, length).
        mask: (batch, length), True on tokens.
        rows: how many leading rows of the batch are asked for; the others only fill it.

    Returns:
        States (scored tokens, width) and the tokens they are about (scored tokens), row after row.
    """
    needed = mask[:rows, :-1] & mask[:rows, 1:]
    return states[:rows, :-1][needed.to(states.device)], ids[:rows, 1:][needed]


def _chunks(rows: torch.Tensor, targets: torch.Tensor, most: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Equal chunks of about `most` rows, the last one filled up with zeros, none below `FEWEST` (see `batches`)."""
    count = -(-len(rows) // max(most, _CHUNK_ROWS))
    size = max(-(-len(rows) // (count * MULTIPLE)) * MULTIPLE, FEWEST)
    missing = count * size - len(rows)
    rows = torch.nn.functional.pad(rows, (0, 0, 0, missing))
    targets = torch.nn.functional.pad(targets, (0, missing))
    yield from zip(torch.split(rows, size), torch.split(targets, size), strict=True)


def _ragged(sequences: Sequence[Sequence[int]]) -> Ragged:
    lengths = np.fromiter((len(sequence) for sequence in sequences), dtype=np.int64, count=len(sequences))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    flat = np.fromiter((token for sequence in sequences for token in sequence), dtype=np.int64, count=int(offsets[-1]))
    return Ragged(flat, offsets)


def _vocabulary(model: Any) -> int:
    """Token ids that the model can both read and predict."""
    sizes = [model.get_input_embeddings().weight.shape[0]]
    head = model.get_output_embeddings()
    if head is not None and hasattr(head, "weight"):
        sizes.append(head.weight.shape[0])
    return int(min(sizes))


def _longest(model: Any) -> int | None:
    """Positions that the model was made for, or None where its configuration names no limit."""
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(longest) if longest else None


def _check_ids(ragged: Ragged, vocabulary: int) -> None:
    bad = np.flatnonzero((ragged.flat < 0) | (ragged.flat >= vocabulary))
    if bad.size:
        raise ModelError(
            f"token id {ragged.flat[bad[0]]} in row {ragged.row_of(int(bad[0]))} is outside the model's vocabulary of "
            f"{vocabulary}; were the sequences made with another tokenizer?"
        )


def _check_lengths(ragged: Ragged, longest: int | None) -> None:
    if longest is not None and len(ragged.lengths) and ragged.lengths.max() > longest:
        row = int(ragged.lengths.argmax())
        raise ModelError(
            f"row {row} has {ragged.lengths[row]} tokens but the model has {longest} positions; cut the sequences to windows"
        )


@contextlib.contextmanager
def _evaluation(model: Any) -> Iterator[None]:
    """Evaluation mode, and afterwards each module's own mode again: the model may be in the middle of training."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
