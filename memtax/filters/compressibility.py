"""Compressibility of a sequence by itself: the mean code length of its symbols under its own symbol frequencies.

Two codes: the optimal prefix code (Huffman 1952), and the Shannon code, with lengths ceil(-log2 p). The published column
`huffman_coding_length` of the paper's data uses the latter. For a text with entropy H bits per symbol,
H <= Huffman < H + 1 and Huffman <= Shannon < H + 1.
"""

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import ClassVar

from memtax.filters.base import Batch, Filter


def huffman_coding_length(symbols: Iterable[Hashable]) -> float | None:
    """Mean length of the optimal prefix code for the symbols' own frequencies (Huffman 1952).

    Args:
        symbols: a text (its characters), token ids, or any other symbols.

    Returns:
        Bits per symbol; 0.0 for a single distinct symbol, whose code word is empty (as its entropy is 0); None without
        symbols.
    """
    leaves = sorted(Counter(symbols).values())
    return _huffman_bits(leaves) / sum(leaves) if leaves else None


def shannon_coding_length(symbols: Iterable[Hashable]) -> float | None:
    """Mean length of the Shannon code, sum of p * ceil(-log2 p) over the distinct symbols.

    Args:
        symbols: a text (its characters), token ids, or any other symbols.

    Returns:
        Bits per symbol; 0.0 for a single distinct symbol; None without symbols.
    """
    counts = Counter(symbols).values()
    return _shannon_bits(counts) / sum(counts) if counts else None


@dataclass(frozen=True)
class CompressibilityFilter(Filter):
    """Adds the mean Huffman and Shannon code lengths of a text's characters.

    Args:
        per_token: also add `huffman_token_coding_length`, the mean Huffman code length with the sequence's tokens as
            symbols, in bits per token; this requires the column `tokens`.

    Example:
        >>> from memtax.filters import CompressibilityFilter
        >>> CompressibilityFilter()({"text": ["aaab"]})
        {'huffman_coding_length': [1.0], 'shannon_coding_length': [1.25]}
    """

    name: ClassVar[str] = "compressibility"
    requires: ClassVar[tuple[str, ...]] = ("text",)
    columns: ClassVar[tuple[str, ...]] = ("huffman_coding_length", "shannon_coding_length")

    per_token: bool = False

    def __post_init__(self) -> None:
        if self.per_token:
            self._with_parameters(("text", "tokens"), (*type(self).columns, "huffman_token_coding_length"))

    def compute(self, batch: Batch) -> Batch:
        """Code lengths in bits; None if the text (or the tokens) is missing or empty."""
        huffman: list[float | None] = []
        shannon: list[float | None] = []
        for text in batch["text"]:
            leaves = sorted(Counter(text or "").values())
            total = sum(leaves)
            huffman.append(_huffman_bits(leaves) / total if total else None)
            shannon.append(_shannon_bits(leaves) / total if total else None)
        added: Batch = {"huffman_coding_length": huffman, "shannon_coding_length": shannon}
        if self.per_token:
            added["huffman_token_coding_length"] = [huffman_coding_length(row) if row else None for row in batch["tokens"]]
        return added


def _huffman_bits(leaves: list[int]) -> int:
    """Bits for the whole text: the sum of the inner nodes' weights, with leaves ascending (van Leeuwen's two queues)."""
    inner: list[int] = []
    leaf = node = bits = 0
    for _ in range(len(leaves) - 1):
        weight = 0
        for _ in range(2):
            if node >= len(inner) or (leaf < len(leaves) and leaves[leaf] <= inner[node]):
                weight += leaves[leaf]
                leaf += 1
            else:
                weight += inner[node]
                node += 1
        inner.append(weight)
        bits += weight
    return bits


def _shannon_bits(counts: Iterable[int]) -> int:
    """Bits for the whole text; the smallest k with count * 2**k >= total is exact in integers, but log2 can round up."""
    counts = list(counts)
    total = sum(counts)
    return sum(count * (-(-total // count) - 1).bit_length() for count in counts)
