"""Counts as dataset repositories in the layout of the published ones, so that either can take the other's place.

`usvsnsp/generation-num-duplicates`: one split a corpus, columns `sequence_id` and `counts`.
`usvsnsp/deduped-num-frequencies`: splits `memorized` and `non_memorized`, columns `TokenID` and `Frequency`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from memtax import schema
from memtax.errors import MemtaxError
from memtax.files import atomic_directory, write_parquet, write_text
from memtax.hub.cards import render

if TYPE_CHECKING:
    import argparse

    import pyarrow as pa

DUPLICATES = {"sequence_id": "sequence_id", "sequence_duplicates": "counts"}
FREQUENCIES = {"token_id": "TokenID", "token_frequency": "Frequency"}
"""Our column names to the published ones."""


def add_corpus_options(parser: "argparse.ArgumentParser") -> None:
    """Options of a script that counts a corpus: what it is, how it is read, and where it is counted."""
    parser.add_argument("corpus", nargs="+")
    parser.add_argument("--column")
    parser.add_argument("--sequence-length", type=int)
    parser.add_argument("--dtype", default="uint16")
    parser.add_argument("--streaming", action="store_true")
    parser.add_argument("--engine", default="local")
    parser.add_argument("--master")


def write_published(
    folder: Path, splits: "Mapping[str, pa.Table]", names: Mapping[str, str], title: str, facts: Mapping[str, str]
) -> None:
    """Write a dataset repository: `data/SPLIT.parquet` and a card; it replaces an older one as a whole.

    Args:
        folder: the repository.
        splits: tables in our column names.
        names: our names to those of the repository.
        title: of the card.
        facts: name to value, shown as a table in the card.

    Raises:
        MemtaxError: there is no split, or a table lacks a column.
    """
    if not splits:
        raise MemtaxError("there is nothing to publish: no split was counted")
    with atomic_directory(folder) as temporary:
        for split, table in splits.items():
            checked = schema.validate(table, names, split)
            write_parquet(temporary / "data" / f"{split}.parquet", checked.rename_columns(list(names.values())))
        write_text(temporary / "README.md", _card(folder, splits, names, title, facts))


def _card(
    folder: Path, splits: "Mapping[str, pa.Table]", names: Mapping[str, str], title: str, facts: Mapping[str, str]
) -> str:
    from memtax.provenance import digest, versions

    # `datasets` caches a folder by its card: other content must make another card.
    content = digest([[split, table.num_rows, hash_of(table)] for split, table in splits.items()])[:8]
    front_matter = {
        "pretty_name": title,
        "tags": ["memorization", "memtax"],
        "configs": [
            {
                "config_name": "default",
                "description": f"Content {content}.",
                "data_files": [{"split": split, "path": f"data/{split}.parquet"} for split in splits],
            }
        ],
    }
    return render(
        "counts.md.j2",
        front_matter,
        folder,
        title=title,
        facts=facts,
        splits=splits,
        names=names,
        columns=[schema.column(ours) for ours in names],
        version=versions()["memtax"],
    )


def hash_of(table: "pa.Table") -> str:
    """Digest of a table's values."""
    from memtax.provenance import fingerprint_dataset

    return fingerprint_dataset(table, table.column_names)
