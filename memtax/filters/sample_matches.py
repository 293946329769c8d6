"""The corpus sample that sequences are compared with: ids, embeddings and prompts, cached per process."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memtax import schema
from memtax.corpus.sources import Source, open_dataset
from memtax.errors import MemtaxError
from memtax.filters.embedding_pairs import Float32, Int64, Pairs, Prepared, pairs, prepare
from memtax.lm.encoder import embed

MANY = 100_000
"""Expected number of queries per sample, used to choose its dtype."""


@dataclass(frozen=True)
class Sample:
    """A sample prepared for comparison; `prompts` is None if it has no `prompt_text`."""

    ids: Int64
    prepared: Prepared
    prompts: list[str | None] | None

    def counts(self, found: Pairs, ids: Int64, levels: int) -> Int64:
        """Number of pairs per query and level, without pairs of a sequence with itself, (queries, levels)."""
        other = self.ids[found.columns] != ids[found.rows]
        counts = np.zeros((len(ids), levels), np.int64)
        for level in range(levels):
            counts[:, level] = np.bincount(found.rows[other & (found.level > level)], minlength=len(ids))
        return counts


@functools.lru_cache(maxsize=2)
def load_sample(name: str, model: str, revision: str | None, version: Any) -> Sample:
    """Open a sample.

    Args:
        name: a dataset as `path:config:split` with `sequence_id` and `embedding` (memory-mapped if the dataset is), or with
            `text`, which is embedded now.
        model: encoder of the texts.
        revision: revision of the encoder.
        version: changes with the files.

    Raises:
        MemtaxError: a column is missing or a row has no embedding.
    """
    dataset: Any = open_dataset(Source.parse(name))
    schema.require(dataset.column_names, ("sequence_id",), name)
    table = dataset.with_format("arrow")
    ids = np.asarray(table[:].column("sequence_id").to_numpy(), np.int64)
    if "embedding" in dataset.column_names:
        vectors = vectors_of(table[:].column("embedding"), name)
    else:
        schema.require(dataset.column_names, ("text",), f"{name}, which has no embedding,")
        vectors = embed([text or "" for text in dataset["text"]], model, revision)
    prompts = list(dataset["prompt_text"]) if "prompt_text" in dataset.column_names else None
    return Sample(ids, prepare(vectors, MANY), prompts)


def vectors_of(column: Any, what: str) -> Float32:
    """An Arrow column of lists as a matrix; zero-copy if it is one chunk of float32.

    Raises:
        MemtaxError: a row is null or of another width.
    """
    if column.null_count:
        raise MemtaxError(f"{what} has {column.null_count} rows without an embedding; drop them from the sample")
    chunks = [chunk for chunk in column.chunks if len(chunk)] if isinstance(column, pa.ChunkedArray) else [column]
    parts: list[NDArray[Any]] = []
    for chunk in chunks:
        values = chunk.flatten().to_numpy(zero_copy_only=False)
        if len(values) % len(chunk) or len(set(np.diff(chunk.value_lengths().to_numpy(zero_copy_only=False)).tolist()) - {0}):
            raise MemtaxError(f"the embeddings of {what} differ in width; embed all rows with one model")
        parts.append(values.reshape(len(chunk), -1))
    if not parts:
        return np.zeros((0, 0), np.float32)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def matches(
    sample: Sample, ids: Sequence[int], vectors: Sequence[Any], thresholds: tuple[float, ...]
) -> tuple[NDArray[np.int64], list[Pairs]]:
    """Rows that have an embedding, and their pairs with the sample (indexed within those rows)."""
    known = np.flatnonzero([vector is not None for vector in vectors])
    if not len(known) or not len(sample.ids):
        return known, []
    queries = np.array([vectors[row] for row in known.tolist()], np.float32)
    return known, list(pairs(queries, sample.prepared, thresholds))
