"""Stages that compare sequences with each other: embeddings, semantic and textual matches, nearest neighbors."""

from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa

from memtax.engine import World, once
from memtax.engine import run as run_stage
from memtax.files import write_parquet
from memtax.filters.embedding import EmbeddingFilter
from memtax.filters.semantic_matches import SemanticMatchFilter
from memtax.filters.textual_matches import TextualMatchFilter
from memtax.pipeline.config import RunConfig
from memtax.pipeline.stages import prompt_lengths
from memtax.provenance import fingerprint_dataset, fingerprint_table

NEAREST = 5
"""Number of nearest neighbors stored per sequence, for reading."""


def match_columns(config: RunConfig, dataset: datasets.Dataset, rows_per_batch: int) -> list[pa.Table]:
    """Semantic and textual matches of every sequence among the members, which serve as the corpus sample.

    Args:
        config: configuration of the run; `embedding_model` must be set.
        dataset: sequences with `sequence_id`, `tokens`, `text` and `is_member`.
        rows_per_batch: rows per filter call.

    Returns:
        The stages' tables, keyed by `sequence_id`; without those that the configuration provides.
    """
    from memtax.lm.loading import load_tokenizer

    assert config.embedding_model is not None
    world = World.current()
    output = Path(config.output)
    model = config.embedding_model
    embedded = run_stage(dataset, EmbeddingFilter(model), output / "filters" / "embeddings", rows_per_batch)
    tokenizer = load_tokenizer(config.tokenizer or config.model, None if config.tokenizer else config.revision)
    lengths = prompt_lengths(config, dataset)
    prompts = tokenizer.batch_decode([tokens[:size] for tokens, size in zip(dataset["tokens"], lengths, strict=True)])
    described = _with(dataset, embedded, prompts)
    identity = {"stage": "sample", "version": 1, "rows": fingerprint_dataset(described, described.column_names)}
    if world.is_main:
        once(output / "sample", identity, lambda folder: _save_members(described, folder))
        once(output / "neighbours", identity, lambda folder: _write_nearest(described, folder))
    world.wait()
    filters = (
        SemanticMatchFilter(str(output / "sample" / "members"), model, embedded=True),
        TextualMatchFilter(str(output / "sample" / "members"), model, embedded=True),
    )
    counted = [each for each in filters if getattr(config, each.name) is None]  # the others are given
    return [run_stage(described, each, output / "filters" / each.name, rows_per_batch) for each in counted]


def _with(dataset: datasets.Dataset, embedded: pa.Table, prompts: list[str]) -> datasets.Dataset:
    from memtax import schema

    columns = dataset.with_format("arrow")[:]
    table = pa.table(
        {
            "sequence_id": columns.column("sequence_id"),
            "is_member": columns.column("is_member"),
            "prompt_text": pa.array(prompts, pa.string()),
            "embedding": embedded.column("embedding"),
        }
    )
    typed = table.cast(schema.features(table.column_names).arrow_schema)
    return datasets.Dataset(typed, fingerprint=fingerprint_table(typed))


def _members(described: datasets.Dataset) -> datasets.Dataset:
    table = described.with_format("arrow")[:]
    keep = [
        row
        for row, (member, known) in enumerate(
            zip(table.column("is_member").to_pylist(), table.column("embedding").is_valid(), strict=True)
        )
        if member and known.as_py()
    ]
    return described.select(keep)


def _save_members(described: datasets.Dataset, folder: Path) -> None:
    """Write the sample to disk as Arrow, to be memory-mapped from there."""
    _members(described).remove_columns("is_member").save_to_disk(folder / "members", num_shards=1)


def _write_nearest(described: datasets.Dataset, folder: Path) -> None:
    """Write the nearest members of each member, one row per pair."""
    from memtax.filters.embedding_pairs import nearest
    from memtax.filters.sample_matches import vectors_of

    table = _members(described).with_format("arrow")[:]
    ids = table.column("sequence_id").to_numpy()
    rows, columns, cosine, rank = nearest(vectors_of(table.column("embedding"), "the members"), NEAREST)
    write_parquet(folder / "neighbours.parquet", _pairs(ids[rows], rank, ids[columns], cosine))


def _pairs(ids: np.ndarray, rank: np.ndarray, neighbours: np.ndarray, cosine: np.ndarray) -> pa.Table:
    from memtax import schema

    names = ("sequence_id", "rank", "neighbour_id", "cosine")
    return pa.table(dict(zip(names, (ids, rank, neighbours, cosine), strict=True))).cast(schema.arrow_schema(names))
