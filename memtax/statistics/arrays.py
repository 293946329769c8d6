"""Checked columns and the small array operations that the statistics share."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memtax.errors import MemtaxError

Array = NDArray[np.float64]


def columns(**columns: ArrayLike) -> list[Array]:
    """The columns as float64 of one length, at least one row, without NaN.

    Args:
        columns: name to values (rows,); the names stand in messages.

    Returns:
        The arrays, in the order given.

    Raises:
        MemtaxError: a column has another shape, no row, or NaN.
    """
    arrays = []
    for name, values in columns.items():
        array = np.asarray(values, np.float64)
        if array.ndim != 1 or not len(array):
            raise MemtaxError(f"{name} must be one column with at least one row, not of shape {array.shape}")
        if np.isnan(array).any():
            raise MemtaxError(f"{name} has NaN in row {int(np.isnan(array).argmax())}; drop rows without a value first")
        arrays.append(array)
    lengths = {name: len(array) for name, array in zip(columns, arrays, strict=True)}
    if len(set(lengths.values())) > 1:
        raise MemtaxError(f"columns differ in length: {', '.join(f'{name} {rows}' for name, rows in lengths.items())}")
    return arrays


def require_binary(column: Array, name: str) -> None:
    """Refuse a column (rows,) that holds anything but 0 and 1.

    Raises:
        MemtaxError: it does; the message has `name`.
    """
    wrong = column[(column != 0) & (column != 1)]
    if len(wrong):
        raise MemtaxError(f"{name} must be 0 or 1, not {wrong[0]:g}")


def two_classes(labels: ArrayLike, scores: ArrayLike) -> tuple[Array, Array]:
    """Checked labels and scores (rows,), with rows of both classes.

    Raises:
        MemtaxError: they differ in length, hold NaN, or the labels are not both 0 and 1.
    """
    y, s = columns(labels=labels, scores=scores)
    require_binary(y, "labels")
    if y.min() == y.max():
        raise MemtaxError(f"all {len(y)} labels are {y[0]:g}; rows of both classes are needed")
    return y, s


def probabilities_of(labels: ArrayLike, probabilities: ArrayLike) -> tuple[Array, Array]:
    """Checked labels and probabilities (rows,); one class may be absent.

    Raises:
        MemtaxError: they differ in length or hold NaN, a label is not 0 or 1, or a probability not in [0, 1].
    """
    y, p = columns(labels=labels, probabilities=probabilities)
    require_binary(y, "labels")
    if p.min() < 0 or p.max() > 1:
        raise MemtaxError(f"probabilities must be in [0, 1], got {p.min() if p.min() < 0 else p.max():g}")
    return y, p


def standardized(column: Array) -> Array:
    """The column (rows,) with mean 0 and standard deviation 1.

    Raises:
        MemtaxError: it is constant.
    """
    if column.min() == column.max() or not np.isfinite(column).all():
        raise MemtaxError(f"no correlation with a column that is constant or infinite (first value {column[0]:g})")
    scale = np.abs(column).max()  # keeps the squares below overflow
    column = column / scale
    standardized: Array = (column - column.mean()) / column.std()
    return standardized


def bin_of(probabilities: Array, bins: int) -> NDArray[np.int64]:
    """Index of the bin of equal width that holds each probability (rows,); 1 belongs to the last of `bins`.

    Raises:
        MemtaxError: there is no bin.
    """
    if bins < 1:
        raise MemtaxError(f"at least 1 bin is needed, not {bins}")
    return np.minimum((probabilities * bins).astype(np.int64), bins - 1)


def sort(keys: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The order that sorts the keys, and where in it each run of equal keys starts."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    return order, np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))


def sum_ties(values: Array, starts: NDArray[np.int64]) -> Array:
    """Sums (resamples, runs) over the runs that start at `starts`, of values (resamples, rows) in sorted order."""
    return values if len(starts) == values.shape[1] else np.add.reduceat(values, starts, axis=1)


def ratio(numerator: Array, denominator: Array) -> Array:
    """Elementwise ratio, NaN where the denominator is 0."""
    result: Any = np.full(denominator.shape, np.nan)
    return np.divide(numerator, denominator, out=result, where=denominator > 0)
