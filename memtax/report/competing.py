"""Labels of memorized sequences as guess or recall (Dentan et al. 2025), next to the categories."""

from collections.abc import Mapping
from typing import Any

from memtax.report.parts import Table
from memtax.report.words import count, label, number
from memtax.schema import CATEGORIES

READINGS = ("by_overlap", "by_duplicates")


def competing(found: Mapping[str, Any]) -> tuple[Table, ...]:
    """Number of memorized sequences per category that are guesses, by both definitions; empty without figures.

    Args:
        found: `guess_recall` of a run's figures.
    """
    if not all(found.get(reading) for reading in READINGS):
        return ()
    rows = tuple(
        (
            "all sequences" if category == "all" else label(category),
            *(count(found[reading].get(category, {}).get(name)) for reading in READINGS for name in ("guess", "recall")),
        )
        for category in (*CATEGORIES, "all")
    )
    overlap, threshold = number(found.get("overlap")), count(found.get("threshold"))
    title = (
        "Memorized sequences as guess or recall (Dentan et al. 2025). By overlap: a guess is a template, or repeats its prompt "
        f"(ROUGE of at least {overlap}). By duplicates: recall occurs more than {threshold} times"
    )
    head = ("category", "guess, by overlap", "recall, by overlap", "guess, by duplicates", "recall, by duplicates")
    return (Table(title, head, rows, folded=True),)
