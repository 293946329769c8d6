"""Inner products of gradients that are never materialized.

The gradient of a linear map y = W x is a sum over tokens of outer products, error times input, so
<G1, G2> = sum_ts (a1_t . a2_s)(b1_t . b2_s), which is cheap if texts are shorter than the layer is wide. For longer texts it is
cheaper to form the gradients, a block of outputs at a time. Each class represents the gradients of some examples with respect
to one tensor, and chooses the cheaper way by the number of multiplications.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from memtax.lm._targets import owners
from memtax.lm.head import Adjustment

Columns = slice | torch.Tensor
"""Outputs of a linear map, as a range or a list of ids."""

_HELD = 2**24
"""Numbers held at once in a matrix of two sets of rows, or in a block of gradients (64 MiB in float32)."""
_PADDED = 2**28
"""Errors held at once for all examples of a group (1 GiB in float32), on accelerators."""
_EXAMPLES = 1024
"""Examples whose gradients are formed together."""


@dataclass(frozen=True)
class Held:
    """Errors b at a linear map's output, (rows, width), kept in memory."""

    values: torch.Tensor

    @property
    def width(self) -> int:
        """Number of outputs of the map."""
        return self.values.shape[1]

    def columns(self, which: Columns) -> torch.Tensor:
        """Errors at some outputs."""
        return self.values[:, which]

    def rows(self, which: slice) -> "Held":
        """Errors of some rows."""
        return Held(self.values[which])


@dataclass(frozen=True)
class Head:
    """A linear head and the operation between its product and the logits."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    adjust: Adjustment

    def product(self, hidden: torch.Tensor, which: Columns) -> torch.Tensor:
        """The head's product at some outputs, in the model's dtype."""
        bias = None if self.bias is None else self.bias[which]
        return torch.nn.functional.linear(hidden, self.weight[which], bias)

    def derivative(self, product: torch.Tensor, errors: torch.Tensor) -> torch.Tensor:
        """Errors at the logits, propagated back to the product."""
        with torch.enable_grad():
            product = product.detach().requires_grad_()
            logits = self.adjust(product)
            if logits is product:
                return errors
            return torch.autograd.grad(logits, product, errors.to(logits.dtype))[0].to(errors.dtype)


@dataclass(frozen=True)
class Recomputed:
    """Errors softmax - onehot of a head, recomputed from its input on every use.

    Args:
        head: the head.
        hidden: (rows, width of the model), the head's input.
        targets: (rows), the tokens to predict.
        normalizers: (rows), log of the sum over the vocabulary of exp(logits).
    """

    head: Head
    hidden: torch.Tensor
    targets: torch.Tensor
    normalizers: torch.Tensor

    @property
    def width(self) -> int:
        """Size of the vocabulary."""
        return self.head.weight.shape[0]

    def columns(self, which: Columns) -> torch.Tensor:
        """Errors at some tokens of the vocabulary."""
        product = self.head.product(self.hidden.to(self.head.weight.dtype), which)
        errors = (self.head.adjust(product).to(self.normalizers.dtype) - self.normalizers[:, None]).exp_()
        if isinstance(which, slice):
            start, stop, _ = which.indices(self.width)
            # Every row subtracts, most of them 0: selecting rows would wait for the accelerator at every block.
            inside = (self.targets >= start) & (self.targets < stop)
            places = (self.targets - start).clamp(0, max(stop - start - 1, 0))
            errors[torch.arange(len(errors), device=errors.device), places] -= inside.to(errors.dtype)
        else:
            errors -= (self.targets[:, None] == which[None, :]).to(errors.dtype)
        return self.head.derivative(product, errors)

    def rows(self, which: slice) -> "Recomputed":
        """Errors of some rows."""
        return Recomputed(self.head, self.hidden[which], self.targets[which], self.normalizers[which])


Errors = Held | Recomputed


@dataclass(frozen=True)
class Flat:
    """Materialized gradients, for biases and small tensors where this uses the least memory. `values`: (examples, numbers)."""

    values: torch.Tensor

    def __len__(self) -> int:
        return len(self.values)

    def part(self, start: int, stop: int) -> "Flat":
        """The examples start..stop-1."""
        return Flat(self.values[start:stop])

    def gram(self, other: "Flat") -> torch.Tensor:
        """Inner products, (examples, examples of `other`)."""
        return self.values @ other.values.T

    def star(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Squared norms, and inner products with the first example."""
        return self.values.square().sum(1), self.values @ self.values[0]


@dataclass(frozen=True)
class Outer:
    """Gradients sum_t b_t a_t^T; example i has `lengths[i]` rows, in the order of the examples."""

    lengths: tuple[int, ...]
    left: torch.Tensor
    """(rows, inputs): a, times the row's weight in the loss if `errors` omits that weight."""
    errors: Errors

    def __len__(self) -> int:
        return len(self.lengths)

    def part(self, start: int, stop: int) -> "Outer":
        """The examples start..stop-1."""
        rows = _rows(self.lengths, start, stop)
        return Outer(self.lengths[start:stop], self.left[rows], self.errors.rows(rows))

    def gram(self, other: "Outer") -> torch.Tensor:
        """Inner products, (examples, examples of `other`), computed the cheaper way."""
        ours, theirs = sum(self.lengths), sum(other.lengths)
        by_rows = self._rows_are_cheaper(ours * theirs, ours + theirs * (other is not self), len(self) * len(other))
        return self.gram_by_rows(other) if by_rows else self.gram_by_gradients(other)

    def star(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Squared norms, and inner products with the first example."""
        if self.left.device.type != "cpu" and self.fits_padded():
            return self._padded_star()
        pairs = self.lengths[0] * sum(self.lengths) + sum(length * length for length in self.lengths[1:])
        if self._rows_are_cheaper(pairs, sum(self.lengths), 2 * len(self) - 1):
            return _star(self, Outer.gram_by_rows)
        found = self.gram_by_gradients(self)
        return found.diagonal(), found[0]

    def fits_padded(self) -> bool:
        """Whether all errors, padded to the longest example, fit the limit."""
        return len(self) * max(self.lengths, default=0) * self.errors.width <= _PADDED

    def _padded_star(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`star` with a few large products instead of some per example, which an accelerator would mostly wait for."""
        return _star_of(*self.padded())

    def padded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and errors with 0 after each example's rows: (examples, longest, inputs) and (examples, longest, outputs)."""
        return _padded(self.left, self.lengths), _padded(self.errors.columns(slice(None)), self.lengths)

    def _rows_are_cheaper(self, row_pairs: int, rows: int, pairs: int) -> bool:
        inputs, outputs = self.left.shape[1], self.errors.width
        return row_pairs * (inputs + outputs) <= (rows + pairs) * inputs * outputs

    def gram_by_rows(self, other: "Outer") -> torch.Tensor:
        """sum_ts (a1_t . a2_s)(b1_t . b2_s)."""
        found = self.left.new_zeros(len(self), len(other))
        for first, second, part, another in _tiles(self, other):
            inner = _inner(part.errors, another.errors)
            inner *= part.left @ another.left.T
            found[first, second] = _sums(inner, part.lengths, another.lengths)
        return found

    def gram_by_gradients(self, other: "Outer") -> torch.Tensor:
        """Inner products of the gradients, a block of outputs at a time."""
        found = self.left.new_zeros(len(self), len(other))
        for start in range(0, len(self), _EXAMPLES):
            ours = self if len(self) <= _EXAMPLES else self.part(start, start + _EXAMPLES)
            for begin in range(0, len(other), _EXAMPLES):
                theirs = other if len(other) <= _EXAMPLES else other.part(begin, begin + _EXAMPLES)
                found[start : start + _EXAMPLES, begin : begin + _EXAMPLES] = _by_blocks(ours, theirs)
        return found

    def gradients(self, which: Columns) -> torch.Tensor:
        """The gradients' entries at some outputs, (examples, outputs * inputs)."""
        right = self.errors.columns(which)
        if len(set(self.lengths)) == 1:
            shape = (len(self), self.lengths[0])
            after, before = right.reshape(*shape, right.shape[1]), self.left.reshape(*shape, self.left.shape[1])
        else:
            after, before = _padded(right, self.lengths), _padded(self.left, self.lengths)
        return (after.transpose(1, 2) @ before).flatten(1)


@dataclass(frozen=True)
class Table:
    """Gradients of an embedding: row id_t of the tensor receives d_t, the error at the embedding's output."""

    lengths: tuple[int, ...]
    ids: torch.Tensor
    values: torch.Tensor

    def __len__(self) -> int:
        return len(self.lengths)

    def part(self, start: int, stop: int) -> "Table":
        """The examples start..stop-1."""
        rows = _rows(self.lengths, start, stop)
        return Table(self.lengths[start:stop], self.ids[rows], self.values[rows])

    def gram(self, other: "Table") -> torch.Tensor:
        """sum_ts [id1_t = id2_s] (d1_t . d2_s)."""
        found = self.values.new_zeros(len(self), len(other))
        for first, second, part, another in _tiles(self, other):
            inner = part.values @ another.values.T
            inner *= part.ids[:, None] == another.ids[None, :]
            found[first, second] = _sums(inner, part.lengths, another.lengths)
        return found

    def star(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Squared norms, and inner products with the first example."""
        if self.values.device.type != "cpu" and self.fits_padded():
            return _table_star_of(*self.padded())
        return _star(self, Table.gram)

    def fits_padded(self) -> bool:
        """As for `Outer`."""
        return len(self) * max(self.lengths, default=0) * self.values.shape[1] <= _PADDED

    def padded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Values and ids, (examples, most tokens, width) and (examples, most tokens); padding has values 0."""
        return _padded(self.values, self.lengths), _padded(self.ids, self.lengths)


@dataclass(frozen=True)
class Tied:
    """Gradients of one tensor that is both the head's weight and the embedding."""

    head: Outer
    embedding: Table

    def __len__(self) -> int:
        return len(self.head)

    def part(self, start: int, stop: int) -> "Tied":
        """The examples start..stop-1."""
        return Tied(self.head.part(start, stop), self.embedding.part(start, stop))

    def gram(self, other: "Tied") -> torch.Tensor:
        """head.head + embedding.embedding + both cross terms."""
        found = self.head.gram(other.head if other is not self else self.head) + self.embedding.gram(other.embedding)
        return found + _cross(self.head, other.embedding) + _cross(other.head, self.embedding).T

    def star(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Squared norms, and inner products with the first example."""
        if self.head.left.device.type != "cpu" and self.head.fits_padded() and self.embedding.fits_padded():
            return self._padded_star()
        norms, first = (head + embedding for head, embedding in zip(self.head.star(), self.embedding.star(), strict=True))
        singles = [self.part(index, index + 1) for index in range(len(self))]
        norms = norms + torch.stack([2 * _cross(one.head, one.embedding)[0, 0] for one in singles])
        first = first + _cross(singles[0].head, self.embedding)[0] + _cross(self.head, singles[0].embedding)[:, 0]
        return norms, first

    def _padded_star(self) -> tuple[torch.Tensor, torch.Tensor]:
        """As for `Outer`; the cross terms use the same padded errors, at the embedding's tokens."""
        left, right = self.head.padded()
        values, ids = self.embedding.padded()
        (norms, first), (others, with_first) = _star_of(left, right), _table_star_of(values, ids)
        own = right.gather(2, ids[:, None, :].expand(-1, right.shape[1], -1)) * (left @ values.transpose(1, 2))
        # (examples, rows of the first, their tokens), and (examples, their rows, tokens of the first)
        ours = right[0][:, ids].transpose(0, 1) * (left[0] @ values.transpose(1, 2))
        theirs = right[:, :, ids[0]] * (left @ values[0].T)
        norms = norms + others + 2 * own.sum((1, 2))
        return norms, first + with_first + ours.sum((1, 2)) + theirs.sum((1, 2))


Kernel = Flat | Outer | Table | Tied
_Ragged = TypeVar("_Ragged", Outer, Table)


def _cross(head: Outer, table: Table) -> torch.Tensor:
    """sum_ts b1_t[id2_s] (a1_t . d2_s): inner products of head and embedding gradients of the same tensor."""
    found = head.left.new_zeros(len(head), len(table))
    for first in _spans(head.lengths):
        part = head.part(first.start, first.stop)
        for second in _spans(table.lengths):
            another = table.part(second.start, second.stop)
            inner = part.errors.columns(another.ids) * (part.left @ another.values.T)
            found[first, second] = _sums(inner, part.lengths, another.lengths)
    return found


def _by_blocks(ours: Outer, theirs: Outer) -> torch.Tensor:
    inputs, outputs = ours.left.shape[1], ours.errors.width
    examples, rows = len(ours) + len(theirs), len(ours.left) + len(theirs.left)
    block = max(_HELD // max(examples * inputs, rows), 1)
    found = ours.left.new_zeros(len(ours), len(theirs))
    for start in range(0, outputs, block):
        which = slice(start, min(start + block, outputs))
        first = ours.gradients(which)
        found += first @ (first if theirs is ours else theirs.gradients(which)).T
    return found


def _inner(first: Errors, second: Errors) -> torch.Tensor:
    """b1 . b2 for all pairs of rows."""
    if isinstance(first, Held) and isinstance(second, Held):
        return first.values @ second.values.T
    all_of = slice(0, 1)
    ours, theirs = first.columns(all_of), second.columns(all_of)
    block = max(_HELD // max(len(ours) + len(theirs), 1), 1)
    found = ours @ theirs.T
    for start in range(1, first.width, block):
        which = slice(start, min(start + block, first.width))
        found.addmm_(first.columns(which), second.columns(which).T)
    return found


def _star(kernel: _Ragged, gram: Callable[[_Ragged, _Ragged], torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    first = gram(kernel.part(0, 1), kernel)[0]
    norms = [first[0]]
    for index in range(1, len(kernel)):
        one = kernel.part(index, index + 1)
        norms.append(gram(one, one)[0, 0])
    return torch.stack(norms), first


def _star_of(left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared norms and products with the first, of sums of outer products."""
    own = (left @ left.transpose(1, 2)) * (right @ right.transpose(1, 2))
    first = (left @ left[0].T) * (right @ right[0].T)
    return own.sum((1, 2)), first.sum((1, 2))


def _table_star_of(values: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared norms and products with the first, of an embedding's gradients."""
    own = (values @ values.transpose(1, 2)) * (ids[:, :, None] == ids[:, None, :])
    first = (values @ values[0].T) * (ids[:, :, None] == ids[0][None, None, :])
    return own.sum((1, 2)), first.sum((1, 2))


def _tiles(first: _Ragged, second: _Ragged) -> Iterator[tuple[slice, slice, _Ragged, _Ragged]]:
    for ours in _spans(first.lengths):
        part = first.part(ours.start, ours.stop)
        for theirs in _spans(second.lengths):
            yield ours, theirs, part, second.part(theirs.start, theirs.stop)


def _spans(lengths: Sequence[int]) -> Iterator[slice]:
    """Groups of consecutive examples with about the square root of `_HELD` rows; a longer example forms its own group."""
    most, start, rows = int(_HELD**0.5), 0, 0
    for index, length in enumerate(lengths):
        if index > start and rows + length > most:
            yield slice(start, index)
            start, rows = index, 0
        rows += length
    if len(lengths) > start:
        yield slice(start, len(lengths))


def _rows(lengths: Sequence[int], start: int, stop: int) -> slice:
    begin = sum(lengths[:start])
    return slice(begin, begin + sum(lengths[start:stop]))


def _padded(rows: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(torch.split(rows, list(lengths))), batch_first=True)


def _sums(inner: torch.Tensor, first: Sequence[int], second: Sequence[int]) -> torch.Tensor:
    """Sums of a (rows, rows) matrix over the rows of each pair of examples."""
    for lengths in (first, second):
        if len(lengths) == 1:
            inner = inner.sum(0, keepdim=True)
        else:
            inner = inner.new_zeros(len(lengths), inner.shape[1]).index_add_(0, owners(lengths, inner.device), inner)
        inner = inner.T
    return inner
