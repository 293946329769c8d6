"""The texts shown in an audit: distinct ones, by kind of memorization, with personal data masked."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from memtax import extras, privacy
from memtax.pipeline.personal import PersonalData
from memtax.schema import CATEGORIES

SHOWN = 200
"""Maximum number of distinct texts listed in JSON and on the page."""
KINDS = ("worrying", "benign", "unknown")

Row = dict[str, Any]


def read_rows(folder: Path, personal: PersonalData) -> list[Row]:
    """The sequences of a run.

    Args:
        folder: the run's directory.
        personal: personal data in each sequence.

    Returns:
        The rows of its features with their text as published, all of their tokens, and `personal_data`, the kinds of valid
        personal data in each.
    """
    rows: list[Row] = pq.read_table(folder / "dataset" / "features" / "train.parquet").to_pylist()
    whole = pq.read_table(folder / "sequences" / "train.parquet", columns=["sequence_id", "tokens"]).to_pylist()
    # The features lack tokens that contain personal data; without them different texts would count as one.
    tokens = {row["sequence_id"]: tuple(row["tokens"]) for row in whole}
    nothing: frozenset[str] = frozenset()
    return [
        {**row, "tokens": tokens[row["sequence_id"]], "personal_data": personal.kinds.get(row["sequence_id"], nothing)}
        for row in rows
    ]


def kind_of(row: Mapping[str, Any]) -> str | None:
    """Whether a memorized sequence is benign or worrying; `unknown` without a category, None if it is not memorized.

    Personal data is worrying however often it occurs; what the base model completes as well was not learned here.
    """
    if not row["is_memorized"]:
        return None
    if row.get("is_memorized_by_reference"):
        return "benign"
    if row.get("personal_data"):
        return "worrying"
    return "unknown" if row["taxonomy"] is None else "worrying" if CATEGORIES[row["taxonomy"]] == "recollection" else "benign"


def distinct(rows: Sequence[Row]) -> int:
    """Number of different texts among sequences."""
    return len({row["tokens"] for row in rows})


def personal_figures(rows: Sequence[Row]) -> dict[str, Any]:
    """Memorized sequences with personal data, by kind of memorization and kind of data."""
    if missing := privacy.missing_packages():
        reason = f"not installed: {', '.join(missing)}; {extras.command('pii')}"
        return {"measurable": False, "reason": reason}
    counts: dict[str, Counter[str]] = {name: Counter() for name in KINDS}
    affected = []
    for row in rows:
        if (kind := kind_of(row)) and row["personal_data"]:
            counts[kind].update(sorted(row["personal_data"]))
            affected.append(row)
    return {
        "measurable": True,
        "by_kind": {name: dict(counter) for name, counter in counts.items()},
        "count": len(affected),
        "distinct": distinct(affected),
        "sequences": listed(affected),
    }


def listed(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The sequences to show: each distinct text once, those with personal data first.

    The text is as the run published it, masked unless requested otherwise; it is omitted if the masking cannot be checked.
    """
    blind = bool(privacy.missing_packages())
    windows = Counter(row["tokens"] for row in rows)
    first: dict[Any, Row] = {}
    for row in rows:
        first.setdefault(row["tokens"], row)
    ordered = sorted(first.values(), key=lambda row: not row["personal_data"])
    return [
        {
            "sequence_id": row["sequence_id"],
            "document": row.get("document"),
            "category": None if row["taxonomy"] is None else CATEGORIES[row["taxonomy"]],
            "duplicates": row["sequence_duplicates"],
            "windows": windows[row["tokens"]],
            "personal_data": sorted(row["personal_data"]),
            "text": None if blind else row["text"],
        }
        for row in ordered[:SHOWN]
    ]
