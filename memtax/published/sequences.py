"""The published sequence datasets by name, converted to our schema."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from memtax import schema
from memtax.corpus.sources import Source, open_dataset
from memtax.errors import MemtaxError
from memtax.provenance import digest

if TYPE_CHECKING:
    import datasets

VERSION = 1
"""Raised when the same rows would be converted otherwise: `datasets` does not notice edited code."""

_SIZE = re.compile(r"\d+(\.\d+)?[MB]", re.IGNORECASE)
_FACTORS = ("max_frequency", "avg_frequency", "min_frequency", "median_frequency", "p25_frequency", "p75_frequency")


@dataclass(frozen=True)
class Published:
    """One published dataset.

    Attributes:
        names: its names on the Hub, a pattern.
        splits: what its splits are called, for messages.
        columns: the columns that must be there.
    """

    names: str
    splits: str
    columns: tuple[str, ...]


CATALOGUE: Mapping[str, Published] = {
    "memorized": Published(
        r"EleutherAI/pythia-memorized-evals", "{duped,deduped}.{70m..12b}, such as deduped.1.4b", ("index", "tokens")
    ),
    "random": Published(r"EleutherAI/pile-(duped|deduped)-pythia-random-sampled", "train", ("Index", "Tokens")),
    "test": Published(r"usvsnsp/pile-test-sampled", "train", ("sequence_id", "tokens")),
    "filters": Published(
        r"usvsnsp/semantic-filters", "{pile,memories}_{duped,deduped}_{model}", ("sequence_id", "tokens", "text")
    ),
}
"""Kind to dataset (Biderman et al. 2023; Prashanth et al. 2024)."""


def load_published(
    name: str, split: str = "train", *, model: str | None = None, revision: str | None = None
) -> "datasets.Dataset":
    """Load a published dataset of sequences, normalized.

    `EleutherAI/pythia-memorized-evals`: what a model memorized, so `is_memorized` is true and `memorization_score` 1.
    `EleutherAI/pile-{duped,deduped}-pythia-random-sampled`: `memorization_score_<size>` for every model (a share); with
    `model` also `memorization_score` and `is_memorized` of that one. `usvsnsp/pile-test-sampled`: sequences alone.
    `usvsnsp/semantic-filters`: every factor. Its perplexities of the halves divide by the length of the whole: they are
    raised to 63/31 and 63/32, and null for rows that hold token 0 (taken for padding) or are not 64 tokens long; -1 is
    null; matches of the Pile sample no longer count the sequence itself; `huffman_coding_length` is our
    `shannon_coding_length`; a count of textual matches that is 0 because the text is not ASCII is null.

    Args:
        name: its name on the Hub, or a folder with its files whose last two parts are that name.
        split: split, slices included.
        model: size of a model, such as `12B`, for the random samples.
        revision: branch, tag or commit.

    Returns:
        `sequence_id`, `tokens` and the scores, as `memtax.schema` declares them.

    Raises:
        MemtaxError: the name is not one of these, a column is missing, or no such model is there.
    """
    kind = _kind(name)
    source = Source(name, split=split, revision=revision)
    dataset: Any = open_dataset(source)
    schema.require(dataset.column_names, CATALOGUE[kind].columns, source.label)
    sizes = [column for column in dataset.column_names if _SIZE.fullmatch(column)] if kind == "random" else []
    chosen = _choose(sizes, model, source.label) if model is not None else None
    keep = [column for column in dataset.column_names if column != "frequencies"]

    def convert(table: pa.Table) -> pa.Table:
        if kind == "filters":
            return _filters(table, split)
        columns = {"sequence_id": table.column(CATALOGUE[kind].columns[0]), "tokens": table.column(CATALOGUE[kind].columns[1])}
        if kind == "memorized":
            columns["is_memorized"] = pa.chunked_array([pa.array([True] * table.num_rows)])
            columns["memorization_score"] = pa.chunked_array([pa.array([1.0] * table.num_rows, pa.float32())])
        for size in sizes:
            columns[f"memorization_score_{size.lower()}"] = _score(table.column(size))
        if chosen is not None:
            columns["memorization_score"] = _score(table.column(chosen))
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


def _score(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A share, null where it is not between 0 and 1."""
    values = column.cast(pa.float32())
    return pc.if_else(pc.and_(pc.greater_equal(values, 0.0), pc.less_equal(values, 1.0)), values, pa.scalar(None, pa.float32()))


def _filters(table: pa.Table, split: str) -> pa.Table:
    """The table of every factor."""
    found = {name: table.column(name) for name in ("sequence_id", "tokens", "text")}
    plain = ("sequence_duplicates", *_FACTORS, "is_incrementing", "is_repeating", "memorization_score")
    found |= {name: table.column(name) for name in plain if name in table.column_names}
    for name, ours in schema.PUBLISHED.items():
        if name in table.column_names and ours not in found and ours in schema.COLUMNS and not ours.endswith("perplexity"):
            found[ours] = table.column(name)
    itself = int(split.startswith("pile_"))
    ascii_text = pc.string_is_ascii(table.column("text"))
    for ours in [name for name in found if "_matches_" in name]:
        counts = found[ours].cast(pa.int64())
        if ours.startswith("semantic"):
            found[ours] = pc.if_else(pc.greater_equal(counts, itself), pc.subtract(counts, itself), pa.scalar(None, pa.int64()))
        else:
            # The reference gives 0 to every prompt with a character beyond ASCII.
            found[ours] = pc.if_else(pc.or_(ascii_text, pc.greater(counts, 0)), counts, pa.scalar(None, pa.int64()))
    usable = _divided_by_63(table.column("tokens"))
    powers = {"prompt_perplexity": 63 / 31, "generation_perplexity": 63 / 32, "sequence_perplexity": 1.0}
    for name, power in powers.items():
        if name in table.column_names:
            values = table.column(name).to_numpy(zero_copy_only=False).astype(np.float64)
            # A perplexity is at least 1; -1 and 0 stand for a failure.
            good = usable & (values >= 1 - 1e-6)
            true = np.where(good, np.maximum(values, 1.0) ** power, 0)
            found[schema.PUBLISHED.get(name, name)] = pa.chunked_array([pa.array(true.astype(np.float32), mask=~good)])
    if "memorization_score" in found:
        found["memorization_score"] = _score(found["memorization_score"])
        found["is_memorized"] = pc.equal(found["memorization_score"], 1.0)
    return schema.validate(pa.table(found), list(found), "the published filters")


def _divided_by_63(tokens: pa.ChunkedArray) -> np.ndarray:
    """Which rows have 64 tokens, none of them 0: the reference's perplexities of the others leave tokens out."""
    lengths = pc.fill_null(pc.list_value_length(tokens), 0).to_numpy(zero_copy_only=False)
    flat = pc.list_flatten(tokens).to_numpy(zero_copy_only=False)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    zeros = np.concatenate([[0], np.cumsum(flat == 0)])
    usable: np.ndarray = (lengths == 64) & (zeros[starts[1:]] == zeros[starts[:-1]])
    return usable
