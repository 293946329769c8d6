"""Units of resampling: rows of one document depend on each other, so documents are drawn, split and counted, not rows."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from memtax.errors import MemtaxError
from memtax.progress import numbered

FEWEST_UNITS = 10
"""Fewer units do not show how far units differ: an interval over them is withheld."""


def unit_codes(documents: Any = None, texts: Any = None, tokens: Any = None, rows: int | None = None) -> NDArray[np.int64]:
    """The unit of each row: its document; without one, rows of equal text; without text, of equal tokens; else the row.

    Args:
        documents: (rows,) name or number of the document of each row, null where unknown; None: unknown for all.
        texts: (rows,) text, or source text of a chunk; null where unknown.
        tokens: (rows,) lists of token ids; null where unknown.
        rows: number of rows, where no column is given.

    Returns:
        Codes (rows,) from 0, numbered by first appearance: the same for the same table.

    Raises:
        MemtaxError: columns of different lengths, or neither a column nor a number of rows.
    """
    columns = [column for column in (documents, texts, tokens) if column is not None]
    lengths = {len(column) for column in columns} | ({rows} if rows is not None else set())
    if len(lengths) != 1:
        raise MemtaxError(f"units of resampling need columns of one length, or a number of rows, not {sorted(lengths)}")
    (count,) = lengths
    codes = np.full(count, -1, np.int64)
    used = 0
    for column in (documents, texts, tokens):
        missing = np.flatnonzero(codes < 0)
        if column is None or not len(missing):
            continue
        found = _codes(column, missing)
        codes[missing] = np.where(found < 0, -1, found + used)
        used = max(used, int(codes.max(initial=-1)) + 1)
    missing = np.flatnonzero(codes < 0)
    codes[missing] = used + np.arange(len(missing))
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first)).astype(np.int64)[inverse.ravel()]


@dataclass(frozen=True)
class Units:
    """Units of the rows of a table, and what they are called.

    Attributes:
        codes: (rows,) unit of each row.
        name: `document`, `text` (equal texts or tokens are one unit) or `sequence` (each row is a unit).
    """

    codes: NDArray[np.int64]
    name: str

    @classmethod
    def of_table(cls, table: pa.Table) -> "Units":
        """Units from the columns `document`, `text` and `tokens`, as far as the table has them."""
        documents, texts, tokens = (
            table.column(name) if name in table.column_names else None for name in ("document", "text", "tokens")
        )
        codes = unit_codes(documents, texts, tokens, rows=table.num_rows)
        if documents is not None and documents.null_count < table.num_rows:
            return cls(codes, "document")
        return cls(codes, "text" if count_units(codes) < table.num_rows else "sequence")

    @classmethod
    def of_rows(cls, rows: int) -> "Units":
        """Each row its own unit."""
        return cls(np.arange(rows), "sequence")

    @functools.cached_property
    def count(self) -> int:
        """How many units there are."""
        return count_units(self.codes)

    def __getitem__(self, rows: Any) -> "Units":
        return Units(self.codes[rows], self.name)


def withheld(units: Units) -> str | None:
    """Why an interval over these units is withheld; None if it is not."""
    if (count := units.count) >= FEWEST_UNITS:
        return None
    return f"{numbered(count, units.name)}, {FEWEST_UNITS} needed: the share is of these only"


def count_units(units: ArrayLike) -> int:
    """Number of distinct units among codes (rows,)."""
    codes = np.asarray(units)
    if codes.dtype.kind == "i" and len(codes) and codes.min() >= 0 and codes.max() < 8 * len(codes):
        return int(np.count_nonzero(np.bincount(codes)))
    return len(np.unique(codes))


def unit_index(units: ArrayLike, rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Index (rows,) of each row's unit among the distinct units, and rows (units,) of each.

    Raises:
        MemtaxError: there is not one unit per row.
    """
    codes = np.asarray(units)
    if codes.shape != (rows,):
        raise MemtaxError(f"{codes.size} units for {rows} rows: one per row is needed")
    _, index, sizes = np.unique(codes, return_inverse=True, return_counts=True)
    return index.ravel().astype(np.int64), sizes.astype(np.int64)


def strata_of(strata: ArrayLike | None, rows: int) -> list[NDArray[np.int64]]:
    """Rows of each stratum; one stratum of all rows without strata.

    Raises:
        MemtaxError: there is not one stratum per row.
    """
    if strata is None:
        return [np.arange(rows)]
    codes = np.asarray(strata)
    if codes.shape != (rows,):
        raise MemtaxError(f"{len(codes)} strata for {rows} rows: one per row is needed")
    return [np.flatnonzero(codes == code) for code in np.unique(codes)]


def fewest_units(units: ArrayLike, strata: ArrayLike | None = None) -> int:
    """Number of units in the stratum that has fewest; of all units without strata."""
    codes = np.asarray(units)
    return min(count_units(codes[group]) for group in strata_of(strata, len(codes)))


def expanded_level(level: float, units: ArrayLike, strata: ArrayLike | None = None) -> float:
    """Level at which percentiles of resamples of whole units cover `level`, although units are few or of unequal size.

    The tails are those of Student's t in place of the normal distribution (Hesterberg 2015, expanded percentiles), with
    (sum n)^2 / sum n^2 - 1 degrees of freedom for units of n rows, widened by what leaving one unit out would add to the
    standard error (Bell & McCaffrey 2002).

    Args:
        level: coverage wanted.
        units: (rows,) codes.
        strata: (rows,) as in `resample`; the stratum with the widest tails decides.

    Returns:
        The level to hand to `percentile_interval` or `calibration_interval`.
    """
    from scipy.stats import norm, t

    codes = np.asarray(units)
    reach = norm.isf((1 - level) / 2)
    for group in strata_of(strata, len(codes)):
        _, sizes = unit_index(codes[group], len(group))
        share = sizes / sizes.sum()
        if len(share) > 1:
            wider = np.sqrt((share**2 / (1 - share) ** 2).sum() / (share**2).sum())
            reach = max(reach, wider * t.isf((1 - level) / 2, max(1.0, 1 / (share**2).sum() - 1)))
    # Tails that reach further than any resample: the level stays below 1, and the percentiles are the extremes.
    return float(min(1 - 2 * norm.sf(reach), 1 - np.finfo(np.float64).eps))


def _codes(column: Any, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Codes of the column's values at `rows`; -1 where the value is null."""
    if isinstance(column, pa.Array | pa.ChunkedArray):
        array = column.take(pa.array(rows))
    else:
        array = pa.array([column[row] for row in rows.tolist()], from_pandas=True)  # datasets 4.0 takes no numpy integers
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        array = _as_bytes(array)
    indices = array.dictionary_encode().indices
    return np.asarray(indices.fill_null(-1)).astype(np.int64)


def _as_bytes(lists: pa.Array) -> pa.Array:
    """Lists of token ids as binary values of the same rows, which Arrow can number; lists it cannot."""
    lists = lists.cast(pa.large_list(pa.int64()))
    ids = np.ascontiguousarray(lists.values.to_numpy(zero_copy_only=False), np.int64)
    ends = np.asarray(lists.offsets, np.int64) * ids.itemsize
    missing = None if not lists.null_count else lists.is_valid().buffers()[1]
    return pa.Array.from_buffers(pa.large_binary(), len(lists), [missing, pa.py_buffer(ends), pa.py_buffer(ids)])
