"""Conversion of published tables to memtax's columns, the only code that reverses differences in the published values."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from memtax import schema
from memtax.errors import MemtaxError
from memtax.published.layouts import HALVES, TOKENS

MARKS = ("generation_perplexity", "0_8_snowclones", "0_8_templates")
"""Columns that distinguish the published table of all factors from memtax's."""


def is_published(names: list[str]) -> bool:
    """Whether a table with these columns is in the layout of `usvsnsp/semantic-filters`."""
    return any(name in names for name in MARKS)


def from_published(table: pa.Table, in_sample: bool) -> pa.Table:
    """Convert rows of `usvsnsp/semantic-filters` to memtax's layout; the inverse of `memtax.published.writing.to_published`.

    Columns are renamed; `is_memorized` is `memorization_score` = 1. Failures become null: perplexities below 1, scores outside
    0 to 1, negative counts, and 0 textual matches of a text that is not ASCII, which the reference does not compare. Prompt and
    continuation perplexities are raised to the power that makes them divide by their own tokens. They are null for rows that
    do not have 64 tokens or contain token 0, which the reference skips as padding.

    Args:
        table: published columns, some of which may be missing; half-sequence perplexities need `tokens`. Other columns are
            kept unchanged.
        in_sample: whether the sequences are the sample in which semantic matches are counted: the published count of such a
            sequence includes itself, memtax's does not.

    Raises:
        MemtaxError: there are half-sequence perplexities but no tokens.
    """
    names = schema.rename_published(table.column_names)
    columns: dict[str, Any] = {names.get(name, name): table.column(name) for name in table.column_names}
    for ours in [name for name in columns if "_matches_" in name and name in schema.COLUMNS]:
        columns[ours] = _counts(columns[ours], int(in_sample and ours.startswith("semantic")))
        if ours.startswith("textual") and "text" in columns:
            is_known = pc.or_(pc.string_is_ascii(columns["text"]), pc.greater(columns[ours], 0))
            columns[ours] = pc.if_else(is_known, columns[ours], pa.scalar(None, pa.int64()))
    columns |= _perplexities(columns)
    for name in ("memorization_score", "nl_score"):
        if name in columns:
            columns[name] = share(columns[name])
    if "memorization_score" in columns and "is_memorized" not in columns:
        columns["is_memorized"] = pc.equal(columns["memorization_score"], 1.0)
    return pa.table(columns)


def _perplexities(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The perplexities among the columns, each over its own tokens."""
    if any(name in columns for name in HALVES) and "tokens" not in columns:
        raise MemtaxError("published prompt and generation perplexities cannot be converted without the column 'tokens'")
    found = {}
    for name in [name for name in (*HALVES, "sequence_perplexity") if name in columns]:
        values = columns[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
        # A perplexity is at least 1; -1 and 0 mark a failure, and NaN fails the comparison.
        known = values >= 1 - 1e-6
        if "tokens" in columns:
            known &= _plain_windows(columns["tokens"])
        true = np.where(known, np.maximum(values, 1.0), 1.0) ** HALVES.get(name, 1.0)
        found[name] = pa.array(true, pa.float64(), mask=~known)
    return found


def share(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A share as float64, null where it is not between 0 and 1."""
    values = column.cast(pa.float64())
    return pc.if_else(pc.and_(pc.greater_equal(values, 0.0), pc.less_equal(values, 1.0)), values, pa.scalar(None, pa.float64()))


def _counts(column: pa.ChunkedArray, itself: int) -> pa.ChunkedArray:
    """Counts without the sequence itself, null where nothing was counted."""
    counts = column.cast(pa.int64())
    return pc.if_else(pc.greater_equal(counts, itself), pc.subtract(counts, itself), pa.scalar(None, pa.int64()))


def _plain_windows(tokens: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Rows with exactly 64 tokens, none of them 0: for all others, the reference's perplexities skip tokens."""
    combined = tokens.combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(combined), 0).to_numpy(zero_copy_only=False)
    parents = pc.list_parent_indices(combined).to_numpy(zero_copy_only=False)
    zero = pc.fill_null(pc.equal(pc.list_flatten(combined), 0), True).cast(pa.uint8()).to_numpy(zero_copy_only=False)
    return (lengths == TOKENS) & (np.bincount(parents, zero, minlength=len(combined)) == 0)
