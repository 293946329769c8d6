"""Several models and checkpoints on the same sequences: what each memorizes, by training time and by size."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from memtax.lm.loading import parameter_count, split_revision
from memtax.predictor.extraction_rates import extraction_rates
from memtax.predictor.kinds import kind_rates
from memtax.statistics import Units

COLUMNS = ("sequence_id", "document", "taxonomy", "model", "checkpoint", "step", "parameters", "is_memorized", "match_length")


@dataclass(frozen=True)
class Member:
    """One model or checkpoint of a series.

    Attributes:
        path: folder or Hub name.
        revision: branch, tag or commit on the Hub.
    """

    path: str
    revision: str | None

    @classmethod
    def parse(cls, text: str, model: str) -> "Member":
        """Parse `NAME`, `NAME@REVISION`, a folder, or `@REVISION` of the run's own model."""
        path, revision = split_revision(text)
        return cls(path or model, revision)

    @property
    def model(self) -> str:
        """Name of the model without its checkpoint; for a Trainer's checkpoint, the name of the parent folder."""
        path = Path(self.path)
        return path.parent.name if path.exists() and self.step is not None and self.revision is None else path.name

    @property
    def checkpoint(self) -> str:
        """Name of the checkpoint."""
        return f"{Path(self.path).name}@{self.revision}" if self.revision else Path(self.path).name

    @property
    def step(self) -> int | None:
        """Optimizer steps, from the name: `checkpoint-500` of the Trainer, `step143000`, `stage1-step140000-tokens294B`."""
        # Steps of later stages are counted from their own start.
        found = re.fullmatch(r"(?:checkpoint-|step|stage1-step)(\d+)(?:-tokens\d+B)?", self.revision or Path(self.path).name)
        return int(found[1]) if found else None


def score_series(
    members: Sequence[Member], dataset: datasets.Dataset, score: Callable[[int, Member], pa.Table]
) -> pa.Table | None:
    """One row per member of the series and sequence; None without members.

    Args:
        members: the models or checkpoints, in order.
        dataset: the sequences with their `document` and `taxonomy`.
        score: returns `sequence_id`, `is_memorized` and `match_length` of the dataset's rows for a member and its number.
    """
    described = dataset.with_format("arrow")[:]
    tables = []
    for number, member in enumerate(members):
        scored = score(number, member)
        rows = scored.num_rows
        parameters = parameter_count(member.path, member.revision)
        columns = {
            "sequence_id": scored.column("sequence_id"),
            "document": described.column("document"),
            "taxonomy": described.column("taxonomy"),
            "model": pa.array([member.model] * rows, pa.string()),
            "checkpoint": pa.array([member.checkpoint] * rows, pa.string()),
            "step": pa.array([member.step] * rows, pa.int64()),
            "parameters": pa.array([parameters] * rows, pa.int64()),
            "is_memorized": scored.column("is_memorized"),
            "match_length": scored.column("match_length"),
        }
        tables.append(pa.table({name: columns[name] for name in COLUMNS}))
    return pa.concat_tables(tables) if tables else None


def growth(series: pa.Table | None, units: Units | None = None) -> list[dict[str, Any]]:
    """Extraction rates of each member of a series, in its order.

    Args:
        series: from `score_series`.
        units: units of one member's sequences; None derives them from the series.
    """
    rows = []
    for facts, mine in each_member(series):
        rows += [{**facts, "category": category, **rate} for category, rate in extraction_rates(mine, units=units).items()]
    return rows


def kinds_over_series(series: pa.Table | None, table: pa.Table, units: Units | None = None) -> list[dict[str, Any]]:
    """Code and natural language by category, memorized or not, for each member of a series.

    Args:
        series: from `score_series`, each member's rows in the order of `table`; None: the run's own model only.
        table: the sequences with `text_kind`; without that column there are no rates.
        units: units of the sequences; None derives them from the table.

    Returns:
        Rows of `memtax.predictor.kinds.kind_rates`, each with `model`, `checkpoint`, `step` and `parameters` of its member.
    """
    if "text_kind" not in table.column_names:
        return []
    kinds = table.column("text_kind").to_pylist()
    own = ({"model": None, "checkpoint": None, "step": None, "parameters": None}, table)
    members = [own] if series is None else each_member(series)
    return [{**facts, **row} for facts, mine in members for row in kind_rates(mine, kinds, units or Units.of_table(table))]


def each_member(series: pa.Table | None) -> Iterator[tuple[dict[str, Any], pa.Table]]:
    """Yield the facts of each member (`model`, `checkpoint`, `step`, `parameters`) and its rows, in the order of the series."""
    if series is None:
        return
    keys = zip(series.column("model").to_pylist(), series.column("checkpoint").to_pylist(), strict=True)
    for model, name in dict.fromkeys(keys):
        mine = series.filter(pc.and_(pc.equal(series.column("model"), model), pc.equal(series.column("checkpoint"), name)))
        yield {"model": model, "checkpoint": name, **{key: mine.column(key)[0].as_py() for key in ("step", "parameters")}}, mine
