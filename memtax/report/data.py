"""Reading a run directory for the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from memtax import schema
from memtax.checksums import verify
from memtax.errors import MemtaxError
from memtax.record_shapes import METRICS
from memtax.records import read_run
from memtax.results import SUMMARY, read_summary

HEAVY = ("tokens", "text", "token_texts", "token_logprobs")
"""Columns that are read only for sequences shown individually."""


def run_folder(path: Path | str) -> Path:
    """The directory of a run, or the run inside the directory of an audit."""
    path = Path(path)
    return path / "run" if (path / "run" / SUMMARY).is_file() else path


@dataclass(frozen=True)
class Run:
    """Contents of a run directory that the report reads; missing parts are None or empty."""

    metrics: Mapping[str, Any]
    record: Mapping[str, Any]
    """The contents of `run.yaml`."""
    features_path: Path | None
    features: pa.Table | None
    """One row per sequence, without the `HEAVY` columns."""
    held_out: pa.Table | None
    """The rows of the membership table that the model was not trained on."""
    frequencies: pa.Table | None
    """token_id and token_frequency."""
    neighbours: pa.Table | None = None
    """sequence_id, rank, neighbour_id and cosine."""
    places: pa.Table | None = None
    """The first places of each continuation in the corpus; see `memtax.counting.places`."""
    alignment: pa.Table | None = None
    """One row per text of `memtax align`: gradient_alignment, and a memorization score where the run has the text."""

    @classmethod
    def read(cls, run: Path) -> "Run":
        """Read the directory.

        Raises:
            MemtaxError: there are neither metrics nor a dataset, or a file is damaged.
        """
        features_path = run / "dataset" / "features" / "train.parquet"
        metrics_path = run / SUMMARY
        if not metrics_path.exists() and not features_path.exists():
            raise MemtaxError(f"{run} contains neither {SUMMARY} nor dataset/features; give the directory of a finished run")
        verify(run)
        held_out = _table(run / "dataset" / "membership" / "train.parquet")
        if held_out is not None and "is_member" in held_out.column_names:
            held_out = held_out.filter(pc.invert(held_out.column("is_member")))
        return cls(
            metrics=read_summary(run, shape=METRICS) if metrics_path.exists() else {},
            record=read_run(run / "run.yaml") if (run / "run.yaml").exists() else {},
            features_path=features_path if features_path.exists() else None,
            features=_table(features_path),
            held_out=held_out,
            frequencies=_table(run / "dataset" / "token_frequencies" / "train.parquet"),
            neighbours=_table(run / "dataset" / "neighbours" / "train.parquet"),
            places=_table(run / "dataset" / "places" / "train.parquet"),
            alignment=_table(run / "dataset" / "alignment" / "train.parquet"),
        )

    def rows(self, sequence_ids: Sequence[int]) -> list[dict[str, Any]]:
        """All columns of some rows of the feature table, in the order of `sequence_ids`."""
        if self.features_path is None:
            return []
        wanted = pa.array(sequence_ids, pa.int64())
        source = ds.dataset(self.features_path)
        names = [name for name in source.schema.names if name in schema.COLUMNS]
        table = source.to_table(columns=names, filter=pc.field("sequence_id").isin(wanted))
        by_id = {row["sequence_id"]: row for row in schema.validate(table, names, str(self.features_path)).to_pylist()}
        return [by_id[sequence_id] for sequence_id in sequence_ids]


def _table(path: Path) -> pa.Table | None:
    """The declared columns of a Parquet file except the heavy ones, checked against the schema; None if there is no file."""
    if not path.exists():
        return None
    try:
        present = pq.read_schema(path).names
        names = [name for name in present if name in schema.COLUMNS and name not in HEAVY]
        table = pq.read_table(path, columns=names)
    except (OSError, pa.ArrowInvalid) as error:
        raise MemtaxError(
            f"{path} cannot be read ({str(error).splitlines()[0]}); run the stage that writes it again"
        ) from error
    return schema.validate(table, names, str(path))
