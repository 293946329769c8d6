"""Writing memtax's tables in the layouts of the published datasets, for programs that read those."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from memtax import schema
from memtax.errors import MemtaxError
from memtax.files import atomic_directory, write_parquet, write_text
from memtax.hub.cards import render
from memtax.hub.folder import Config, content
from memtax.provenance import versions
from memtax.published.layouts import FILTERS, HALVES, MATCHES, SCHEMES, TOKENS, Layout, check_name

_MADE = "memtax"
"""Metadata key of a file, with the origin of its split."""


def to_published(table: pa.Table, in_sample: bool) -> pa.Table:
    """Convert memtax's rows to the published layout; the inverse of what `memtax fit` reads.

    Args:
        table: features of 64-token sequences; missing columns are omitted.
        in_sample: whether the sequences are the sample in which semantic matches are counted, so that they count themselves.
    """
    columns: dict[str, Any] = {}
    for theirs, ours in FILTERS.columns.items():
        if ours not in table.column_names:
            continue
        values = table.column(ours)
        if ours in HALVES:
            raised = np.power(values.cast(pa.float64()).to_numpy(zero_copy_only=False), 1 / HALVES[ours])
            values = pa.array(raised, pa.float64(), from_pandas=True)
        elif in_sample and ours.startswith("semantic_matches"):
            values = pc.add(values, 1)
        columns[theirs] = values
    if "memorization_score" not in columns and "is_memorized" in table.column_names:
        # The score of a sequence that is not memorized is known only if it was generated.
        one = pc.if_else(table.column("is_memorized"), 1.0, None)
        columns["memorization_score"] = one.cast(pa.float32())
    return pa.table(columns)


def published_files(name: str, features: pa.Table, title: str, license_id: str | None) -> dict[str, bytes]:
    """Files of a dataset repository: `pile_NAME` with all sequences, `memories_NAME` with the memorized ones, and a card.

    Args:
        name: scheme and model, as in `deduped_12b`.
        features: the run's table.
        title: title of the card.
        license_id: the Hub's identifier of the license.

    Raises:
        MemtaxError: the name contains other characters than letters, digits, points and underscores, or sequences do not
            have 64 tokens.
    """
    check_name(name, "deduped_12b")
    schema.require(features.column_names, ["sequence_id", "tokens", "is_memorized"], "the run")
    if not pc.all(pc.equal(pc.list_value_length(features.column("tokens")), TOKENS)).as_py():
        raise MemtaxError(f"the published layout needs {TOKENS} tokens per sequence; this run has other lengths")
    memories = features.filter(pc.field("is_memorized"))
    splits = {f"pile_{name}": to_published(features, True), f"memories_{name}": to_published(memories, False)}
    files = {}
    for split, table in splits.items():
        sink = pa.BufferOutputStream()
        pq.write_table(table.combine_chunks(), sink, compression="zstd", row_group_size=65_536)
        files[f"data/{split}.parquet"] = sink.getvalue().to_pybytes()
    return {**files, "README.md": _card(FILTERS, splits, title, license_id, {}, title).encode()}


def match_splits(table: pa.Table, name: str) -> dict[str, pa.Table]:
    """Splits of `MATCHES` from memtax's `semantic_matches_*` and `textual_matches_*`.

    Args:
        table: memtax's table, with `sequence_id`.
        name: one of `SCHEMES` for a sample of the corpus, whose sequences then count themselves; otherwise scheme and model.
    """
    found = {}
    for ending, names in MATCHES.one_split_kind.items():
        columns: dict[str, Any] = {}
        for theirs, ours in names.items():
            itself = ours.startswith("semantic") and name in SCHEMES
            columns[theirs] = pc.add(table.column(ours), 1) if itself else table.column(ours)
        found[f"{name}_{ending}"] = pa.table(columns)
    return found


def renamed(table: pa.Table, layout: Layout) -> pa.Table:
    """A split of a layout with unchanged values: memtax's columns, cast to their declared types, under published names.

    Raises:
        MemtaxError: a column is missing.
    """
    return schema.validate(table, layout.columns.values()).rename_columns(
        {ours: theirs for theirs, ours in layout.columns.items()}
    )


def write_splits(folder: Path, layout: Layout, splits: Mapping[str, pa.Table], title: str, summary: Mapping[str, Any]) -> None:
    """Write a dataset repository in a published layout; existing other splits in this layout are kept.

    Args:
        folder: the repository.
        layout: the layout.
        splits: tables with the published columns.
        title: title of the card.
        summary: name to value, the origin of these splits. It is stored with them, and the card shows it for every split.

    Raises:
        MemtaxError: existing splits have other columns.
    """
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
    splits: Mapping[str, pa.Table],
    title: str,
    license_id: str | None,
    summary: Mapping[str, Any],
    here: Path | str,
) -> str:
    config = Config("default", layout.row, splits)
    paths = [{"split": split, "path": f"data/{split}.parquet"} for split in splits]
    # `datasets` caches a folder by its card, not by its files, so changed content must change the card.
    described = {"config_name": "default", "description": f"{layout.row} Content {content(config)}.", "data_files": paths}
    return render(
        "dataset.md.j2",
        {"pretty_name": title, "license": license_id, "tags": ["memorization", "memtax"], "configs": [described]},
        here,
        title=title,
        summary=summary,
        configs=[config],
        columns={"default": [replace(schema.column(layout.columns[name]), name=name) for name in config.columns]},
        categories=schema.CATEGORIES,
        notes=layout.notes,
        version=versions()["memtax"],
    )
