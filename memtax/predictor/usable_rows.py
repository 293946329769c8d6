"""The rows of a table that a model can use: factors, labels and categories without gaps, and how many rows lack what."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memtax import statistics
from memtax.errors import MemtaxError
from memtax.predictor import factors as declared
from memtax.predictor.logistic import Array
from memtax.progress import numbered

LARGEST = 1e100
"""Largest size of a factor: sums of squares of millions of rows stay finite."""


@dataclass(frozen=True, eq=False)
class Usable:
    """Rows that a model can use.

    Attributes:
        values: (rows, factors) on the models' scale, finite.
        labels: (rows,) the target.
        categories: (rows,) indices into `memtax.schema.CATEGORIES`; zeros if no category was asked for.
        kept: (table rows,) which rows of the table these are.
        dropped: reason to the number of rows left out for it (the first reason counts).
    """

    values: Array
    labels: NDArray[np.bool_]
    categories: NDArray[np.int64]
    kept: NDArray[np.bool_]
    dropped: dict[str, int]

    @property
    def lost(self) -> str:
        """The number of rows left out for each reason, as text."""
        return ", ".join(f"{count} rows because {reason}" for reason, count in self.dropped.items()) or "none"


def usable(
    table: pa.Table, factors: Sequence[declared.Factor], target: str, category: str | None, what: str = "the table"
) -> Usable:
    """Read the rows in which no required value is missing.

    Args:
        table: rows with the target, the category and the factors' columns.
        factors: declared factors.
        target: boolean column.
        category: column of indices into `memtax.schema.CATEGORIES`; None if categories do not matter.
        what: the table's name in messages.

    Raises:
        MemtaxError: a column is missing or of the wrong type.
    """
    labels, labeled = declared.read_target(table, target, what)
    missing = {f"{target} is null": ~labeled}
    categories = np.zeros(len(labels), np.int64)
    if category is not None:
        categories, categorized = declared.read_category(table, category, what)
        missing[f"{category} is null"] = ~categorized
    values = declared.matrix(table, factors, what)
    for column, factor in zip(values.T, factors, strict=True):
        missing[f"{factor.name} is null"] = np.isnan(column)
        missing[f"{factor.name} is infinite"] = np.isinf(column)
        if np.nanmax(np.abs(column), initial=0.0, where=np.isfinite(column)) > LARGEST:
            raise MemtaxError(
                f"column {factor.name!r} of {what} holds values beyond {LARGEST:g} on the models' scale, whose squares "
                "overflow; rescale it, or make them null"
            )
    keep, dropped = np.ones(len(labels), bool), {}
    for reason, rows in missing.items():
        if (keep & rows).any():
            dropped[reason] = int((keep & rows).sum())
            keep &= ~rows
    if keep.all():
        return Usable(values, labels, categories, keep, dropped)
    return Usable(values[keep], labels[keep], categories[keep], keep, dropped)


def few_units(units: statistics.Units) -> str | None:
    """Why no interval over these units is given, in words; None if they suffice."""
    if (count := units.count) >= statistics.FEWEST_UNITS:
        return None
    return f"{numbered(count, units.name)}, {statistics.FEWEST_UNITS} needed"


def read_ids(table: pa.Table, what: str) -> NDArray[np.int64]:
    """The column `sequence_id`, which must be complete.

    Raises:
        MemtaxError: it is missing, not of integers, or has nulls.
    """
    from memtax import schema

    schema.require(table.column_names, ["sequence_id"], what)
    column = table.column("sequence_id")
    if not pa.types.is_integer(column.type) or column.null_count:
        raise MemtaxError(f"column 'sequence_id' of {what} must hold an integer in every row; rows are matched by it")
    return np.array(column.cast(pa.int64()))
