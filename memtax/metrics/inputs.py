"""Inputs of the metrics: columns with one entry per row, checked."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from memtax.errors import MemtaxError
from memtax.extras import require
from memtax.statistics import Units, unit_codes

Column = Any
"""A column with one entry per row: a list, a numpy array, or a column of a `Dataset` or of a data frame."""


def columns(needed: int, **given: Column | None) -> list[Any]:
    """The columns as lists of one length; None for an omitted one, or one of nulls alone, after the first `needed`.

    Raises:
        MemtaxError: a needed column is missing, or columns are empty or of different lengths.
    """
    missing = [name for name in list(given)[:needed] if given[name] is None]
    if missing:
        raise MemtaxError(f"{' and '.join(missing)} must be given")
    common_length({name: column for name, column in given.items() if column is not None})
    lists = [None if column is None else _plain(column) for column in given.values()]
    found = [*lists[:needed], *map(_given, lists[needed:])]
    if "documents" in given and (documents := found[list(given).index("documents")]) is not None:
        found[list(given).index("documents")] = [None if name is None else str(name) for name in documents]
    return found


def _plain(column: Column) -> list[Any]:
    """A column as a list, whose entries are numbers, texts or lists."""
    rows = (
        column.tolist() if hasattr(column, "tolist") else column.to_pylist() if hasattr(column, "to_pylist") else list(column)
    )
    return [row.tolist() if hasattr(row, "tolist") else row for row in rows]


def _given(column: list[Any] | None) -> list[Any] | None:
    return None if column is None or all(value is None for value in column) else column


def common_length(given: Mapping[str, Any]) -> int:
    """Number of rows in every given input, at least one."""
    for name, column in given.items():
        if isinstance(column, str) or not hasattr(column, "__len__"):
            raise MemtaxError(f"{name} must be a list with one entry per row, not {type(column).__name__}")
    lengths = {name: len(column) for name, column in given.items()}
    if len(set(lengths.values())) > 1:
        raise MemtaxError(f"inputs differ in length: {', '.join(f'{name} {rows}' for name, rows in lengths.items())}")
    rows = next(iter(lengths.values()))
    if not rows:
        raise MemtaxError(f"{', '.join(given)} is empty; at least one row is needed")
    return rows


def check_whole(column: Sequence[Any], name: str) -> None:
    """Check that a column of numbers, or of lists of numbers, has no fractions.

    Raises:
        MemtaxError: there is one.
    """
    for row, value in enumerate(column):
        if isinstance(value, str) or getattr(getattr(value, "dtype", None), "kind", None) in ("i", "u"):
            continue
        for entry in value if hasattr(value, "__iter__") else (value,):
            if isinstance(entry, (float, np.floating)) and not float(entry).is_integer():
                raise MemtaxError(f"{name} must be whole numbers, not {entry} in row {row}")


def flags(column: Sequence[float | None], name: str) -> list[bool]:
    """A column of 0 and 1 as booleans.

    Raises:
        MemtaxError: a value is missing or is not 0 or 1.
    """
    for row, value in enumerate(column):
        if value not in (0, 1):
            raise MemtaxError(f"{name} must be 0 or 1, not {value} in row {row}")
    return [bool(value) for value in column]


def numbers(column: Sequence[Any], name: str) -> list[float]:
    """A column of numbers, none missing.

    Raises:
        MemtaxError: a value is missing or is not a number.
    """
    for row, value in enumerate(column):
        if isinstance(value, str) or not isinstance(value, int | float | np.number):
            raise MemtaxError(f"{name} must be numbers, not {value!r} in row {row}")
    return list(column)


def units_of(documents: Sequence[str | None] | None) -> Units | None:
    """Resampling units from the input `documents`: a row without one is its own unit; None if the input was omitted."""
    return None if documents is None else Units(unit_codes(documents), "document")


def token_ids(rows: Sequence[Any], tokenizer: str | None, name: str) -> list[list[int]]:
    """Token ids of rows that are token ids, or of texts with the given tokenizer.

    Raises:
        MemtaxError: texts without a tokenizer, or a row without tokens.
    """
    if any(isinstance(row, str) for row in rows):
        if tokenizer is None:
            raise MemtaxError(f"{name} are texts; give tokenizer=NAME to compare tokens, or lists of token ids")
        require(f"{name} of texts", "lm")
        from transformers import AutoTokenizer

        loaded = AutoTokenizer.from_pretrained(tokenizer)
        rows = [loaded(row, add_special_tokens=False)["input_ids"] if row else [] for row in rows]
    check_whole([row for row in rows if row is not None], name)
    found = []
    for number, row in enumerate(rows):
        if row is None or any(token is None for token in row):
            raise MemtaxError(f"{name} have a null in row {number}; drop rows without tokens first")
        found.append([int(token) for token in row])
    return found


def whole_texts(column: Sequence[str | None], name: str) -> list[str]:
    """A column of texts, none missing.

    Raises:
        MemtaxError: a text is missing.
    """
    for row, text in enumerate(column):
        if text is None:
            raise MemtaxError(f"{name} have no text in row {row}; drop rows without a text first")
    return [text for text in column if text is not None]


def known(column: Sequence[float | None]) -> tuple[list[int], list[float]]:
    """Rows that have a value, and their values."""
    rows = [(row, value) for row, value in enumerate(column) if value is not None]
    return [row for row, _ in rows], [value for _, value in rows]
