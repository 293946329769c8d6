"""The published sequence datasets by name, converted to memtax's schema."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from memtax import schema
from memtax.corpus.sources import Source, open_dataset
from memtax.errors import MemtaxError
from memtax.provenance import digest
from memtax.published.layouts import FILTERS, LAYOUTS, SIZE, Layout, counts_itself
from memtax.published.reading import from_published, share

if TYPE_CHECKING:
    import datasets

VERSION = 2
"""Increased when the same rows would be converted differently, because `datasets` does not notice edited code."""

CATALOGUE: Mapping[str, Layout] = {kind: LAYOUTS[kind] for kind in ("memorized", "random", "test", "filters")}
"""Kind of sequence dataset to its layout."""


def load_published(
    name: str, split: str = "train", *, model: str | None = None, revision: str | None = None
) -> "datasets.Dataset":
    """Load a published dataset of sequences, normalized.

    `EleutherAI/pythia-memorized-evals`: sequences that a model memorized, so `is_memorized` is true and
    `memorization_score` 1. `EleutherAI/pile-{duped,deduped}-pythia-random-sampled`: `memorization_score_<size>` for every model
    (a share); with `model`, also `memorization_score` and `is_memorized` of that model. `usvsnsp/pile-test-sampled`: sequences
    only. `usvsnsp/semantic-filters`: every factor. Its half-sequence perplexities divide by the length of the whole sequence:
    they are raised to 63/31 and 63/32, and null for rows that contain token 0 (treated as padding) or do not have 64 tokens;
    -1 becomes null; matches of the Pile sample no longer count the sequence itself; `huffman_coding_length` becomes
    `shannon_coding_length`; a count of textual matches that is 0 because the text is not ASCII becomes null.

    Args:
        name: name on the Hub, or a folder of its files whose last two path parts are that name.
        split: split, or a slice of one.
        model: size of a model, such as `12B`, for the random samples.
        revision: branch, tag or commit on the Hub.

    Returns:
        `sequence_id`, `tokens` and the scores, as declared in `memtax.schema`.

    Raises:
        MemtaxError: the name is not one of these, a column is missing, or the model does not exist.
    """
    kind = _kind(name)
    source = Source(name, split=split, revision=revision)
    dataset: Any = open_dataset(source)
    schema.require(dataset.column_names, CATALOGUE[kind].required, source.label)
    sizes = [column for column in dataset.column_names if SIZE.fullmatch(column)] if kind == "random" else []
    chosen = _choose(sizes, model, source.label) if model is not None else None
    keep = [column for column in dataset.column_names if column not in CATALOGUE[kind].dropped]

    def convert(table: pa.Table) -> pa.Table:
        if kind == "filters":
            return _filters(table, split)
        columns = dict(zip(("sequence_id", "tokens"), map(table.column, CATALOGUE[kind].required[:2]), strict=True))
        if kind == "memorized":
            columns["is_memorized"] = pa.chunked_array([pa.array([True] * table.num_rows)])
            columns["memorization_score"] = pa.chunked_array([pa.array([1.0] * table.num_rows, pa.float32())])
        for size in sizes:
            columns[f"memorization_score_{size.lower()}"] = share(table.column(size))
        if chosen is not None:
            columns["memorization_score"] = share(table.column(chosen))
            columns["is_memorized"] = pc.equal(columns["memorization_score"], 1.0)
        return schema.validate(pa.table(columns), list(columns), source.label)

    example = convert(dataset.with_format("arrow")[:0])
    converted = dataset.select_columns(keep).with_format("arrow")
    converted = converted.map(
        convert,
        batched=True,
        remove_columns=keep,
        features=schema.features(example.column_names),
        new_fingerprint=digest("published", VERSION, dataset._fingerprint, kind, split, chosen),
        desc=name,
    )
    return converted.with_format(None)


def _kind(name: str) -> str:
    last = "/".join(name.rstrip("/").split("/")[-2:])
    for kind, published in CATALOGUE.items():
        if re.fullmatch(published.names, last):
            return kind
    known = ", ".join(published.names.replace("(duped|deduped)", "{duped,deduped}") for published in CATALOGUE.values())
    raise MemtaxError(f"{name} is not one of the published datasets of sequences ({known}); open others as a source")


def _choose(sizes: list[str], model: str, what: str) -> str:
    for size in sizes:
        if size.lower() == model.lower():
            return size
    raise MemtaxError(f"{what} has no scores of a model {model!r}; it has {', '.join(sizes) or 'none'}")


def _filters(table: pa.Table, split: str) -> pa.Table:
    """The table of every factor."""
    found = from_published(table, in_sample=counts_itself(split))
    names = [name for name in (*FILTERS.columns.values(), "is_memorized") if name in found.column_names]
    return schema.validate(found, names, "the published filters")
