"""Batches of ragged sequences, in shapes for which float32 results do not depend on the usual thread counts.

A CPU matrix product of five to eleven rows is split between two threads into pieces that use other kernels than the whole
(seen with MKL on AVX-512), and the scalar tails of vectorized activations move with the thread count if a tensor's size is
odd. So no batch has fewer than 256 positions, and their number is a multiple of 64: results are then bitwise equal for
1, 2, 4, 8, ... threads, in layers of usual widths. On Intel's processors `import memtax` makes MKL guarantee it for any.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

PaddingSide = Literal["left", "right"]

MULTIPLE = 64
FEWEST = 256


@dataclass(frozen=True)
class Ragged:
    """Concatenated sequences: `flat[offsets[i]:offsets[i + 1]]` is sequence i."""

    flat: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    bos: npt.NDArray[np.int64] | None = None
    """Number of tokens put before the text of each sequence; None: none anywhere."""

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of tokens in each sequence."""
        return np.diff(self.offsets)

    @property
    def before(self) -> npt.NDArray[np.int64]:
        """Number of tokens before the text of each sequence."""
        return np.zeros(len(self.offsets) - 1, np.int64) if self.bos is None else self.bos

    def row_of(self, position: int) -> int:
        """The sequence that contains a position of `flat`."""
        return int(np.searchsorted(self.offsets, position, side="right")) - 1


@dataclass(frozen=True)
class Block:
    """A batch: `rows` sequences of the input, then copies of the last one to reach a suitable shape.

    Shapes: ids and mask (batch, length), batch >= len(rows); mask is True on tokens and False on padding. Padding has id 0,
    which is also a valid token id: only the mask identifies padding.
    """

    rows: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]
    mask: npt.NDArray[np.bool_]


def order(ragged: Ragged, fewest: int | npt.NDArray[np.int64] = 2) -> npt.NDArray[np.int64]:
    """Indices of the sequences whose text has at least `fewest` tokens (of all, or of each), longest first."""
    lengths = ragged.lengths
    rows = np.argsort(-lengths, kind="stable")
    return rows[(lengths - ragged.before >= fewest)[rows]]


def first_block(
    ragged: Ragged, rows: npt.NDArray[np.int64], batch_tokens: int, longest: int | None, side: PaddingSide
) -> Block:
    """Build a batch from the first of these rows.

    Args:
        ragged: the sequences.
        rows: remaining sequences, longest first, at least one.
        batch_tokens: target number of positions per batch, including padding.
        longest: maximum number of positions of the model, which padding does not exceed. None: no limit.
        side: padding side.

    Returns:
        A batch of one or more leading `rows`.
    """
    length = _padded_length(int(ragged.lengths[rows[0]]), longest)
    step = MULTIPLE // math.gcd(length, MULTIPLE)
    taken = rows[: max(batch_tokens // length // step, 1) * step]
    batch = _round_up(max(len(taken), -(-FEWEST // length)), step)
    return _block(ragged, taken, batch, length, side)


def _padded_length(length: int, longest: int | None) -> int:
    """A length with many factors of two, so that few rows reach a multiple of 64; long rows must reach one by themselves."""
    rounded = _round_up(length, 8 if length <= FEWEST else MULTIPLE)
    return rounded if longest is None else max(length, min(rounded, longest))


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _block(ragged: Ragged, rows: npt.NDArray[np.int64], batch: int, length: int, side: PaddingSide) -> Block:
    lengths = ragged.lengths[rows][:, None]
    places = np.arange(length)[None, :]
    # Index of each position in its sequence; values outside [0, lengths) are padding.
    inside = places if side == "right" else places - (length - lengths)
    mask = (inside >= 0) & (inside < lengths)
    ids = np.where(mask, ragged.flat[np.where(mask, ragged.offsets[rows][:, None] + inside, 0)], 0)
    repeat = np.minimum(np.arange(batch), len(rows) - 1)
    return Block(rows, ids[repeat], mask[repeat])
