"""Whether the output of a paraphraser is a paraphrase, and if not, why not."""

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
"""Why a paraphrase is null, in the order in which it is looked at."""


@dataclass(frozen=True)
class Validation:
    """Bounds on a paraphrase.

    Args:
        min_ratio: least tokens, over those of the text (rounded down).
        max_ratio: most tokens (rounded up).
        min_words: least words.
        max_edits: most edited characters and most edited words, each as a share of the longer of the two texts.
        min_similarity: least cosine of the embeddings; None does not look at meaning.
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
            raise MemtaxError(f"max_edits is a share above 0 and at most 1, not {self.max_edits}")

    def tokens(self, length: int) -> tuple[int, int]:
        """Least and most tokens of a paraphrase of a text of so many."""
        # 1.1 * 10 is 11.000000000000002: the bounds are meant exactly.
        return math.floor(self.min_ratio * length + 1e-9), math.ceil(self.max_ratio * length - 1e-9)

    def reason(self, text: str, output: str, tokens: tuple[int, int], earlier: Sequence[str]) -> str | None:
        """Why an output is not a paraphrase, meaning apart; None if it is one.

        Args:
            text: the original.
            output: the output.
            tokens: tokens of the text and of the output.
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
    """Levenshtein distance over the length of the longer: of characters, or of words."""
    return float(Levenshtein.normalized_distance(first, second))


def _same(first: str, second: str) -> bool:
    """Whether two texts differ in spaces and case at most."""
    return first.casefold().split() == second.casefold().split()
