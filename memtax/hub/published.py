"""A run's features in the layout of the published `usvsnsp/semantic-filters`, so that its readers can take them as they are."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from memtax import schema
from memtax.errors import MemtaxError
from memtax.hub.cards import render
from memtax.provenance import versions

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = {
    "sequence_id": "sequence_id",
    "tokens": "tokens",
    "text": "text",
    "sequence_duplicates": "sequence_duplicates",
    "max_frequency": "max_frequency",
    "avg_frequency": "avg_frequency",
    "min_frequency": "min_frequency",
    "median_frequency": "median_frequency",
    "p25_frequency": "p25_frequency",
    "p75_frequency": "p75_frequency",
    "is_incrementing": "is_incrementing",
    "is_repeating": "is_repeating",
    "shannon_coding_length": "huffman_coding_length",
    "semantic_matches_0_8": "0_8_snowclones",
    "semantic_matches_0_9": "0_9_snowclones",
    "textual_matches_0_8": "0_8_templates",
    "textual_matches_0_9": "0_9_templates",
    "nl_score": "nl_scores",
    "prompt_perplexity": "prompt_perplexity",
    "continuation_perplexity": "generation_perplexity",
    "sequence_perplexity": "sequence_perplexity",
    "memorization_score": "memorization_score",
}
"""Our columns to the published ones, in the published order."""
TOKENS, PROMPT = 64, 32
HALVES = {"prompt_perplexity": (PROMPT - 1) / (TOKENS - 1), "continuation_perplexity": (TOKENS - PROMPT) / (TOKENS - 1)}
"""Published half-sequence perplexities divide by all 63 scored tokens: ours, raised to this power."""
_NOTES = """\
In the layout of `usvsnsp/semantic-filters`: prompt and generation perplexities divide by the scored tokens of the whole
sequence, `huffman_coding_length` is the mean length of a Shannon code, and the snowclones of `pile_` splits count the sequence
itself. Failures are null, not -1; percentiles are interpolated. `memtax.schema.PUBLISHED` has the names.
"""


def to_published(table: "pa.Table", in_sample: bool) -> "pa.Table":
    """Our rows in the published layout; the inverse of what `memtax fit` reads.

    Args:
        table: features of 64-token sequences; columns that are missing are left out.
        in_sample: whether the sequences are the sample that semantic matches are counted in: they then count themselves.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    columns: dict[str, Any] = {}
    for ours, theirs in COLUMNS.items():
        if ours not in table.column_names:
            continue
        values = table.column(ours)
        if ours in HALVES:
            raised = np.power(values.cast(pa.float64()).to_numpy(zero_copy_only=False), HALVES[ours])
            values = pa.array(raised, pa.float64(), from_pandas=True)
        elif in_sample and ours.startswith("semantic_matches"):
            values = pc.add(values, 1)
        columns[theirs] = values
    if "memorization_score" not in columns and "is_memorized" in table.column_names:
        # Of a sequence that is not memorized, only generating it would tell the score.
        one = pc.if_else(table.column("is_memorized"), 1.0, None)
        columns["memorization_score"] = one.cast(pa.float32())
    return pa.table(columns)


def published_files(features: "pa.Table", name: str, title: str, license_id: str | None) -> dict[str, bytes]:
    """Files of a dataset repository: `pile_NAME` with all sequences, `memories_NAME` with the memorized ones, and a card.

    Args:
        features: the run's table.
        name: scheme and model, as in `deduped_12b`.
        title: of the card.
        license_id: the Hub's identifier of the license.

    Raises:
        MemtaxError: the name is not letters, digits, points and underscores, or the sequences are not of 64 tokens.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if not name.replace("_", "").replace(".", "").isalnum():
        raise MemtaxError(f"the published splits are named like deduped_12b, not {name!r}")
    schema.require(features.column_names, ["sequence_id", "tokens", "is_memorized"], "the run")
    if not pc.all(pc.equal(pc.list_value_length(features.column("tokens")), TOKENS)).as_py():
        raise MemtaxError(f"the published layout is of {TOKENS} tokens a sequence; this run has other lengths")
    memories = features.filter(pc.field("is_memorized"))
    splits = {f"pile_{name}": to_published(features, True), f"memories_{name}": to_published(memories, False)}
    files = {}
    for split, table in splits.items():
        sink = pa.BufferOutputStream()
        pq.write_table(table.combine_chunks(), sink, compression="zstd", row_group_size=65_536)
        files[f"data/{split}.parquet"] = sink.getvalue().to_pybytes()
    return {**files, "README.md": _card(splits, title, license_id).encode()}


def _card(splits: "Mapping[str, pa.Table]", title: str, license_id: str | None) -> str:
    from memtax.hub.folder import Config

    config = Config("default", "One row a sequence: its tokens, text, factors and scores.", splits)
    ours = {theirs: name for name, theirs in COLUMNS.items()}
    paths = [{"split": split, "path": f"data/{split}.parquet"} for split in splits]
    return (
        render(
            "dataset.md.j2",
            {
                "pretty_name": title,
                "license": license_id,
                "tags": ["memorization", "memtax"],
                "configs": [{"config_name": "default", "data_files": paths}],
            },
            title,
            title=title,
            summary={},
            configs=[config],
            columns={"default": [replace(schema.column(ours[name]), name=name) for name in config.columns]},
            categories=schema.CATEGORIES,
            version=versions()["memtax"],
        )
        + f"\n## Layout\n\n{_NOTES}"
    )
