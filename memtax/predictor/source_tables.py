"""Tables of sequences for fitting and predicting: our own runs and the published layout, read in batches.

Only the columns that are needed are kept, so that millions of rows with their tokens and texts pass through.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from memtax import schema
from memtax.corpus.sources import Source, open_dataset, reading
from memtax.errors import MemtaxError
from memtax.filters.code_vs_nl import PUBLISHED, CodeFilter
from memtax.filters.taxonomy import THRESHOLD, taxonomy
from memtax.predictor.copies import COLUMN, with_sketch

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 65_536
TOKENS, PROMPT = 64, 32
"""Length of the published sequences and of their prompts."""
HALVES = {"prompt_perplexity": (TOKENS - 1) / (PROMPT - 1), "continuation_perplexity": (TOKENS - 1) / (TOKENS - PROMPT)}
"""Published half-sequence perplexities divide by all 63 scored tokens; raised to this power they divide by their own tokens."""
PUBLISHED_ONLY = ("generation_perplexity", "0_8_snowclones", "0_8_templates")
"""Columns that identify the published layout."""
TAXONOMY_INPUTS = ("sequence_duplicates", "is_incrementing", "is_repeating")
"""What the taxonomy is made from."""


def read_table(source: Source | str, columns: Sequence[str] | None = None, threshold: int = THRESHOLD) -> "pa.Table":
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
    import pyarrow as pa

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


def batches(source: Source, threshold: int = THRESHOLD, skip: int = 0) -> Iterator["pa.Table"]:
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
    dataset = dataset.skip(skip) if skip else dataset
    with reading(source.label):
        for batch in dataset.with_format("arrow").iter(batch_size=BATCH):
            table = batch
            if any(name in table.column_names for name in PUBLISHED_ONLY):
                table = from_published(table, in_sample=source.split.startswith("pile_"))
            yield with_taxonomy(table, threshold)


def with_taxonomy(table: "pa.Table", threshold: int = THRESHOLD) -> "pa.Table":
    """The table with the column `taxonomy`, if that is missing and can be had."""
    import pyarrow as pa

    if "taxonomy" in table.column_names or not all(name in table.column_names for name in TAXONOMY_INPUTS):
        return table
    duplicates, incrementing, repeating = (table.column(name).to_pylist() for name in TAXONOMY_INPUTS)
    found = taxonomy(duplicates, incrementing, repeating, threshold)
    return table.append_column("taxonomy", pa.array(found, pa.int64()))


def from_published(table: "pa.Table", in_sample: bool) -> "pa.Table":
    """Turn rows of `usvsnsp/semantic-filters` into our layout.

    Columns are renamed (`memtax.schema.PUBLISHED`); `is_memorized` is `memorization_score` = 1; perplexities of -1 stand for
    failures and become null; prompt and continuation perplexities are raised to the power that makes them divide by their
    own tokens, and are null for rows that are not of 64 tokens or hold token 0, where the published ones are something else.

    Args:
        table: published columns; any may be missing, but half-sequence perplexities need `tokens`.
        in_sample: whether the sequences are the sample that semantic matches are counted in: the published count of such a
            sequence includes itself, ours does not.

    Raises:
        MemtaxError: half-sequence perplexities without tokens.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    names = schema.rename_published(table.column_names)
    table = table.rename_columns([names.get(name, name) for name in table.column_names])
    columns = {name: table.column(name) for name in table.column_names}
    if any(name in columns for name in HALVES):
        if "tokens" not in columns:
            raise MemtaxError("published prompt and generation perplexities cannot be converted without the column 'tokens'")
        sound = _plain_windows(columns["tokens"])
    for name in ("prompt_perplexity", "continuation_perplexity", "sequence_perplexity"):
        if name in columns:
            values = columns[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
            known = values >= 1  # a perplexity is at least 1; -1 stands for a failure, NaN is not at least 1
            if name in HALVES:
                known &= sound
                values = np.where(known, values, 1.0) ** HALVES[name]
            columns[name] = pa.array(values, pa.float64(), mask=~known)
    if in_sample:
        for name in ("semantic_matches_0_8", "semantic_matches_0_9"):
            if name in columns:
                columns[name] = pc.max_element_wise(pc.subtract(columns[name], 1), 0, skip_nulls=False)
    if "memorization_score" in columns and "is_memorized" not in columns:
        columns["is_memorized"] = pc.equal(columns["memorization_score"], 1)
    return _with_kind(pa.table(columns))


def _with_kind(table: "pa.Table") -> "pa.Table":
    """The table with `text_kind`, if it has published scores: they are the published classifier's."""
    import pyarrow as pa

    if "nl_score" not in table.column_names or "text_kind" in table.column_names:
        return table
    kinds = CodeFilter(PUBLISHED[0]).verdicts(table.column("nl_score").to_pylist())
    return table.append_column("text_kind", pa.array(kinds, pa.string()))


def _plain_windows(tokens: "pa.ChunkedArray") -> NDArray[np.bool_]:
    """Which rows have exactly 64 tokens, none of them 0."""
    import pyarrow as pa
    import pyarrow.compute as pc

    combined = tokens.combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(combined), 0).to_numpy(zero_copy_only=False)
    parents = pc.list_parent_indices(combined).to_numpy(zero_copy_only=False)
    zero = pc.fill_null(pc.equal(pc.list_flatten(combined), 0), True).cast(pa.uint8()).to_numpy(zero_copy_only=False)
    return (lengths == TOKENS) & (np.bincount(parents, zero, minlength=len(combined)) == 0)
