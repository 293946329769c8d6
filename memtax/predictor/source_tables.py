"""Tables of sequences for fitting and predicting: our own runs and the published layout, read in batches.

Only the columns that are needed are kept, so that millions of rows with their tokens and texts pass through.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from memtax.corpus.sources import Source, open_dataset, reading
from memtax.errors import MemtaxError
from memtax.filters.code_vs_nl import PUBLISHED, CodeFilter
from memtax.filters.taxonomy import THRESHOLD, taxonomy
from memtax.predictor.copies import COLUMN, with_sketch
from memtax.published.layouts import counts_itself
from memtax.published.reading import from_published, is_published

BATCH = 65_536
TAXONOMY_INPUTS = ("sequence_duplicates", "is_incrementing", "is_repeating")
"""Columns from which the taxonomy is computed."""


def read_table(source: Source | str, columns: Sequence[str] | None = None, threshold: int = THRESHOLD) -> pa.Table:
    """Read a dataset in our layout or the published one; see `batches`.

    Args:
        source: a dataset.
        columns: those to keep, as far as they are there; None keeps all but lists; of tokens and texts a sketch that finds
            copies (`memtax.predictor.copies`).
        threshold: see `memtax.filters.taxonomy.taxonomy`, for tables without categories.

    Returns:
        One table in our layout.

    Raises:
        MemtaxError: the source cannot be read or has no rows.
    """
    source = Source.parse(source) if isinstance(source, str) else source
    kept = []
    for batch in batches(source, threshold):
        if columns is None:
            # A sketch stays of tokens and texts, which are lists and long.
            batch = with_sketch(batch)
            names = [
                name
                for name, dtype in zip(batch.column_names, batch.schema.types, strict=True)
                if name == COLUMN or not (pa.types.is_nested(dtype) or pa.types.is_large_string(dtype))
            ]
        else:
            names = [name for name in batch.column_names if name in columns]
        kept.append(batch.select(names))
    if not kept:
        raise MemtaxError(f"{source.label} has no rows")
    return pa.concat_tables(kept, promote_options="permissive")


def batches(source: Source, threshold: int = THRESHOLD, skip: int = 0) -> Iterator[pa.Table]:
    """Batches of rows in our layout.

    The published layout is recognized by its column names and converted (`from_published`); of its splits those called
    `pile_...` are samples whose sequences count among their own semantic matches. `taxonomy` is added where its inputs are
    there and it is not.

    Args:
        source: a dataset.
        threshold: of the taxonomy.
        skip: rows left out at the start.
    """
    dataset: Any = open_dataset(source)
    # Versions of `datasets` before 5 lose the features of a dataset that they skip rows of.
    metadata = dataset.features.arrow_schema.metadata if dataset.features else None
    dataset = dataset.skip(skip) if skip else dataset
    with reading(source.label):
        for batch in _of_size(dataset.with_format("arrow").iter(batch_size=BATCH), BATCH):
            table = batch if batch.schema.metadata or not metadata else batch.replace_schema_metadata(metadata)
            if is_published(table.column_names):
                table = _with_kind(from_published(table, in_sample=counts_itself(source.split)))
            yield with_taxonomy(table, threshold)


def _of_size(tables: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """The rows in tables of this size; after `skip`, some versions of `datasets` give smaller ones."""
    waiting: list[pa.Table] = []
    for table in tables:
        rest = table
        while rest.num_rows:
            waiting.append(rest.slice(0, size - sum(part.num_rows for part in waiting)))
            rest = rest.slice(waiting[-1].num_rows)
            if sum(part.num_rows for part in waiting) == size:
                yield _joined(waiting)
                waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(tables: list[pa.Table]) -> pa.Table:
    return tables[0] if len(tables) == 1 else pa.concat_tables(tables, promote_options="permissive").combine_chunks()


def with_taxonomy(table: pa.Table, threshold: int = THRESHOLD) -> pa.Table:
    """The table with the column `taxonomy`, if that is missing and can be had."""
    if "taxonomy" in table.column_names or not all(name in table.column_names for name in TAXONOMY_INPUTS):
        return table
    duplicates, incrementing, repeating = (table.column(name).to_pylist() for name in TAXONOMY_INPUTS)
    found = taxonomy(duplicates, incrementing, repeating, threshold)
    return table.append_column("taxonomy", pa.array(found, pa.int64()))


def _with_kind(table: pa.Table) -> pa.Table:
    """The table with `text_kind`, if it has published scores: they are the published classifier's."""
    if "nl_score" not in table.column_names or "text_kind" in table.column_names:
        return table
    kinds = CodeFilter(PUBLISHED[0]).verdicts(table.column("nl_score").to_pylist())
    return table.append_column("text_kind", pa.array(kinds, pa.string()))
