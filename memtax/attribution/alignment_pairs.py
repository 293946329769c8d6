"""The input of `memtax align`: texts with their paraphrases, one row per text or one row per paraphrase."""

from typing import Any

import datasets
import pyarrow as pa

from memtax import schema
from memtax.corpus import columns
from memtax.corpus.sources import Source, open_dataset
from memtax.errors import MemtaxError
from memtax.provenance import fingerprint_table


def load_pairs(source: Source) -> datasets.Dataset:
    """Rows with `sequence_id`, `text`, `paraphrases` and the source's other columns.

    Raises:
        MemtaxError: a column is missing or has another type, or an id occurs twice.
    """
    dataset = open_dataset(source)
    name = columns.find_column(names := list(dataset.column_names or ()), source.column, source.label)
    if name != "text":
        if "text" in names:
            dataset = dataset.remove_columns("text")
        dataset = dataset.rename_column(name, "text")
    table = (
        pa.Table.from_pylist(list(dataset)) if not isinstance(dataset, datasets.Dataset) else dataset.with_format("arrow")[:]
    )
    if "paraphrases" not in table.column_names and "paraphrase" in table.column_names:
        table = _gather(table)
    schema.require(table.column_names, ("text", "paraphrases"), source.label)
    table = _as_text(table, "text", pa.string(), source.label)
    table = _as_text(table, "paraphrases", pa.list_(pa.string()), source.label)
    if "sequence_id" not in table.column_names:
        table = table.add_column(0, "sequence_id", pa.array(range(table.num_rows), pa.int64()))
    table = table.set_column(
        table.column_names.index("sequence_id"), "sequence_id", schema.validate(table, ["sequence_id"]).column(0)
    )
    if len(table.column("sequence_id").unique()) < table.num_rows:
        raise MemtaxError(f"a sequence_id occurs twice in {source.label}; each text needs its own")
    return datasets.Dataset(table.replace_schema_metadata(None), fingerprint=fingerprint_table(table))


def _gather(table: pa.Table) -> pa.Table:
    """One row per text, from one row per paraphrase; other columns are the first row's."""
    key = "sequence_id" if "sequence_id" in table.column_names else "text"
    first: dict[Any, int] = {}
    lists: dict[Any, list[Any]] = {}
    for row, (value, one) in enumerate(zip(table.column(key).to_pylist(), table.column("paraphrase").to_pylist(), strict=True)):
        first.setdefault(value, row)
        lists.setdefault(value, []).append(one)
    kept = table.take(pa.array(list(first.values()), pa.int64())).drop_columns(["paraphrase"])
    return kept.append_column("paraphrases", pa.array(list(lists.values())))


def _as_text(table: pa.Table, name: str, dtype: pa.DataType, what: str) -> pa.Table:
    values = table.column(name)
    try:
        cast = values.cast(dtype)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        cast = None
    # Numbers can be cast to strings but are not texts.
    inner = (
        values.type.value_type
        if cast is not None and pa.types.is_list(dtype) and not pa.types.is_null(values.type)
        else values.type
    )
    if cast is None or (pa.types.is_primitive(inner) and not pa.types.is_null(inner)):
        raise MemtaxError(f"column {name!r} of {what} contains {values.type}; it must contain {dtype}")
    return table.set_column(table.column_names.index(name), name, cast)
