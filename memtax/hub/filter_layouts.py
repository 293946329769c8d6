"""Features, matches and scores in the layouts of the published datasets, so that their readers can take them as they are."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memtax import schema
from memtax.errors import MemtaxError
from memtax.files import atomic_directory, write_parquet, write_text
from memtax.hub.cards import render
from memtax.hub.folder import Config, content
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
_MADE = "memtax"
"""Key of a file's metadata that says what its split was made of."""
SCHEMES = ("duped", "deduped", "standard")
"""What the published splits call the versions of the Pile."""


@dataclass(frozen=True)
class Layout:
    """How a published dataset is laid out.

    Attributes:
        meanings: its columns to ours.
        row: what a row is.
        notes: what a reader must know of it.
    """

    meanings: Mapping[str, str]
    row: str
    notes: str


FILTERS = Layout(
    {theirs: ours for ours, theirs in COLUMNS.items()},
    "One row a sequence: its tokens, text, factors and scores.",
    """\
In the layout of `usvsnsp/semantic-filters`: prompt and generation perplexities divide by the scored tokens of the whole
sequence, `huffman_coding_length` is the mean length of a Shannon code, and the snowclones of `pile_` splits count the sequence
itself. Failures are null, not -1; percentiles are interpolated. `memtax.schema.PUBLISHED` has the names.
""",
)
MATCHES = Layout(
    {"index": "sequence_id", "0.8_frequencies": "semantic_matches_0_8", "0.9_frequencies": "semantic_matches_0_9"},
    "One row a sequence: how many of the sample are near it.",
    """\
In the layout of `usvsnsp/semantic-duplicates`: the splits `_snowclones` hold semantic matches, and those of a whole corpus
(`deduped_snowclones`) count the sequence itself. The splits `_templates` hold textual matches: those of the semantic ones
whose prompts are at a Levenshtein distance between 0 and 20 characters.
""",
)
CODE_SCORES = Layout(
    {"sequence_id": "sequence_id", "nl_scores": "nl_score"},
    "One row a sequence: the probability that it is natural language.",
    "In the layout of `usvsnsp/pile-pythia-code-vs-nl-scores`: one split a version of the corpus.\n",
)


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

    check_name(name, "deduped_12b")
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
    return {**files, "README.md": _card(FILTERS, splits, title, license_id, {}, title).encode()}


def check_name(name: str, example: str) -> None:
    """Refuse what cannot be (part of) a split's name.

    Raises:
        MemtaxError: there is more in it than letters, digits, points and underscores.
    """
    if not name.replace("_", "").replace(".", "").isalnum():
        raise MemtaxError(f"the published splits are named like {example}, not {name!r}")


def match_splits(table: "pa.Table", name: str) -> "dict[str, pa.Table]":
    """Splits of `MATCHES` from our `semantic_matches_*` and `textual_matches_*`.

    Args:
        table: ours, with `sequence_id`.
        name: one of `SCHEMES` for a sample of the corpus, whose sequences then count themselves; else scheme and model.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    found = {}
    for split, ours in (("snowclones", "semantic"), ("templates", "textual")):
        columns: dict[str, Any] = {"index": table.column("sequence_id")}
        for level in ("8", "9"):
            counts = table.column(f"{ours}_matches_0_{level}")
            itself = ours == "semantic" and name in SCHEMES
            columns[f"0.{level}_frequencies"] = pc.add(counts, 1) if itself else counts
        found[f"{name}_{split}"] = pa.table(columns)
    return found


def write_splits(
    folder: Path, layout: Layout, splits: "Mapping[str, pa.Table]", title: str, summary: Mapping[str, Any]
) -> None:
    """Write a dataset repository in a published layout; other splits that it already has in this layout stay.

    Args:
        folder: the repository.
        layout: which one.
        splits: tables in the published columns.
        title: of the card.
        summary: name to value: what these splits were made of. It stays with them, and the card shows it for every split.

    Raises:
        MemtaxError: the splits that are there have other columns.
    """
    import pyarrow.parquet as pq

    made = {_MADE: ", ".join(f"{name}: {value}" for name, value in summary.items())}
    with atomic_directory(folder) as temporary:
        for path in sorted((folder / "data").glob("*.parquet")):
            names = pq.read_schema(path).names
            if names != next(iter(splits.values())).column_names:
                raise MemtaxError(
                    f"{folder} has a split {path.stem} with other columns ({', '.join(names)}); give another --output"
                )
            (temporary / "data").mkdir(exist_ok=True)
            shutil.copyfile(path, temporary / "data" / path.name)
        for split, table in splits.items():
            write_parquet(temporary / "data" / f"{split}.parquet", table.replace_schema_metadata(made))
        every = {path.stem: pq.read_table(path) for path in sorted((temporary / "data").glob("*.parquet"))}
        of = {split: (table.schema.metadata or {}).get(_MADE.encode(), b"").decode() for split, table in every.items()}
        write_text(temporary / "README.md", _card(layout, every, title, None, of, folder))


def _card(
    layout: Layout,
    splits: "Mapping[str, pa.Table]",
    title: str,
    license_id: str | None,
    summary: Mapping[str, Any],
    here: Path | str,
) -> str:
    config = Config("default", layout.row, splits)
    paths = [{"split": split, "path": f"data/{split}.parquet"} for split in splits]
    # `datasets` caches a folder by its card, not by its files: other content must make another card.
    described = {"config_name": "default", "description": f"{layout.row} Content {content(config)}.", "data_files": paths}
    return render(
        "dataset.md.j2",
        {"pretty_name": title, "license": license_id, "tags": ["memorization", "memtax"], "configs": [described]},
        here,
        title=title,
        summary=summary,
        configs=[config],
        columns={"default": [replace(schema.column(layout.meanings[name]), name=name) for name in config.columns]},
        categories=schema.CATEGORIES,
        notes=layout.notes,
        version=versions()["memtax"],
    )
