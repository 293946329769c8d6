"""The columns: every table memtax reads or writes uses these names, types, units and meanings of null.

`COLUMNS` is the only list. Cards, feature declarations, factors of predictors, labels of the report and input checks are
derived from it. Columns are declared by subject in the modules of this package.
"""

import contextlib
import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from memtax import extensions
from memtax.errors import MemtaxError
from memtax.schema import attribution, corpus, properties, scores, texts
from memtax.schema.column import Column
from memtax.schema.tables import TABLES

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

CATEGORIES = ("recitation", "reconstruction", "recollection")
"""The taxonomy's classes, in the order of its rules (Prashanth et al. 2024, section 4)."""
RECITATION_THRESHOLD = 5
"""Sequences with more duplicates than this are recitation (Prashanth et al. 2024, section 4)."""

COLUMNS: dict[str, Column] = {
    column.name: column for module in (texts, corpus, scores, properties, attribution) for column in module.COLUMNS
}
"""Every declared column. The order is that of lists of factors."""

PUBLISHED: dict[str, str] = {theirs: column.name for column in COLUMNS.values() for theirs in column.published}
"""Names in the published datasets to ours, where they differ. Some need a conversion as well: see
`memtax.published.layouts`."""
_LAYOUT_ONLY = tuple(
    theirs
    for theirs, ours in PUBLISHED.items()
    if COLUMNS[ours].role in ("factor", "variant") and theirs not in {*COLUMNS, "counts"}
)


@functools.cache
def _load_packages() -> None:
    """Import the filters of installed packages, which declare their columns."""
    for point in extensions.entry_points("memtax.filters").values():
        # A broken package is reported where its filter is used.
        with contextlib.suppress(MemtaxError):
            extensions.load(point)


def declare(column: Column) -> None:
    """Declare a column of your own, for a filter of yours or as a factor of a predictor.

    Args:
        column: its declaration; the role `variant` makes it a factor.

    Raises:
        MemtaxError: memtax, or another call, declares another column of that name.
    """
    if COLUMNS.setdefault(column.name, column) != column:
        raise MemtaxError(f"column {column.name!r} is declared already, with another meaning; choose another name")


def column(name: str) -> Column:
    """The declared column.

    `attack_` before the name of an attack: its score. `_50_100` after the name of a score: for a prompt of 50 and a
    continuation of 100 tokens.

    Raises:
        MemtaxError: no such column is declared.
    """
    if name not in COLUMNS:
        _load_packages()
    if name not in COLUMNS:
        if name.startswith("attack_"):
            base = COLUMNS["attack_score"]
            return replace(base, name=name, meaning=f"{base.meaning}: {name.removeprefix('attack_')}")
        windowed = re.fullmatch(r"(.+)_(\d+)_(\d+)", name)
        if windowed and windowed[1] in COLUMNS and COLUMNS[windowed[1]].null == scores.SHORT:
            base = COLUMNS[windowed[1]]
            of = f"of a prompt of {windowed[2]} and a continuation of {windowed[3]} tokens"
            return replace(base, name=name, meaning=f"{base.meaning}, {of}", label="", published=())
        sized = re.fullmatch(r"memorization_score_(\d+(?:\.\d+)?[mb])", name)
        if sized:
            return replace(COLUMNS["memorization_score"], name=name, meaning=f"memorization_score of the model of {sized[1]}")
        raise MemtaxError(f"unknown column {name!r}; memtax.schema.COLUMNS lists the declared ones")
    return COLUMNS[name]


def arrow_schema(names: Iterable[str]) -> "pa.Schema":
    """The Arrow schema of a table with these columns."""
    import pyarrow as pa

    types = {
        "int64": pa.int64(),
        "int32": pa.int32(),
        "float64": pa.float64(),
        "float32": pa.float32(),
        "bool": pa.bool_(),
        "string": pa.string(),
        "class": pa.int64(),
        "list<int32>": pa.list_(pa.int32()),
        "list<float32>": pa.list_(pa.float32()),
        "list<float64>": pa.list_(pa.float64()),
        "list<bool>": pa.list_(pa.bool_()),
        "list<string>": pa.list_(pa.string()),
    }
    return pa.schema([pa.field(name, types[column(name).dtype]) for name in names])


def features(names: Iterable[str]) -> "datasets.Features":
    """The `datasets.Features` of a table with these columns; `taxonomy` is a ClassLabel."""
    import datasets

    def feature(dtype: str) -> Any:
        if dtype == "class":
            return datasets.ClassLabel(names=list(CATEGORIES))
        if dtype.startswith("list<"):
            return datasets.List(datasets.Value(dtype[5:-1]))
        return datasets.Value(dtype)

    return datasets.Features({name: feature(column(name).dtype) for name in names})


def require(present: Iterable[str], required: Iterable[str], what: str) -> None:
    """Check that `required` columns are among `present`.

    Raises:
        MemtaxError: a column is missing; the message suggests the nearest name present.
    """
    import difflib

    present = list(present)
    for name in required:
        if name not in present:
            near = difflib.get_close_matches(name, present, 1) or [p for p in present if PUBLISHED.get(p) == name][:1]
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise MemtaxError(f"{what} has no column {name!r}{hint}; it has: {', '.join(present) or 'no columns'}")


def validate(table: "pa.Table", names: Iterable[str], what: str = "the table") -> "pa.Table":
    """Select the columns and cast them to their declared types; nothing is lost quietly.

    Raises:
        MemtaxError: a column is missing, does not cast safely, or holds nulls where the schema allows none.
    """
    import pyarrow as pa

    names = list(names)
    require(table.column_names, names, what)
    schema = arrow_schema(names)
    columns = []
    for field in schema:
        values = table.column(field.name)
        try:
            values = values.cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            raise MemtaxError(
                f"column {field.name!r} of {what} is {values.type}, not {field.type}: {str(error).splitlines()[0]}"
            ) from error
        if values.null_count and column(field.name).null == "never":
            row = values.is_null().index(pa.scalar(True)).as_py()
            raise MemtaxError(
                f"column {field.name!r} of {what} is null in row {row}; drop or fill {values.null_count} such rows"
            )
        columns.append(values)
    return pa.table(columns, schema=schema)


def is_declared(name: str) -> bool:
    """Whether `column` knows the name."""
    try:
        column(name)
    except MemtaxError:
        return False
    return True


def described(field: "pa.Field", table: str | None = None) -> Column:
    """The declared column of a field's name; for a column of the user's, its type.

    Args:
        field: of the table.
        table: name of the table, whose own columns are in `memtax.schema.tables`; None for tables of sequences.
    """
    own = TABLES.get(table or "", {}).get(field.name)
    if own is not None:
        return replace(own, dtype=str(field.type))
    if is_declared(field.name):
        return column(field.name)
    return Column(field.name, str(field.type), "-", "a column of the input", "as in the input", role="input")


def checked(table: "pa.Table", what: str = "the table") -> "pa.Table":
    """The table with declared columns cast and checked as `validate` does, and with `datasets.Features` in its metadata.

    Raises:
        MemtaxError: a declared column has another type, or nulls where there may be none.
    """
    import datasets
    import pyarrow as pa

    known = [name for name in table.column_names if is_declared(name)]
    cast = validate(table, known, what)
    whole = pa.table({name: (cast if name in known else table).column(name) for name in table.column_names})
    own = datasets.Features.from_arrow_schema(table.drop_columns(known).schema.remove_metadata())
    ours = features(known)
    return whole.cast(datasets.Features({n: ours[n] if n in known else own[n] for n in table.column_names}).arrow_schema)


def rename_published(names: Iterable[str]) -> Mapping[str, str]:
    """The renaming that turns published column names into ours, for those among `names` that differ.

    Published `huffman_coding_length` is our `shannon_coding_length`, and we have a column of the published name: it is renamed
    only beside columns that the published layout alone has. No name is given twice.
    """
    present = set(names)
    is_layout = any(name in present for name in _LAYOUT_ONLY)
    renamed: dict[str, str] = {}
    for theirs, ours in PUBLISHED.items():
        if theirs in present and ours not in {*present, *renamed.values()} and (is_layout or theirs not in COLUMNS):
            renamed[theirs] = ours
    return renamed
