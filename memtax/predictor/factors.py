"""The factors that models read: where each comes from in a table, and on which scale.

Counts and perplexities have heavy tails (a few continuations occur millions of times), so models see log(1 + x) of them;
everything else enters as it is. All factors are then standardised with statistics of the training rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from memtax import schema
from memtax.errors import MemtaxError


@dataclass(frozen=True)
class Factor:
    """A factor, the scale that models see it on, and the columns it is derived from (its own name unless given)."""

    name: str
    scale: Literal["log1p", "identity"]
    columns: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """Columns that a table must have."""
        return self.columns or (self.name,)


_DECLARED = tuple(column for column in schema.COLUMNS.values() if column.role == "factor")
PUBLISHED = tuple(
    column.name for column in sorted(_DECLARED, key=lambda column: column.published_factor) if column.published_factor
)
"""The fourteen factors of the published predictor (Prashanth et al. 2024, section 5 and code)."""
FACTORS = tuple(column.name for column in _DECLARED if column.published_factor and "_matches_" not in column.name)
"""Default factors of a predictor: the published factors that need no encoder of texts."""
BEFORE_TRAINING = tuple(column.name for column in _DECLARED if column.before_training)
"""Factors that are known before any model exists: what a risk score of a corpus may use."""
FROM_SCORES = tuple(column.name for column in _DECLARED if not column.before_training)
"""Factors that are read off the model's own scores, after training; the last two hold the tokens that the target is about."""
OWN_SCALES: dict[str, Literal["log1p", "identity"]] = {"linear": "identity", "log": "log1p"}
"""`NAME:SCALE` makes a factor of a column that memtax does not declare."""


def available(names: Sequence[str], factors: Sequence[str] = PUBLISHED) -> tuple[str, ...]:
    """The factors that a table with these columns has; a Shannon code length replaces a missing Huffman one.

    Raises:
        MemtaxError: it has none.
    """
    wanted = ("shannon_coding_length" if name == "huffman_coding_length" and name not in names else name for name in factors)
    found = tuple(name for name in wanted if all(source in names for source in _declared(name).sources))
    if not found:
        raise MemtaxError(f"the table has none of the factors {', '.join(factors)}; it has: {', '.join(names) or 'no columns'}")
    return found


def resolve(factors: Sequence[str], target: str) -> tuple[Factor, ...]:
    """The declarations of the named factors.

    Args:
        factors: declared columns of the roles `factor` and `variant`, or `NAME:linear` and `NAME:log` for a numeric column that
            memtax does not declare.
        target: what is to be predicted.

    Raises:
        MemtaxError: no factor, one named twice, one that gives the target away, or a column without a declaration.
    """
    if isinstance(factors, str) or not factors:
        raise MemtaxError(f"factors is a list of at least one column, not {factors!r}; the default is {', '.join(FACTORS)}")
    found = tuple(_declared(name, target) for name in factors)
    sources = [factor.sources for factor in found]
    twice = next((name for name, own in zip(factors, sources, strict=True) if sources.count(own) > 1), None)
    if twice is not None:
        raise MemtaxError(f"factor {twice!r} is named twice; name it once")
    return found


def _declared(name: str, target: str = "") -> Factor:
    """The declaration of one factor."""
    column, _, scale = name.rpartition(":")
    if scale not in OWN_SCALES or not column:
        column, scale = name, ""
    known = schema.column(column) if schema.is_declared(column) else None
    if known is not None and known.role == "outcome":
        raise MemtaxError(f"factor {column!r} says whether a sequence was memorized and cannot predict it; leave it out")
    if column == target:
        raise MemtaxError(f"{target!r} is the target; leave it out of the factors")
    if known is None:
        if not scale:
            raise MemtaxError(
                f"column {name!r} is not declared as a factor; if it does not depend on {target or 'the target'}, name it "
                f"{name}:linear, or {name}:log for a count"
            )
        return Factor(name, OWN_SCALES[scale], (column,))
    if known.role == "score":
        raise MemtaxError(f"factor {column!r} is measured by a model on the tokens that it would predict; leave it out")
    if known.role not in ("factor", "variant"):
        choices = [other.name for other in schema.COLUMNS.values() if other.role in ("factor", "variant")]
        raise MemtaxError(f"column {column!r} is not a factor (its role is {known.role}); choose among {', '.join(choices)}")
    declared: Literal["log1p", "identity"] = "log1p" if known.scale == "log" else "identity"
    if scale and OWN_SCALES[scale] != declared:
        raise MemtaxError(f"factor {column!r} has a declared scale; name it without ':{scale}'")
    return Factor(column, declared, known.sources)


def read(table: pa.Table, factor: Factor, what: str = "the table") -> NDArray[np.float64]:
    """A factor's values on their own scale, NaN where the table has null.

    Args:
        table: rows with the factor's source columns.
        factor: which one.
        what: the table's name in messages.

    Returns:
        (rows,) float64; infinities stay.

    Raises:
        MemtaxError: a source column is missing or not numeric, or a value of a log1p factor is negative.
    """
    schema.require(table.column_names, factor.sources, what)
    values = [table.column(name) for name in factor.sources]
    for name, column in zip(factor.sources, values, strict=True):
        kinds = (pa.types.is_boolean,) if len(values) > 1 else (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating)
        if not any(kind(column.type) for kind in kinds):
            raise MemtaxError(f"column {name!r} of {what} is {column.type}: no factor can be read from it")
    # One known template is enough: null only if neither flag is true and one is missing.
    merged = pc.or_kleene(*values) if len(values) == 2 else values[0]
    if pa.types.is_boolean(merged.type):
        merged = merged.cast(pa.uint8())
    array = np.array(merged.cast(pa.float64(), safe=False).to_numpy(), np.float64)
    if factor.scale == "log1p" and (array < 0).any():
        row = int((array < 0).argmax())
        raise MemtaxError(
            f"column {factor.name!r} of {what} is {array[row]:g} in row {row}; it cannot be negative: make missing values null"
        )
    return array


def matrix(table: pa.Table, factors: Sequence[Factor], what: str = "the table") -> NDArray[np.float64]:
    """All factors (rows, factors) on the models' scale; NaN where null, infinite where the table is."""
    values = np.empty((table.num_rows, len(factors)))
    for column, factor in zip(values.T, factors, strict=True):
        raw = read(table, factor, what)
        column[:] = np.log1p(raw) if factor.scale == "log1p" else raw
    return values


def read_target(table: pa.Table, name: str, what: str = "the table") -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """A boolean column as (values, whether known); values are False where unknown.

    Raises:
        MemtaxError: the column is missing or not boolean.
    """
    schema.require(table.column_names, [name], what)
    column = table.column(name)
    if not pa.types.is_boolean(column.type):
        raise MemtaxError(f"column {name!r} of {what} is {column.type}; the target must be boolean")
    return np.array(column.fill_null(False)), np.array(column.is_valid())


def read_category(table: pa.Table, name: str, what: str = "the table") -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """A category column as (indices into `memtax.schema.CATEGORIES`, whether known); indices are 0 where unknown.

    Raises:
        MemtaxError: the column is missing, not of integers, or holds an index that is no category.
    """
    schema.require(table.column_names, [name], what)
    column = table.column(name)
    if not pa.types.is_integer(column.type):
        raise MemtaxError(f"column {name!r} of {what} is {column.type}; it must hold indices of {', '.join(schema.CATEGORIES)}")
    values = np.array(column.fill_null(0).cast(pa.int64()))
    wrong = values[(values < 0) | (values >= len(schema.CATEGORIES))]
    if len(wrong):
        raise MemtaxError(f"column {name!r} of {what} holds {wrong[0]}; categories are 0 to {len(schema.CATEGORIES) - 1}")
    return values, np.array(column.is_valid())
