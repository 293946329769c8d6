"""Two-rule partitions of sequences: at or above a quantile of one factor is group A, else of another is B, else C."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memtax.errors import MemtaxError
from memtax.predictor.logistic import Array

SPLIT_FACTORS = (
    "max_frequency",
    "avg_frequency",
    "min_frequency",
    "median_frequency",
    "textual_matches_0_8",
    "semantic_matches_0_8",
    "sequence_duplicates",
    "shannon_coding_length",
    "is_templating",
    "continuation_perplexity",
)
"""The ten factors whose quantiles were searched for partitions (Prashanth et al. 2024, code); `shannon_coding_length` is what
they publish as `huffman_coding_length`."""
QUANTILES = (0.25, 0.5, 0.75)

Codes = NDArray[np.uint8]
"""(factors, rows): how many of a factor's thresholds a row reaches."""
Condition = tuple[int, int, bool]
"""Factor, threshold (both as indices), and whether the row is at or above it."""
Group = tuple[Condition, ...]
"""The conditions that a row meets to be in the group."""


@dataclass(frozen=True)
class Partition:
    """One partition, as indices: factor and threshold of the first rule, then of the second."""

    first: tuple[int, int]
    second: tuple[int, int]

    @property
    def groups(self) -> tuple[Group, Group, Group]:
        """A, B and C. Conditions are in the order of factors: C is the same group whichever rule comes first."""
        (f, p), (g, q) = self.first, self.second
        rest = tuple(sorted(((f, p, False), (g, q, False))))
        return ((f, p, True),), ((f, p, False), (g, q, True)), rest

    def assign(self, codes: Codes) -> NDArray[np.int64]:
        """Group of each row: 0, 1 or 2 for A, B, C."""
        (f, p), (g, q) = self.first, self.second
        return np.where(codes[f] > p, 0, np.where(codes[g] > q, 1, 2))


def all_partitions(factors: int, quantiles: int) -> list[Partition]:
    """Every ordered pair of different factors with every pair of quantiles: 810 for ten factors and three quantiles."""
    rules = itertools.product(range(factors), range(quantiles))
    return [Partition(first, second) for first, second in itertools.product(list(rules), repeat=2) if first[0] != second[0]]


def thresholds(values: Array, labels: NDArray[np.bool_], quantiles: Sequence[float]) -> Array:
    """Quantiles (factors, quantiles) of the memorized rows of values (rows, factors): training rows only.

    Raises:
        MemtaxError: quantiles are not ascending inside (0, 1).
    """
    if not quantiles or list(quantiles) != sorted(set(quantiles)) or not 0 < quantiles[0] <= quantiles[-1] < 1:
        raise MemtaxError(f"quantiles must ascend inside (0, 1), not {', '.join(map(str, quantiles)) or 'be none'}")
    return np.ascontiguousarray(np.quantile(values[labels], quantiles, axis=0).T)


def encode(values: Array, bounds: Array) -> Codes:
    """Codes of values (rows, factors), given thresholds (factors, quantiles)."""
    return np.stack(
        [np.searchsorted(bound, column, side="right") for bound, column in zip(bounds, values.T, strict=True)]
    ).astype(np.uint8)


def members(codes: Codes, group: Group) -> NDArray[np.int64]:
    """Rows of a group, ascending."""
    inside = np.ones(codes.shape[1], bool)
    for factor, threshold, above in group:
        inside &= (codes[factor] > threshold) if above else (codes[factor] <= threshold)
    return np.flatnonzero(inside)
