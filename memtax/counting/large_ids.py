"""Token ids too large for a dense table; they are counted and looked up in sorted lists."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memtax.corpus.columns import Tokens

Int64 = npt.NDArray[np.int64]

DENSE = 2**24
"""Ids below this are counted in a dense table (128 MiB, far above any tokenizer); larger ones in sorted lists."""

MOST_UNSTATED = 2**22
"""Maximum distinct ids from `DENSE` on if the vocabulary size is unknown; more mean a file read with the wrong dtype."""


@dataclass
class LargeIds:
    """Occurrences of the ids from `DENSE` on.

    Attributes:
        ids: shape (n), ascending.
        counts: shape (groups, n).
    """

    ids: Int64
    counts: Int64

    @classmethod
    def none(cls, groups: int) -> "LargeIds":
        """An instance without ids."""
        return cls(np.zeros(0, np.int64), np.zeros((groups, 0), np.int64))

    def add(self, ids: Int64, counts: Int64) -> None:
        """Add the counts, shape (groups, m), of distinct ids, shape (m)."""
        if len(ids) == 0:
            return
        size = len(self.ids)
        every, at = np.unique(np.concatenate([self.ids, ids]), return_inverse=True)
        summed = np.zeros((len(self.counts), len(every)), np.int64)
        summed[:, at[:size]] = self.counts
        summed[:, at[size:]] += counts
        self.ids, self.counts = every, summed

    def add_tokens(self, tokens: Tokens, groups: npt.NDArray[np.uint8]) -> None:
        """Count tokens, shape (m), each in its group, shape (m)."""
        ids, at = np.unique(tokens, return_inverse=True)
        counts = [np.bincount(at[groups == group], minlength=len(ids)) for group in range(len(self.counts))]
        self.add(ids.astype(np.int64), np.stack(counts))


@dataclass(frozen=True)
class TokenTable:
    """A loaded table of token frequencies.

    Attributes:
        ids: shape (n), ascending.
        frequencies: shape (n).
    """

    ids: Int64
    frequencies: Int64

    @property
    def total(self) -> int:
        """Tokens in all."""
        return int(self.frequencies.sum())

    def look_up(self, tokens: Int64) -> tuple[Int64, npt.NDArray[np.bool_]]:
        """The frequency of each token (0 if unknown), and whether the table contains it."""
        if len(self.ids) == 0:
            return np.zeros(len(tokens), np.int64), np.zeros(len(tokens), np.bool_)
        last = len(self.ids) - 1
        # Most tables have a row for every id.
        at = np.clip(tokens, 0, last) if self.ids[last] == last else np.minimum(np.searchsorted(self.ids, tokens), last)
        known = self.ids[at] == tokens
        return np.where(known, self.frequencies[at], 0), known
