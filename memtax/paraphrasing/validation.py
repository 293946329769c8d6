"""Whether the output of a paraphraser is a valid paraphrase, and if not, why."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

from memtax.errors import MemtaxError

REASONS = (
    "no text",
    "text too long",
    "empty",
    "identical",
    "too few words",
    "too short",
    "too long",
    "too many edits",
    "repeated",
    "other meaning",
)
"""Reasons why a paraphrase is null, in the order in which they are checked."""


@dataclass(frozen=True)
class Validation:
    """Bounds on a paraphrase.

    Args:
        min_ratio: minimum number of tokens, as a ratio to the text's (rounded down).
        max_ratio: maximum number of tokens, as a ratio to the text's (rounded up).
        min_words: minimum number of words.
        max_edits: maximum share of edited characters and of edited words, relative to the longer of the two texts.
        min_similarity: minimum cosine of the embeddings; None does not check meaning.
    """

    min_ratio: float = 0.9
    max_ratio: float = 1.1
    min_words: int = 3
    max_edits: float = 0.9
    min_similarity: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.min_ratio <= 1 <= self.max_ratio:
            raise MemtaxError(f"the ratio's bounds {self.min_ratio} and {self.max_ratio} must lie around 1")
        if not 0 < self.max_edits <= 1:
            raise MemtaxError(f"max_edits is a share above 0 and at most 1, got {self.max_edits}")

    def tokens(self, length: int) -> tuple[int, int]:
        """Minimum and maximum token count of a paraphrase, given the token count of the original text."""
        # 1.1 * 10 is 11.000000000000002 in floating point, but the bounds are meant exactly.
        return math.floor(self.min_ratio * length + 1e-9), math.ceil(self.max_ratio * length - 1e-9)

    def reason(self, text: str, output: str, tokens: tuple[int, int], earlier: Sequence[str]) -> str | None:
        """Why an output is not a valid paraphrase, regardless of meaning; None if it is valid.

        Args:
            text: the original text.
            output: the output.
            tokens: token counts of the text and of the output.
            earlier: other paraphrases of the same text.
        """
        low, high = self.tokens(tokens[0])
        checks = (
            ("empty", not output.strip()),
            ("identical", _same(output, text)),
            ("too few words", len(output.split()) < self.min_words),
            ("too short", tokens[1] < low),
            ("too long", tokens[1] > high),
            ("too many edits", max(edits(text, output), edits(text.split(), output.split())) > self.max_edits),
            ("repeated", any(_same(output, other) for other in earlier)),
        )
        return next((reason for reason, wrong in checks if wrong), None)


def edits(first: Sequence[str], second: Sequence[str]) -> float:
    """Levenshtein distance of characters or words, divided by the longer length."""
    return float(Levenshtein.normalized_distance(first, second))


def _same(first: str, second: str) -> bool:
    """Whether two texts differ only in spaces and case."""
    return first.casefold().split() == second.casefold().split()
