"""Code and natural language among the sequences of each category: counts, shares, and how often each kind is memorized."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from memtax import statistics
from memtax.predictor.factors import read_category, read_target
from memtax.schema import CATEGORIES

KINDS = ("natural language", "code", "uncertain")
"""Values of `text_kind`, by the classifier's own thresholds."""


def kind_rates(table: pa.Table, kinds: Sequence[str | None], units: statistics.Units | None = None) -> list[dict[str, Any]]:
    """Memorized sequences by category and kind of text, with intervals over documents.

    Args:
        table: rows with `is_memorized` and `taxonomy`.
        kinds: (rows,) `text_kind` of each; null where it is not known: such rows are left out.
        units: of the rows; None takes them from the table's `document`, `text` and `tokens`.

    Returns:
        For `all` and each category, and each kind that occurs: `category`, `kind`, the keys of `statistics.share` (of these
        sequences, how many are memorized: P(memorized | kind)), and `part`, a dict of the same keys: of the category's
        memorized sequences, how many are of the kind (`memorized` counts them there, and `sequences` all).
    """
    labels, labeled = read_target(table, "is_memorized")
    categories, categorized = read_category(table, "taxonomy")
    units = units or statistics.Units.of_table(table)
    column = np.array([kind or "" for kind in kinds], object)
    known = labeled & (column != "")
    groups = {"all": known}
    groups |= {name: known & categorized & (categories == code) for code, name in enumerate(CATEGORIES)}
    rows = []
    for category, inside in groups.items():
        memorized = inside & labels
        for kind in KINDS:
            if not (known & (column == kind)).any():
                continue
            own = inside & (column == kind)
            rate = statistics.share(labels[own], units[own])
            part = statistics.share((column == kind)[memorized], units[memorized])
            rows.append({"category": category, "kind": kind, **rate, "part": part})
    return rows
