"""Texts that tables do not hold as one string per row: lists of texts, several columns, JSON lines of bare strings."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from memtax.corpus import columns, formats
from memtax.corpus.binary import file_stamp
from memtax.corpus.conversations import find_shape
from memtax.errors import MemtaxError
from memtax.provenance import digest


def is_plain(schema: pa.Schema, column: str | None) -> bool:
    """Whether rows are read as they are: no conversations, and nothing for `rewrite` to do."""
    return find_shape(schema, column) is None and not (_joined(schema, column) or _is_list(schema, column))


def rewrite(dataset: Any, column: str | None) -> Any:
    """The dataset with one text per row in a column that was asked for.

    `question,answer` joins columns of text with a space (null if one is). A column of lists, such as TOFU's
    `perturbed_answer`, gives one row per text; the columns that number rows are dropped, and texts of one row are one document.
    """
    schema = dataset.features.arrow_schema
    if column is None or find_shape(schema, column) is not None:
        return dataset
    if names := _joined(schema, column):
        return _with(dataset, column, lambda table: table.append_column(column, _join([table.column(name) for name in names])))
    return _with(dataset, column, lambda table: _flatten(table, column)) if _is_list(schema, column) else dataset


def _with(dataset: Any, column: str, change: Any) -> Any:
    from datasets import Dataset

    table = change(dataset.with_format("arrow")[:].replace_schema_metadata(None))
    return Dataset(table, split=dataset.split, fingerprint=digest(dataset._fingerprint, column))


def _joined(schema: pa.Schema, column: str | None) -> list[str]:
    names = column.split(",") if column is not None and column not in schema.names else []
    texts = [name for name in names if name in schema.names and columns.is_text(schema.field(name).type)]
    return names if len(names) > 1 and texts == names else []


def _is_list(schema: pa.Schema, column: str | None) -> bool:
    if column not in schema.names:
        return False
    dtype = schema.field(column).type
    return columns.is_list(dtype) and columns.is_text(dtype.value_type)


def _join(parts: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    texts = [part.cast(pa.large_string()) for part in parts]
    return pc.binary_join_element_wise(*texts, pa.scalar(" ", pa.large_string()))


def _flatten(table: pa.Table, column: str) -> pa.Table:
    lists = table.column(column).combine_chunks()
    document = columns.document_column(table.schema, column)
    if document is None:
        table = table.append_column("document", pa.array([f"row {row}" for row in range(table.num_rows)]))
    dropped = [name for name in (column, *columns.ID_COLUMNS) if name in table.column_names]
    rows = table.drop_columns(dropped).take(pc.list_parent_indices(lists))
    return rows.append_column(column, pc.list_flatten(lists))


def are_bare(files: Sequence[Path]) -> bool:
    """Whether JSON lines begin with a string instead of an object, as MIMIR's do."""
    if any(formats.extension(file) != ".jsonl" for file in files):
        return False
    with formats.open_bytes(files[0]) as lines:
        return lines.read(4096).lstrip().startswith(b'"')


def read_bare(files: Sequence[Path]) -> Any:
    """JSON lines of strings, as a dataset with the column `text`.

    Raises:
        MemtaxError: a line is not a string.
    """
    from datasets import Dataset

    texts: list[str] = []
    for file in files:
        with formats.open_bytes(file) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    texts.append(_string(line, number, file))
    table = pa.table({"text": pa.array(texts, pa.large_string())})
    return Dataset(table, fingerprint=digest([file_stamp(file) for file in files]))


def _string(line: bytes, number: int, file: Path) -> str:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise MemtaxError(f"line {number} of {file} is not JSON: {error}") from error
    if not isinstance(value, str):
        raise MemtaxError(f"line {number} of {file} is not a string, unlike the first one")
    return value
