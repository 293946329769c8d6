"""A dataset repository as a folder: Parquet files, one folder per config, and a card that `load_dataset` understands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from memtax import schema
from memtax.checksums import checksum
from memtax.files import atomic_directory, link, write_parquet, write_text
from memtax.hub.cards import render
from memtax.provenance import digest, fingerprint_table, versions


@dataclass(frozen=True)
class ParquetFiles:
    """A split stored in finished Parquet files, which are linked instead of read."""

    paths: tuple[Path, ...]

    @property
    def num_rows(self) -> int:
        """Number of rows in all files."""
        return sum(int(pq.read_metadata(path).num_rows) for path in self.paths)

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the first file."""
        return pq.read_schema(self.paths[0])

    def link(self, folder: Path, split: str) -> None:
        """Link the files into a dataset's folder, under the names for a split."""
        for number, path in enumerate(self.paths):
            name = split if len(self.paths) == 1 else f"{split}-{number:05d}-of-{len(self.paths):05d}"
            link(path, folder / f"{name}.parquet")


@dataclass(frozen=True)
class Config:
    """One config of a dataset: its splits, and a description of its rows."""

    name: str
    row: str
    splits: "Mapping[str, pa.Table | ParquetFiles]"

    @property
    def columns(self) -> list[str]:
        """Column names of the first split; all splits have the same columns."""
        return list(self.schema.names)

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the first split."""
        return next(iter(self.splits.values())).schema


def write_dataset(
    folder: Path | str,
    configs: Sequence[Config],
    title: str,
    summary: Mapping[str, Any],
    license_id: str | None = None,
    recitation_threshold: int | None = None,
) -> None:
    """Write the folder, replacing an older one as a whole.

    Args:
        folder: the dataset repository.
        configs: its configs; the first one is the default. Columns that `memtax.schema` does not declare come from the user's
            input and keep their types.
        title: title of the card.
        summary: name to value, shown as a table in the card.
        license_id: the Hub's identifier of the license, if known.
        recitation_threshold: threshold of the column `taxonomy`, if known.
    """
    with atomic_directory(folder) as temporary:
        for config in configs:
            for split, table in config.splits.items():
                if isinstance(table, ParquetFiles):
                    table.link(temporary / config.name, split)
                    continue
                # The features are stored in the Parquet metadata, which preserves ClassLabel names.
                checked = schema.checked(table, f"{config.name}/{split}")
                write_parquet(temporary / config.name / f"{split}.parquet", checked)
        card = dataset_card(configs, title, summary, license_id, Path(folder), recitation_threshold)
        write_text(temporary / "README.md", card)


def dataset_card(
    configs: Sequence[Config],
    title: str,
    summary: Mapping[str, Any],
    license_id: str | None,
    folder: Path,
    recitation_threshold: int | None = None,
) -> str:
    """The card: configs for the viewer, and every column with type, unit, meaning and the meaning of a null."""
    rows = max((table.num_rows for config in configs for table in config.splits.values()), default=0)
    # `datasets` cannot load a split without rows.
    loadable = [config for config in configs if any(table.num_rows for table in config.splits.values())] or configs
    front_matter = {
        "pretty_name": title,
        "license": license_id,
        "tags": ["memorization", "memtax"],
        "size_categories": [size_category(rows)],
        "configs": [
            {
                "config_name": config.name,
                # `datasets` caches a folder by its card, not by its files, so changed content must change the card.
                "description": f"{config.row} Content {content(config)}.",
                **({"default": True} if config is loadable[0] else {}),
                "data_files": [{"split": split, "path": _pattern(config, split)} for split in config.splits],
            }
            for config in loadable
        ],
    }
    return render(
        "dataset.md.j2",
        front_matter,
        folder,
        title=title,
        summary=summary,
        configs=configs,
        columns={config.name: [schema.described(field, config.name) for field in config.schema] for config in configs},
        categories=schema.CATEGORIES,
        recitation_threshold=recitation_threshold,
        usual_threshold=schema.RECITATION_THRESHOLD,
        notes=None,
        version=versions()["memtax"],
    )


def size_category(rows: int) -> str:
    """The Hub's category for a dataset's size."""
    steps = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
    if rows < 1000:
        return "n<1K"
    # 1,000 has four digits.
    number = min(len(str(rows)) - 4, len(steps) - 1)
    return f"{steps[number]}<n<{steps[number + 1]}" if number + 1 < len(steps) else "n>1T"


def content(config: Config) -> str:
    """Eight hexadecimal digits that identify a config's values."""
    return digest(
        {
            name: [checksum(path) for path in table.paths] if isinstance(table, ParquetFiles) else fingerprint_table(table)
            for name, table in config.splits.items()
        }
    )[:8]


def _pattern(config: Config, split: str) -> str:
    table = config.splits[split]
    several = isinstance(table, ParquetFiles) and len(table.paths) > 1
    return f"{config.name}/{split}{'-*' if several else ''}.parquet"
