"""Tables of sequences for fitting and predicting: our own runs and the published layout, read in batches.

Only the columns that are needed are kept, so that millions of rows with their tokens and texts pass through.
"""

from collections.abc import Iterator, Sequence
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
    with reading(source.label):
        for batch in dataset.with_format("arrow").iter(batch_size=BATCH):
            # Not `dataset.skip`: in some versions of `datasets` it loses features, or skips nothing if asked to skip all rows.
            skip, table = max(skip - batch.num_rows, 0), batch.slice(skip)
            if not table.num_rows:
                continue
            if is_published(table.column_names):
                table = _with_kind(from_published(table, in_sample=counts_itself(source.split)))
            yield with_taxonomy(table, threshold)


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
