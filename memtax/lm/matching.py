"""Comparison of generated and true tokens: position by position, and near-verbatim."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Levenshtein

from memtax.errors import MemtaxError


def matches(
    generated: Sequence[Sequence[int]], true: Sequence[Sequence[int]], tokens: int | None = None
) -> list[npt.NDArray[np.bool_]]:
    """Whether each generated token equals the true one.

    A generation that stopped early does not match beyond its end; tokens beyond the end of the true continuation are ignored.

    Args:
        generated: token ids, one list per sequence.
        true: token ids of the true continuations.
        tokens: compare only this many leading tokens, which every true continuation must have. None: all of them.

    Returns:
        One array per sequence, with the length of its true continuation (or `tokens`).

    Raises:
        MemtaxError: the numbers of lists differ, or a continuation is empty or too short.
    """
    if len(generated) != len(true):
        raise MemtaxError(f"{len(generated)} generations for {len(true)} continuations; one each is needed")
    if tokens is not None and tokens < 1:
        raise MemtaxError(f"at least 1 token must be compared, got {tokens}")
    found = []
    for row, (one, other) in enumerate(zip(generated, true, strict=True)):
        needed = len(other) if tokens is None else tokens
        if not needed or len(other) < needed:
            raise MemtaxError(f"the continuation in row {row} has {len(other)} tokens; {max(needed, 1)} are needed")
        match = np.zeros(needed, dtype=bool)
        reached = min(needed, len(one))
        match[:reached] = np.asarray(one[:reached], dtype=np.int64) == np.asarray(other[:reached], dtype=np.int64)
        found.append(match)
    return found


def edit_distance(generated: Sequence[int], true: Sequence[int]) -> int:
    """Fewest insertions, deletions and substitutions of tokens that turn one into the other (Levenshtein)."""
    return int(Levenshtein.distance(list(generated), list(true)))


def longest_common_block(generated: Sequence[int], true: Sequence[int]) -> int:
    """Number of tokens in the longest run that occurs in both, at any position of either.

    By columns of the table of common suffix lengths, one vectorized step per generated token.
    """
    tokens = np.asarray(true, np.int64)
    lengths, longest = np.zeros(len(tokens) + 1, np.int64), 0
    for token in generated:
        lengths[1:] = np.where(tokens == token, lengths[:-1] + 1, 0)
        longest = max(longest, int(lengths.max()))
    return longest
