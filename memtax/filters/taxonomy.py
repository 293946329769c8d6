"""Recitation, reconstruction or recollection: the rules as a function of columns and as a filter."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from memtax.errors import MemtaxError
from memtax.filters.base import Batch, Filter
from memtax.schema import CATEGORIES, RECITATION_THRESHOLD

RECITATION, RECONSTRUCTION, RECOLLECTION = range(len(CATEGORIES))
THRESHOLD = RECITATION_THRESHOLD
"""Sequences with more duplicates than this are recitation (Prashanth et al. 2024, section 4)."""


def taxonomy(
    duplicates: Sequence[int | None],
    is_incrementing: Sequence[bool | None],
    is_repeating: Sequence[bool | None],
    threshold: int = THRESHOLD,
) -> list[int | None]:
    """The category of each sequence, memorized or not.

    In this order: more than `threshold` duplicates is recitation; otherwise incrementing or repeating is reconstruction;
    otherwise recollection. Missing inputs matter only if they could change the result: a known template is reconstruction
    even if the other flag is missing.

    Args:
        duplicates: occurrences of each continuation in the corpus.
        is_incrementing: whether each text continues a progression.
        is_repeating: whether each text repeats a pattern.
        threshold: maximum duplicates of a sequence that is not recitation.

    Returns:
        Indices into `memtax.schema.CATEGORIES`; None where a missing input could change the category.

    Raises:
        MemtaxError: the columns differ in length, or a count is negative.
    """
    if not len(duplicates) == len(is_incrementing) == len(is_repeating):
        raise MemtaxError(
            f"columns differ in length: duplicates {len(duplicates)}, is_incrementing {len(is_incrementing)}, "
            f"is_repeating {len(is_repeating)}"
        )
    rows = zip(duplicates, is_incrementing, is_repeating, strict=True)
    return [_category(count, incrementing, repeating, threshold) for count, incrementing, repeating in rows]


def _category(count: int | None, incrementing: bool | None, repeating: bool | None, threshold: int) -> int | None:
    if count is None:
        return None
    if count < 0:
        raise MemtaxError(f"sequence_duplicates is {count}; a missing count must be null, not negative")
    if count > threshold:
        return RECITATION
    if incrementing or repeating:
        return RECONSTRUCTION
    return None if incrementing is None or repeating is None else RECOLLECTION


@dataclass(frozen=True)
class TaxonomyFilter(Filter):
    """Labels every sequence with its category; see `taxonomy`.

    Args:
        threshold: more duplicates than this are recitation.
    """

    threshold: int = THRESHOLD

    name: ClassVar[str] = "taxonomy"
    requires: ClassVar[tuple[str, ...]] = ("sequence_duplicates", "is_incrementing", "is_repeating")
    columns: ClassVar[tuple[str, ...]] = ("taxonomy",)

    def __post_init__(self) -> None:
        if self.threshold < 0:
            raise MemtaxError(f"threshold is a number of duplicates, at least 0, got {self.threshold}")

    def compute(self, batch: Batch) -> Batch:
        """The column `taxonomy`, as indices into `memtax.schema.CATEGORIES`."""
        duplicates, incrementing, repeating = (batch[name] for name in self.requires)
        return {"taxonomy": taxonomy(duplicates, incrementing, repeating, self.threshold)}
