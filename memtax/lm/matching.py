"""Comparison of generated and true tokens: position by position, and near-verbatim."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Levenshtein

from memtax.errors import MemtaxError

PASSAGE = 100
"""Words that a passage has at least in near-verbatim recall: a shorter text has none."""
BLOCK = 8
"""Tokens that a passage has at least in block recall."""
Passes = tuple[tuple[int, int, int], ...]
"""For each pass: the largest gap between blocks to merge, by how much the gap in the true text may be the longer one, and the
shortest block to keep."""
WORDS: Passes = ((2, 1, 20), (10, 3, PASSAGE))
TOKENS: Passes = ((2, 1, BLOCK),)


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


@dataclass(frozen=True)
class Recall:
    """What a generation has of a text.

    Attributes:
        recall: share of the text's words in the passages; None of an empty text.
        passages: number of passages.
        missing: words of the text in no passage.
        additional: generated words in no passage.
    """

    recall: float | None
    passages: int
    missing: int
    additional: int


def near_verbatim_recall(true: Sequence[Hashable], generated: Sequence[Hashable], passes: Passes = WORDS) -> Recall:
    """Near-verbatim recall of a text (Ahmed et al. 2026, arXiv 2601.02671): the share of it in long passages of a generation.

    Matching blocks, the longest first and in the order of both, are merged over small gaps, and short ones are dropped, in two
    passes with growing limits. Only words that match count. Time grows with the product of the lengths: give chapters.

    Args:
        true: words (`text.split()`) of the text, or tokens.
        generated: those of the generation.
        passes: the limits; `TOKENS` for short texts.
    """
    found = SequenceMatcher(None, true, generated, autojunk=False).get_matching_blocks()[:-1]
    # Start and end in both, and matching words.
    blocks = [(one.a, one.a + one.size, one.b, one.b + one.size, one.size) for one in found]
    for gap, lag, shortest in passes:
        merged: list[tuple[int, int, int, int, int]] = []
        for block in blocks:
            if merged:
                before = merged[-1]
                missed, added = block[0] - before[1], block[2] - before[3]
                if max(missed, added) <= gap and missed - added <= lag:
                    merged[-1] = (before[0], block[1], before[2], block[3], before[4] + block[4])
                    continue
            merged.append(block)
        blocks = [block for block in merged if block[4] >= shortest]
    count = sum(block[4] for block in blocks)
    recall = count / len(true) if len(true) else None
    return Recall(recall, len(blocks), len(true) - count, len(generated) - count)


def block_recall(generated: Sequence[int], true: Sequence[int]) -> float | None:
    """Near-verbatim recall in one pass over tokens, for continuations too short for passages of words."""
    return near_verbatim_recall(true, generated, TOKENS).recall
