"""The forward pass: scores of every token of a sequence, given the tokens before it.

All model-based measures (perplexities, extraction, membership scores) are computed from the values that this module returns.
Shifting and masking happen in `_needed` only.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from memtax.errors import RowError
from memtax.lm import fused
from memtax.lm.attention import AttentionRecorder, batch_limit, recording
from memtax.lm.batches import FEWEST, MULTIPLE, Block, PaddingSide, Ragged, first_block, order
from memtax.lm.decoding import Decoding
from memtax.lm.head import Parts, as_it_is, call, check_padding, decompose
from memtax.lm.memory import FAILURES, fitting, smaller
from memtax.lm.reduction import Wanted, reduce
from memtax.lm.served_names import Served
from memtax.lm.special_tokens import BosIds, bos_of, positions, with_bos
from memtax.progress import advance

BATCH_TOKENS = {"cpu": 4096, "accelerator": 65_536}
"""Positions per forward pass that keep two cores, and one accelerator, busy (see `score`)."""
_CHUNK_LOGITS = {"cpu": 2**20, "accelerator": 2**26}
"""Logits in memory at once, as far as chunks of `_CHUNK_ROWS` rows allow."""
_FUSED_LOGITS = 2**28
"""The same if they are reduced in their own dtype, without float32 copies."""
_CHUNK_ROWS = 2 * FEWEST
_WHOLE_LOGITS = 2**28
"""Logits in memory at once if the model only returns them for a whole batch."""

Found = dict[str, npt.NDArray[Any]]
Attention = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class TokenScores:
    """Concatenated scores of the tokens start..L-1 of every sequence; sequence i has `[offsets[i]:offsets[i + 1]]`.

    Entry j of a sequence belongs to its token start + j; start is 1 unless passed to `score`. A sequence of start or fewer
    tokens has no entries. Arrays that were not requested are None.
    """

    logprobs: npt.NDArray[np.float32]
    """Log-probability of the token, in nats; -inf if the model excludes it."""
    match: npt.NDArray[np.bool_]
    """Whether the token is the argmax (the first of equal logits), as chosen by `torch.argmax` and greedy `generate`."""
    offsets: npt.NDArray[np.int64]
    means: npt.NDArray[np.float32] | None = None
    """Mean over the vocabulary of log p under p, in nats: minus the entropy of the next token (Min-K%++)."""
    variances: npt.NDArray[np.float32] | None = None
    """Variance over the vocabulary of log p under p, in squared nats."""
    ranks: npt.NDArray[np.int32] | None = None
    """Number of vocabulary tokens ranked before the token: 0 for the argmax; of equal logits the first ranks first."""
    decoded: npt.NDArray[np.float32] | None = None
    """Log-probability that the sampling scheme draws the token, in nats; -inf if it is excluded."""
    near: npt.NDArray[np.bool_] | None = None
    """Near-ties: the two largest logits differ by no more than the rounding of a 16-bit dtype, so that another batch shape or
    card may choose the other token. None for wider dtypes."""
    unknown: npt.NDArray[np.bool_] | None = None
    """Sequences with tokens whose argmax is not known (of a served model), where `match` is not valid; None for none."""
    attention: Attention | None = None
    """`entropy` and `gini`, each (sequences, layers * heads): see `memtax.lm.attention`; NaN for sequences without entries."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of scored tokens in each sequence."""
        return np.diff(self.offsets)

    def row(self, index: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Log-probabilities and matches of one sequence."""
        entries = slice(self.offsets[index], self.offsets[index + 1])
        return self.logprobs[entries], self.match[entries]

    def split(self, array: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """Split one of the arrays by sequence."""
        return np.split(array, self.offsets[1:-1])[: len(self)]


def score(
    model: Any,
    sequences: Sequence[Sequence[int]],
    *,
    moments: bool = False,
    ranks: bool = False,
    decoding: Decoding | None = None,
    suppressed: int | None = None,
    start: int | Sequence[int] = 1,
    match_only: bool = False,
    attention: bool = False,
    batch_tokens: int | None = None,
    padding_side: PaddingSide = "right",
) -> TokenScores:
    """Score every token after the first of every sequence, with teacher forcing.

    Sequences are sorted by length and padded; an attention mask and position ids make the result independent of that (to about
    1e-5 in float32). The head is applied to the needed positions only, in chunks, in the model's own dtype; probabilities are
    reduced in float32. On a CPU, results are bitwise equal for 1, 2, 4, 8, ... threads.

    Args:
        model: a `transformers` causal language model, or a PEFT model around one. Dropout is disabled meanwhile. Its BOS (see
            `memtax.lm.special_tokens`) is put before every sequence that does not start with it, and has no entry.
        sequences: token ids of each sequence, of any length.
        moments: add `means` and `variances`.
        ranks: add `ranks`.
        decoding: add `decoded`, under this sampling scheme.
        suppressed: a token id that `match` treats as if the model could not choose it.
        start: first token to score, at least 1, for all sequences or for each: the head does not run for earlier tokens.
        match_only: leave `logprobs` empty, which saves the normalizing pass over the vocabulary.
        attention: add entropy and Gini coefficient of the attention weights; needs padding on the right.
        batch_tokens: positions per forward pass; None starts from a device-specific value and halves it whenever memory runs
            out, for this and later calls.
        padding_side: "right"; "left" only for pure attention models (a recurrent state remembers the padding).

    Returns:
        The scores, in the order of the sequences.

    Raises:
        ModelError: a token id is outside the model's vocabulary, a sequence has more tokens than the model has positions, the
            logits are NaN, a single sequence does not fit into memory, or the model does not ignore padding on the left.
    """
    if isinstance(model, Served):
        return TokenScores(**model.score(sequences))
    ragged = to_ragged(sequences, bos_of(model))
    longest = positions(model)
    check_ids(ragged, vocabulary_size(model))
    check_lengths(ragged, longest)
    coarse = model.dtype in (torch.bfloat16, torch.float16)
    wanted = Wanted(not match_only, moments, ranks, decoding, suppressed, coarse and not match_only)
    starts = np.broadcast_to(np.asarray(start, np.int64), ragged.lengths.shape)
    offsets = np.concatenate([[0], np.cumsum(np.maximum(ragged.lengths - ragged.before - starts, 0))])
    found = {name: torch.empty(int(offsets[-1]), dtype=dtype).numpy() for name, dtype in wanted.columns.items()}
    heads: Attention = {}
    recorder = recording(model) if attention else contextlib.nullcontext(None)
    with evaluation(model), torch.inference_mode(), recorder as recorded:
        if padding_side == "left":
            check_padding(model)
        for block, values in _forward(model, ragged, wanted, starts, batch_tokens, longest, padding_side, recorded):
            places = _entries(offsets, block.rows)
            for name, array in values.items():
                found[name][places] = array
            for name, array in (recorded.take(len(block.rows)) if recorded else {}).items():
                heads.setdefault(name, np.full((len(ragged.lengths), array.shape[1]), np.nan, np.float32))[block.rows] = array
            advance(len(block.rows))
    _check_numbers(found.pop("bad"), offsets)
    return TokenScores(offsets=offsets, attention=heads or None, **{"logprobs": np.empty(0, np.float32), **found})


def _entries(offsets: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Indices of all entries of these sequences, in the order of `rows`."""
    lengths = (offsets[1:] - offsets[:-1])[rows]
    before = np.cumsum(lengths) - lengths
    return np.repeat(offsets[rows] - before, lengths) + np.arange(int(lengths.sum()))


def _check_numbers(bad: npt.NDArray[np.bool_], offsets: npt.NDArray[np.int64]) -> None:
    """Raise a `RowError` for the first sequence with NaN logits."""
    if bad.any():
        row = int(np.searchsorted(offsets, int(bad.argmax()), side="right")) - 1
        raise RowError("the model's logits for {row} are not numbers (NaN); check its weights, or try dtype float32", row)


def _forward(
    model: Any,
    ragged: Ragged,
    wanted: Wanted,
    starts: npt.NDArray[np.int64],
    batch_tokens: int | None,
    longest: int | None,
    side: PaddingSide,
    recorder: AttentionRecorder | None,
) -> Iterator[tuple[Block, Found]]:
    """Run all sequences that have a token to score, in batches; a batch that does not fit is halved and run again."""
    kind = "cpu" if model.device.type == "cpu" else "accelerator"
    parts = decompose(model)
    most = batch_tokens or fitting(model, "scores", BATCH_TOKENS[kind])
    if parts is None:
        most = min(most, max(_WHOLE_LOGITS // vocabulary_size(model), 1))
    if recorder:
        most = min(most, batch_limit(model, int(ragged.lengths.max(initial=0))))
    rows = order(ragged, starts + 1)
    waiting: tuple[Block, Callable[[], Found]] | None = None
    while len(rows):
        block = first_block(ragged, rows, most, longest, side)
        try:
            before = ragged.before[block.rows]
            found = _score_block(model, parts, block, wanted, starts[block.rows], before, side, recorder)
        except FAILURES as error:
            if recorder:
                recorder.clear()
            most = smaller(model, "scores", error, (len(block.rows), block.ids.shape[1]), batch_tokens is None)
            continue
        if waiting:
            yield waiting[0], waiting[1]()
        waiting = block, found
        if recorder:
            # The recorder holds one batch only.
            yield block, found()
            waiting = None
        rows = rows[len(block.rows) :]
    if waiting:
        yield waiting[0], waiting[1]()


def _score_block(
    model: Any,
    parts: Parts | None,
    block: Block,
    wanted: Wanted,
    start: npt.NDArray[np.int64],
    before: npt.NDArray[np.int64],
    side: PaddingSide,
    recorder: AttentionRecorder | None,
) -> Callable[[], Found]:
    """The requested values of a batch's scored tokens, row by row; each text follows `before` BOS tokens.

    An accelerator still computes them when this returns: the next batch can be prepared before the values are asked for.
    """
    ids, mask = sent(block.ids, model.device), sent(block.mask, model.device)
    arguments: dict[str, Any] = {"input_ids": ids, "attention_mask": mask.long(), "use_cache": False}
    if recorder:
        # Attention to BOS counts; attention from BOS is not about the text. Padding is on the right.
        opening = np.arange(block.mask.shape[1]) < before[np.minimum(np.arange(len(block.mask)), len(before) - 1)][:, None]
        recorder.mask = mask & ~torch.from_numpy(opening).to(mask.device)
    if side == "right" and (model.dtype == torch.float64 or (model.device.type != "cpu" and block.mask.all())):
        # Models that compute the softmax in float32 (Gemma 2) turn the mask's minimum into infinity. Omitting the mask
        # changes nothing, since later tokens have no effect. Without padding, transformers would wait for an accelerator to
        # find that out.
        del arguments["attention_mask"]
    if side == "left":
        arguments["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    # If the model returns only logits, a prompt adapter's virtual tokens come first and have no target.
    states = call(parts.backbone, **arguments)[0] if parts else call(model, **arguments).logits[:, -ids.shape[1] :]
    needed = _needed(block.mask, start + before)
    places, targets = sent(np.flatnonzero(needed), states.device), sent(np.roll(block.ids, -1, 1)[needed], states.device)
    rows = states.flatten(0, 1).index_select(0, places)
    del states
    kind = "cpu" if rows.device.type == "cpu" else "accelerator"
    most = _FUSED_LOGITS if fused.usable(rows.device) else _CHUNK_LOGITS[kind]
    pieces = []
    for hidden, target in _chunks(rows, targets, most // (rows.shape[1] if parts is None else vocabulary_size(model))):
        logits = hidden if parts is None else parts.logits(hidden)
        pieces.append(reduce(logits, target.to(logits.device), wanted))
    return _fetched({name: torch.cat([piece[name] for piece in pieces])[: len(targets)] for name in wanted.columns})


def sent(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """The array on a device, without waiting for what that computes."""
    values = torch.from_numpy(array)
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def _fetched(values: dict[str, torch.Tensor]) -> Callable[[], Found]:
    """A function that returns the values as arrays. The copies from CUDA are queued before the next batch's work."""
    device = next(iter(values.values())).device
    if device.type != "cuda":
        found = {name: tensor.cpu().numpy() for name, tensor in values.items()}
        return lambda: found
    copies = {name: torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for name, tensor in values.items()}
    for name, tensor in values.items():
        copies[name].copy_(tensor, non_blocking=True)
    done = torch.cuda.Event()  # type: ignore[no-untyped-call]
    done.record(torch.cuda.current_stream(device))

    def wait() -> Found:
        done.synchronize()
        return {name: tensor.numpy() for name, tensor in copies.items()}

    return wait


def _needed(mask: npt.NDArray[np.bool_], skipped: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """The only shift and mask: the state at position t predicts token t + 1, and both must be tokens, not padding.

    Args:
        mask: (batch, length), True on tokens.
        skipped: (rows), index of the first token to score, without padding, for the leading rows of the batch; the other
            rows only fill the batch.

    Returns:
        (batch, length), the positions whose states predict a token to score.
    """
    rows = len(skipped)
    needed = np.zeros_like(mask)
    needed[:rows, :-1] = mask[:rows, :-1] & mask[:rows, 1:]
    if (skipped > 1).any():
        needed[:rows] &= mask[:rows].cumsum(-1) >= skipped[:, None]
    return needed


def _chunks(rows: torch.Tensor, targets: torch.Tensor, most: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Equal chunks of about `most` rows; the last is padded with zeros, and none is below `FEWEST` (see `batches`)."""
    count = -(-len(rows) // max(most, _CHUNK_ROWS))
    size = max(-(-len(rows) // (count * MULTIPLE)) * MULTIPLE, FEWEST)
    missing = count * size - len(rows)
    rows = torch.nn.functional.pad(rows, (0, 0, 0, missing))
    targets = torch.nn.functional.pad(targets, (0, missing))
    yield from zip(torch.split(rows, size), torch.split(targets, size), strict=True)


def to_ragged(sequences: Sequence[Sequence[int]], bos: BosIds = ()) -> Ragged:
    """Concatenate the sequences, putting the BOS ids before those that do not start with them."""
    before: npt.NDArray[np.int64] | None = None
    if bos:
        opened = [with_bos(sequence, bos) for sequence in sequences]
        before = np.array([len(new) - len(old) for new, old in zip(opened, sequences, strict=True)], np.int64)
        sequences = opened
    lengths = np.fromiter((len(sequence) for sequence in sequences), dtype=np.int64, count=len(sequences))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    flat = np.fromiter(itertools.chain.from_iterable(sequences), dtype=np.int64, count=int(offsets[-1]))
    return Ragged(flat, offsets, before)


def vocabulary_size(model: Any) -> int:
    """Number of token ids that the model can both read and predict."""
    sizes = [model.get_input_embeddings().weight.shape[0]]
    head = model.get_output_embeddings()
    if head is not None and hasattr(head, "weight"):
        sizes.append(head.weight.shape[0])
    return int(min(sizes))


def check_ids(ragged: Ragged, vocabulary: int) -> None:
    """Raise a `RowError` at the first token id outside the vocabulary."""
    bad = np.flatnonzero((ragged.flat < 0) | (ragged.flat >= vocabulary))
    if bad.size:
        raise RowError(
            f"token id {ragged.flat[bad[0]]} in {{row}} is outside the model's vocabulary of {vocabulary}; "
            "were the sequences made with another tokenizer?",
            ragged.row_of(int(bad[0])),
        )


def check_lengths(ragged: Ragged, longest: int | None) -> None:
    """Raise a `RowError` for a sequence with more tokens than the model has positions; None means no limit."""
    if longest is not None and len(ragged.lengths) and ragged.lengths.max() > longest:
        row = int(ragged.lengths.argmax())
        raise RowError(
            f"{{row}} has {ragged.lengths[row]} tokens{' (BOS included)' if ragged.before[row] else ''} but the model has "
            f"{longest} positions; cut the sequences to windows",
            row,
        )


@contextlib.contextmanager
def evaluation(model: Any) -> Iterator[None]:
    """Evaluation mode; each module's own mode is restored afterwards, since the model may be in the middle of training.

    A Trainer with 16-bit precision wraps the forward pass: here the model computes in the dtype of its weights, as it will
    when it is loaded from the checkpoint.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with as_it_is(model):
            yield
    finally:
        for module in training:
            module.training = True
