"""Published counts and scores, looked up by `sequence_id` instead of computed."""

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memtax.corpus.sources import Source, open_dataset
from memtax.errors import MemtaxError
from memtax.published.layouts import CODE_SCORES, FILTERS, MATCHES, counts_itself

_IDS = ("sequence_id", "index", "Index")
_LOOKED_UP = ("semantic_matches_0_8", "semantic_matches_0_9", "textual_matches_0_8", "textual_matches_0_9", "nl_score")
_TABLES = (FILTERS.columns, CODE_SCORES.columns, *MATCHES.one_split_kind.values())
_NAMES: dict[str, tuple[str, ...]] = {
    name: (name, *(theirs for columns in _TABLES for theirs, ours in columns.items() if ours == name)) for name in _LOOKED_UP
}
"""memtax's columns to the published columns with the same content."""


def look_up(source: str, columns: tuple[str, ...], ids: list[int], version: Any) -> dict[str, list[Any]] | None:
    """Values of some sequences, None for a sequence that is not in the table.

    The published `snowclones` of the Pile sample count the sequence itself, which memtax does not: one is subtracted.

    Args:
        source: dataset as `path:config:split`.
        columns: memtax's columns, keys of `_NAMES`.
        ids: `sequence_id` of each row.
        version: changes with the files.

    Returns:
        memtax's column names to values; None if the dataset is not such a table.

    Raises:
        MemtaxError: the dataset cannot be read, or its split contains the other kind of matches.
    """
    table = _table(source, columns, version)
    if table is None:
        return None
    known, values = table
    asked = np.asarray(ids, np.int64)
    if not len(known):
        return {name: [None] * len(ids) for name in columns}
    at = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    found: dict[str, list[Any]] = {}
    for name in columns:
        row = values[name][at]
        good = (known[at] == asked) & np.isfinite(row) & (row >= 0)
        kind = float if name == "nl_score" else int
        found[name] = [kind(value) if fine else None for value, fine in zip(row, good, strict=True)]
    return found


@functools.lru_cache(maxsize=4)
def _table(
    source: str, columns: tuple[str, ...], version: Any
) -> tuple[NDArray[np.int64], dict[str, NDArray[np.float64]]] | None:
    """Ids in ascending order and the columns' values, cached per process."""
    parsed = Source.parse(source)
    dataset: Any = open_dataset(parsed)
    names = list(dataset.column_names)
    key = next((name for name in _IDS if name in names), None)
    ours = {column: next((name for name in _NAMES[column] if name in names), None) for column in columns}
    if key is None or None in ours.values():
        return None
    _check_kind(parsed, columns)
    table = dataset.select_columns([key, *{name for name in ours.values() if name}]).with_format("arrow")[:]
    ids = table.column(key).to_numpy().astype(np.int64)
    order = np.argsort(ids, kind="stable")
    found = {}
    for column, name in ours.items():
        values = np.array(table.column(str(name)).to_numpy(zero_copy_only=False), np.float64)
        itself = column.startswith("semantic") and str(name).startswith("0") and counts_itself(parsed.split)
        found[column] = (values - 1 if itself else values)[order]
    return ids[order], found


def _check_kind(source: Source, columns: tuple[str, ...]) -> None:
    """Check the split: semantic and textual matches are published under the same column names in different splits."""
    for kind, ending, other in (("semantic", "_templates", "_snowclones"), ("textual", "_snowclones", "_templates")):
        if columns[0].startswith(kind) and source.split.endswith(ending):
            raise MemtaxError(f"{source.label} does not contain {kind} matches; they are in the splits that end with {other}")
