"""The job of `memtax filter`: filters of the catalogue applied to a dataset, locally or on Spark."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from memtax import schema
from memtax.corpus.columns import column_kind, id_column, row_ids
from memtax.corpus.sources import Source, open_dataset
from memtax.errors import MemtaxError
from memtax.filters import make_filters
from memtax.progress import skipped
from memtax.provenance import digest, fingerprint_table

ROWS_PER_BATCH = 256


def apply_filters(
    names: Sequence[str], source: Source, stage: Callable[..., pa.Table], parameters: Mapping[str, Any]
) -> tuple[pa.Table, dict[str, int]]:
    """Add the columns of filters to a dataset.

    Args:
        names: names in the catalogue, in execution order; later filters can read columns of earlier ones.
        source: rows with the columns that the filters require. Without `sequence_id`, rows are numbered.
        stage: runs a filter over rows, given a folder name and rows per batch.
        parameters: parameters of the filters, by field name.

    Returns:
        The table, and the number of nulls in each added column.

    Raises:
        MemtaxError: a filter, parameter or column is missing.
        StaleOutputError: there are parts of another input.
    """
    filters = make_filters(names, parameters)
    dataset = _open(source)
    nulls: dict[str, int] = {}
    for each in filters:
        added = stage(dataset, each, f"filters/{each.name}", ROWS_PER_BATCH)
        skipped(_unknown(added), f"without any value of {each.name}, in {source.label}; its columns are null there")
        nulls |= {name: added.column(name).null_count for name in added.column_names if name != "sequence_id"}
        dataset = _join(dataset, added)
    return _plain(dataset), nulls


def _unknown(added: pa.Table) -> int:
    """Number of rows in which every column added by a filter is null."""
    nulls = [added.column(name).is_null().to_numpy() for name in added.column_names if name != "sequence_id"]
    return int(np.logical_and.reduce(nulls).sum()) if nulls else 0


def _open(source: Source) -> datasets.Dataset:
    dataset = open_dataset(source)
    if source.streaming:
        raise MemtaxError("filters need a table of known length; drop --streaming, or take a slice such as train[:100000]")
    renamed = {
        old: new for old, new in schema.rename_published(dataset.column_names).items() if new not in dataset.column_names
    }
    dataset = dataset.rename_columns(renamed) if renamed else dataset
    if "sequence_id" not in dataset.column_names:
        dataset = dataset.add_column("sequence_id", np.arange(len(dataset)))
    arrow = dataset.features.arrow_schema
    id_column(arrow, source.label)
    row_ids(dataset.data.table.column("sequence_id"), "sequence_id", source.label)
    if "text" in arrow.names and column_kind(arrow.field("text").type, "text", source.label) != "text":
        raise MemtaxError(f"column 'text' of {source.label} contains {arrow.field('text').type}, not text; rename it")
    return dataset


def _join(dataset: datasets.Dataset, added: pa.Table) -> datasets.Dataset:
    table = _plain(dataset)
    if table.column("sequence_id").combine_chunks() != added.column("sequence_id").cast("int64").combine_chunks():
        raise AssertionError("a filter's rows are not those of its input")
    for name in added.column_names:
        if name in table.column_names and name != "sequence_id":
            table = table.drop_columns([name])
        if name != "sequence_id":
            table = table.append_column(name, added.column(name))
    return datasets.Dataset(table, fingerprint=digest(dataset._fingerprint, fingerprint_table(added)))


def _plain(dataset: datasets.Dataset) -> pa.Table:
    table = dataset.with_format("arrow")[:]
    ids = table.column("sequence_id").cast("int64")
    return table.set_column(table.column_names.index("sequence_id"), "sequence_id", ids).replace_schema_metadata(None)
