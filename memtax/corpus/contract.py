"""Interfaces between the parts of counting: blocks of tokens, shards that yield blocks, corpora that have shards."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from memtax.corpus.columns import Tokens


@dataclass(frozen=True)
class Block:
    """Whole sequences, concatenated.

    Attributes:
        tokens: shape (tokens), uint16 or int32.
        offsets: shape (sequences + 1), int64, from 0 to the number of tokens; sequence i is
            `tokens[offsets[i]:offsets[i + 1]]`.
        first_row: number of the first sequence in its corpus; None if it depends on earlier parts that are not read yet.
        ids: shape (sequences), ids of the sequences if the source has them; None: row numbers are the ids.
        source: where the tokens come from, for messages.
        byte: byte offset of the tokens in that file, if it is a plain file of tokens.
        itemsize: bytes per token in that file.
    """

    tokens: Tokens
    offsets: npt.NDArray[np.int64]
    first_row: int | None = 0
    ids: npt.NDArray[np.int64] | None = None
    source: str = "the corpus"
    byte: int | None = None
    itemsize: int = 2

    def where(self, at: int) -> str:
        """Description, for messages, of the position of token number `at` in this block."""
        row = int(np.searchsorted(self.offsets, at, side="right")) - 1
        number = f"row {self.first_row + row}" if self.first_row is not None else f"row {row} of a later part"
        place = "" if self.byte is None else f" (byte offset {self.byte + at * self.itemsize})"
        return f"{number} of {self.source}{place}"

    def sequence_ids(self) -> npt.NDArray[np.int64] | None:
        """Shape (sequences): the ids or the row numbers; None if neither is known."""
        if self.ids is not None or self.first_row is None:
            return self.ids
        return np.arange(self.first_row, self.first_row + len(self.offsets) - 1)


class Shard(Protocol):
    """A part of a corpus that can be read independently, in any order and by any thread."""

    @property
    def tokens(self) -> int | None:
        """Number of tokens, if known without reading."""

    def blocks(self) -> Iterator[Block]:
        """Yield the sequences in order; every call reads from the start."""


class Corpus(Protocol):
    """A corpus that can be counted. Each row is one sequence; windows never cross sequences."""

    @property
    def rows(self) -> int | None:
        """Number of sequences; None if it is known only after reading all of them."""

    @property
    def tokens(self) -> int | None:
        """Number of tokens; None if it is known only after reading all of them."""

    @property
    def vocabulary_size(self) -> int | None:
        """Number of ids of the tokenizer, if known."""

    @property
    def identity(self) -> Any:
        """JSON values that change when the corpus does: names, sizes and times of files, or a fingerprint."""

    def shards(self, tokens: int) -> Sequence[Shard]:
        """The parts, in order, of about `tokens` tokens each if the source can be split; the split is always the same."""
