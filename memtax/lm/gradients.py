"""Per-example gradients of the loss, from one batched forward and backward pass, as kernels (see `_kernels`).

The loss of an example is the mean negative log-likelihood of its own targets, so it does not depend on the rest of the batch.
The backward pass computes no weight gradients, only gradients of the activations.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from memtax.errors import MemtaxError, ModelError, RowError
from memtax.lm._checking import check_gradients
from memtax.lm._kernels import Flat, Head, Held, Kernel, Outer, Recomputed, Table, Tied
from memtax.lm._recording import Recorder, Sites, check_uncalled, find_sites, frozen
from memtax.lm._targets import Targets
from memtax.lm.batches import PaddingSide, Ragged
from memtax.lm.folders import first_line
from memtax.lm.head import call, check_padding, decompose
from memtax.lm.memory import FAILURES, fitting, smaller
from memtax.lm.scores import check_ids, check_lengths, evaluation, sent, to_ragged, vocabulary_size
from memtax.lm.special_tokens import bos_of, positions

PARAMETERS = ("head", "embeddings+head", "lora", "all-linear")
"""Parameter sets: the LM head; the head and the input embedding; the weights of LoRA adapters; every linear layer and the head.

Biases are separate tensors. A tensor that is both head and embedding is one tensor, whose gradient has both parts.
"""

BATCH_TOKENS = {"cpu": 256, "accelerator": 16_384}
"""Positions per pass: more would only use more memory on CPUs."""
_CHUNK_LOGITS = {"cpu": 2**23, "accelerator": 2**28}
_HELD_ERRORS = {"cpu": 2**26, "accelerator": 2**30}
"""Maximum number of errors at the logits to keep instead of recomputing, if the caller needs them immediately."""
_FAINT = 2**30
"""Multiple of the smallest normal number below which probabilities have lost precision."""
_FLAT = 64
"""A gradient of r x c numbers is materialized if that is at most the size of its factors for this many tokens."""

Gram = dict[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Gradients:
    """Gradients of several examples with respect to the tensors of a parameter set.

    Attributes:
        kernels: name of the parameter, as in `model.named_parameters()`, to its gradients.
        sizes: parameter name to number of elements.
        targets: number of tokens that each example's loss averages over; if 0, the gradient is 0.
    """

    kernels: Mapping[str, Kernel]
    sizes: Mapping[str, int]
    targets: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.targets)

    def part(self, start: int, stop: int) -> "Gradients":
        """The examples start..stop-1, without copies."""
        kernels = {name: kernel.part(start, stop) for name, kernel in self.kernels.items()}
        return Gradients(kernels, self.sizes, self.targets[start:stop])

    def gram(self, other: "Gradients | None" = None) -> Gram:
        """Inner products for every tensor.

        Args:
            other: gradients of the same model and parameter set; None: these gradients.

        Returns:
            Name to (examples, examples of `other`). Their sum gives the inner products over the whole set.
        """
        others = (self if other is None else other).kernels
        return {name: _numpy(kernel.gram(others[name])) for name, kernel in self.kernels.items()}  # type: ignore[arg-type]

    def star(self) -> tuple[Gram, Gram]:
        """Squared norms, and inner products with the first example, for every tensor: each (examples)."""
        return self.begin_star()()

    def begin_star(self) -> Callable[[], tuple[Gram, Gram]]:
        """`star` for accelerators, which compute until the returned function is called for the values."""
        found = [torch.stack(kernel.star()) for kernel in self.kernels.values()]
        # One copy for all tensors; layers may be on several devices.
        whole = torch.stack([values.to(found[0].device) for values in found])

        def wait() -> tuple[Gram, Gram]:
            norms, first = _numpy(whole).transpose(1, 0, 2)
            return dict(zip(self.kernels, norms, strict=True)), dict(zip(self.kernels, first, strict=True))

        return wait

    def norms(self) -> Gram:
        """Squared norms for every tensor, (examples)."""
        ones = [self.part(index, index + 1).gram() for index in range(len(self))]
        return {name: np.array([one[name][0, 0] for one in ones]) for name in self.kernels}


def capture(
    model: Any,
    sequences: Sequence[Sequence[int]],
    *,
    parameters: str = "embeddings+head",
    scored: Sequence[Sequence[bool]] | None = None,
    batch_tokens: int | None = None,
    padding_side: PaddingSide = "right",
    keep_errors: bool = False,
) -> Gradients:
    """The gradients of each sequence's mean loss.

    On the first use of a model's parameter set, its gradients at one short example are compared with autograd's.

    Args:
        model: a `transformers` causal language model, or a PEFT model around one. Its own `requires_grad` flags and `.grad`
            stay unchanged. Its BOS is put before every sequence that does not start with it, and is not a target.
        sequences: token ids of each sequence. The gradient of a sequence without a target (fewer than two tokens) is 0.
        parameters: one of `PARAMETERS`.
        scored: for each sequence, which tokens count as targets, with the sequence's length; None: all. The first token is
            never a target, since it has no context except possibly BOS.
        batch_tokens: positions per pass; None starts from a device-specific value and halves it whenever memory runs out.
        padding_side: "right"; "left" only for pure attention models.
        keep_errors: keep errors that would otherwise be recomputed on every use, if all sequences fit one batch and the
            errors fit the limit; for inner products that are needed once and immediately.

    Returns:
        The gradients, in the order of the sequences, as kernels, which use as much memory as the activations.

    Raises:
        ModelError: a token id or length is invalid for the model, the model does not have the parameter set, gradients
            differ from autograd's, the model does not ignore padding on the left, or a single sequence does not fit into
            memory.
        MemtaxError: `scored` does not match the sequences.
    """
    ragged = to_ragged(sequences, bos_of(model))
    check_ids(ragged, vocabulary_size(model))
    check_lengths(ragged, positions(model))
    weights = _weights(ragged, scored)
    sites = find_sites(model, parameters)
    kind = "cpu" if model.device.type == "cpu" else "accelerator"
    most = batch_tokens or BATCH_TOKENS[kind]
    whole = len(ragged.lengths) * int(ragged.lengths.max(initial=0))
    if keep_errors and whole * vocabulary_size(model) <= _HELD_ERRORS[kind]:
        most = max(most, whole)
    if batch_tokens is None:
        most = fitting(model, parameters, most)
    left = _order(ragged.lengths, most)
    pieces: dict[int, dict[str, Kernel]] = {}
    with evaluation(model), frozen(model):
        if padding_side == "left":
            check_padding(model)
        _check_once(model, sites, parameters, padding_side, kind)
        while len(left):
            rows = left[: rows_that_fit(ragged.lengths[left], most)]
            whole = len(rows) == len(ragged.lengths)
            try:
                found = _capture_batch(model, sites, ragged, weights, rows, padding_side, keep_errors and whole, kind)
            except RowError as error:
                raise error.at(int(rows[error.row])) from error
            except FAILURES as error:
                shape = len(rows), int(ragged.lengths[rows].max())
                most = smaller(model, parameters, error, shape, batch_tokens is None)
                continue
            if whole:
                return _finish(found, sites, weights)
            left = left[len(rows) :]
            for place, row in enumerate(rows):
                pieces[int(row)] = {name: kernel.part(place, place + 1) for name, kernel in found.items()}
    if not pieces:
        raise MemtaxError("there are no sequences to compute gradients for")
    joined = {name: join([pieces[row][name] for row in range(len(pieces))]) for name in sites.names}
    return _finish(joined, sites, weights)


def _check_once(model: Any, sites: Sites, parameters: str, side: PaddingSide, kind: str) -> None:
    """Compare the set's gradients with autograd's on its first use."""

    def short(examples: Sequence[Sequence[int]]) -> Mapping[str, Kernel]:
        rows = to_ragged(examples)
        return _capture_batch(model, sites, rows, _weights(rows, None), np.arange(len(examples)), side, False, kind)

    try:
        check_gradients(model, sites, (parameters, side), short)
    except MemtaxError:
        raise
    except FAILURES as error:
        line = first_line(error)
        raise ModelError(f"{type(model).__name__} gives no gradients of the parameter set {parameters!r}: {line}") from error


def join(kernels: Sequence[Kernel]) -> Kernel:
    """Concatenate gradients of one tensor from several sets of examples."""
    first = kernels[0]
    if isinstance(first, Flat):
        return Flat(torch.cat([kernel.values for kernel in kernels]))  # type: ignore[union-attr]
    if isinstance(first, Tied):
        head = join([kernel.head for kernel in kernels])  # type: ignore[union-attr]
        embedding = join([kernel.embedding for kernel in kernels])  # type: ignore[union-attr]
        return Tied(head, embedding)  # type: ignore[arg-type]
    lengths = tuple(length for kernel in kernels for length in kernel.lengths)  # type: ignore[union-attr]
    if isinstance(first, Table):
        return Table(lengths, *(torch.cat([getattr(kernel, name) for kernel in kernels]) for name in ("ids", "values")))
    errors = [kernel.errors for kernel in kernels]  # type: ignore[union-attr]
    left = torch.cat([kernel.left for kernel in kernels])  # type: ignore[union-attr]
    if isinstance(first.errors, Held):
        return Outer(lengths, left, Held(torch.cat([error.columns(slice(None)) for error in errors])))
    names = ("hidden", "targets", "normalizers")
    return Outer(
        lengths, left, Recomputed(first.errors.head, *(torch.cat([getattr(error, name) for error in errors]) for name in names))
    )


def _finish(kernels: Mapping[str, Kernel], sites: Sites, weights: Sequence[npt.NDArray[np.float64]]) -> Gradients:
    return Gradients(kernels, sites.sizes, tuple(int(np.count_nonzero(weight)) for weight in weights))


def _numpy(values: torch.Tensor) -> npt.NDArray[np.float64]:
    # Some accelerators have no float64.
    return values.cpu().double().numpy()


def _weights(ragged: Ragged, scored: Sequence[Sequence[bool]] | None) -> list[npt.NDArray[np.float64]]:
    """For each sequence with BOS, the weight in its loss of tokens 1.., 1 / N for targets: (length - 1)."""
    before = ragged.before
    texts = ragged.lengths - before
    if scored is not None and [len(row) for row in scored] != texts.tolist():
        raise MemtaxError("scored must have an entry for every token of every sequence")
    found = []
    for row, length in enumerate(texts):
        counted = np.ones(max(length - 1, 0), bool) if scored is None else np.asarray(scored[row][1:], bool)
        # The first token is not scored after BOS either. An empty text after BOS has BOS - 1 positions.
        counted = np.concatenate([np.zeros(before[row] if length else max(before[row] - 1, 0), bool), counted])
        found.append(counted / max(counted.sum(), 1))
    return found


def _order(lengths: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    """Rows in their own order if one batch fits all, otherwise sorted by length, longest first."""
    return np.arange(len(lengths)) if rows_that_fit(lengths, most) >= len(lengths) else np.argsort(-lengths, kind="stable")


def rows_that_fit(lengths: npt.NDArray[np.int64], most: int) -> int:
    """Number of leading sequences that fit one batch."""
    return max(most // max(int(lengths.max(initial=0)), 1), 1)


def _capture_batch(
    model: Any,
    sites: Sites,
    ragged: Ragged,
    weights: Sequence[npt.NDArray[np.float64]],
    rows: npt.NDArray[np.int64],
    side: PaddingSide,
    keep: bool,
    kind: str,
) -> dict[str, Kernel]:
    """Kernels of one batch of sequences, in its order."""
    tokens, mask = rectangle(ragged, rows, side)
    ids, targets = sent(tokens, model.device), Targets(tokens, mask, model.device)
    dtype = torch.float64 if model.dtype == torch.float64 else torch.float32
    weight = sent(np.concatenate([weights[row] for row in rows]).astype(str(dtype).removeprefix("torch.")), model.device)
    arguments: dict[str, Any] = {"input_ids": ids, "use_cache": False}
    if side == "left":
        # Padding on the right follows all scored positions, so no mask, and no slower masked attention, is needed.
        places = np.maximum(mask.cumsum(-1) - 1, 0)
        arguments |= {"attention_mask": sent(mask.astype(np.int64), model.device), "position_ids": sent(places, model.device)}
    parts = decompose(model)
    split = parts is not None and type(parts.head) is torch.nn.Linear
    deep = not split or sites.deep
    with Recorder(sites, deep) as recorder, torch.set_grad_enabled(deep):
        if not split:
            states = call(model, **arguments).logits[:, -ids.shape[1] :]
            scored = targets.of(states).to(dtype)
            _check_numbers(scored.isnan().any(-1), targets.lengths)
            if deep and len(targets):
                torch.autograd.backward(scored, _logit_errors(scored.detach(), targets.next_ids, weight))
            outer, biases = None, None
        else:
            assert parts is not None
            states = call(parts.backbone, **arguments)[0]
            layer: Any = parts.head
            head = Head(layer.weight.detach(), None if layer.bias is None else layer.bias.detach(), parts.adjust)
            held = keep and len(targets) * head.weight.shape[0] <= _HELD_ERRORS[kind]
            # With layers on several devices, the head may be on another one than the last layer and the input.
            place = head.weight.device
            hidden = targets.of(states.detach()).to(place)
            outer, below, biases = _through_head(head, hidden, targets, weight.to(place), held, deep, _CHUNK_LOGITS[kind])
            if deep and len(targets):
                torch.autograd.backward(states, targets.spread(below, states))
    check_uncalled(model, recorder.uncalled(), ids)
    return recorder.kernels(targets, dtype, _FLAT, outer, biases)


def rectangle(
    ragged: Ragged, rows: npt.NDArray[np.int64], side: PaddingSide
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Ids and mask, (batch, longest); 0 under padding."""
    lengths = ragged.lengths[rows]
    longest = max(int(lengths.max()), 1)
    ids, mask = np.zeros((len(rows), longest), np.int64), np.zeros((len(rows), longest), bool)
    for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        span = slice(0, length) if side == "right" else slice(longest - length, longest)
        ids[place, span] = ragged.flat[ragged.offsets[row] : ragged.offsets[row + 1]]
        mask[place, span] = True
    return ids, mask


def _check_numbers(bad: torch.Tensor, lengths: tuple[int, ...]) -> None:
    """Reject an example with a target whose probability is not a number.

    Raises:
        RowError: there is one; the row is its index in the batch.
    """
    places = bad.nonzero()
    if len(places):
        row = int(torch.repeat_interleave(torch.tensor(lengths))[int(places[0])])
        raise RowError("the gradients at {row} are not numbers (NaN); check the weights, or try dtype float32", row)


def _logit_errors(logits: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    errors = logits.softmax(-1)
    errors[torch.arange(len(targets), device=errors.device), targets] -= 1
    return errors * weight[:, None]


@torch.no_grad()
def _through_head(
    head: Head,
    hidden: torch.Tensor,
    targets: Targets,
    weight: torch.Tensor,
    held: bool,
    deep: bool,
    chunk_logits: int,
) -> tuple[Outer, torch.Tensor, Flat | None]:
    """Head and loss, a chunk of rows at a time.

    Args:
        head: the head.
        hidden: (rows, width), the head's input.
        targets: the rows' targets and examples.
        weight: (rows), weight of each row in its example's loss.
        held: keep the errors at the head's product.
        deep: compute the gradient of the loss with respect to `hidden`.
        chunk_logits: maximum logits at once.

    Returns:
        The head's gradients; the gradient of the loss with respect to `hidden`; the gradients of the head's bias, if any.
    """
    dtype, lengths = weight.dtype, targets.lengths
    next_ids, owner = targets.next_ids.to(hidden.device), targets.owners.to(hidden.device)
    hidden = hidden.to(head.weight.dtype)
    size = max(chunk_logits // head.weight.shape[0], 64)
    kept = torch.empty(len(hidden), head.weight.shape[0], dtype=dtype, device=hidden.device) if held else None
    normalizers, faint = (torch.empty(len(hidden), dtype=kind, device=hidden.device) for kind in (dtype, torch.bool))
    below = torch.empty_like(hidden, dtype=dtype) if deep else hidden[:0]
    sums = None if head.bias is None else torch.zeros(len(lengths), len(head.bias), dtype=dtype, device=hidden.device)
    for start in range(0, len(hidden), size):
        rows = slice(start, start + size)
        product = head.product(hidden[rows], slice(None))
        logits = head.adjust(product).to(dtype)
        place = torch.arange(len(logits), device=logits.device)
        chosen = logits[place, next_ids[rows]]
        # Overwrites the logits (and the product, if it is the same tensor): a chunk is the largest tensor in memory.
        errors = torch.softmax(logits, -1, out=logits if kept is None else kept[rows])
        probability = errors[place, next_ids[rows]]
        normalizers[rows] = chosen - probability.log()
        errors[place, next_ids[rows]] -= 1
        del logits
        brought = head.derivative(product, errors)
        if kept is not None and brought is not errors:
            kept[rows] = brought
        errors = brought
        del product, brought
        faint[rows] = probability < _FAINT * torch.finfo(dtype).tiny
        if deep:
            below[rows] = (errors.to(head.weight.dtype) @ head.weight).to(dtype) * weight[rows, None]
        if sums is not None:
            sums.index_add_(0, owner[rows], errors * weight[rows, None])
    # A probability that underflows has no logarithm, so those logits are recomputed: once, as finding them waits for a card.
    for lost in torch.split(faint.nonzero()[:, 0], size):
        normalizers[lost] = head.adjust(head.product(hidden[lost], slice(None))).to(dtype).logsumexp(-1)
    _check_numbers(normalizers.isnan(), lengths)
    left = hidden.to(dtype) * weight[:, None]
    found = Held(kept) if kept is not None else Recomputed(head, hidden, next_ids, normalizers)
    return Outer(lengths, left, found), below, None if sums is None else Flat(sums)
