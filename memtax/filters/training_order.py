"""When a sequence was seen during training: derived from the order of the data, or looked up in a table."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from memtax import schema
from memtax.corpus.sources import Source, open_dataset
from memtax.counting.count_tables import Int64, location, stamp
from memtax.errors import MemtaxError
from memtax.filters.base import Batch, Filter


@dataclass(frozen=True)
class TrainingOrderFilter(Filter):
    """Adds `training_position` and `last_seen_step`, the optimizer steps taken once the sequence was last seen.

    Without a table, `sequence_id` is the position in the order of training, as in Pythia's published datasets, whose steps read
    1,024 sequences each (Biderman et al. 2023): the checkpoint of step n has seen the sequences below 1,024 n.

    Attributes:
        order: path or name of a dataset with `sequence_id` and `last_seen_step`, and `training_position` if it is known; a
            sequence that is not in it has nulls. None derives both from `sequence_id`.
        step_sequences: sequences per optimizer step, for what is derived.

    Example:
        >>> from memtax.filters import TrainingOrderFilter
        >>> TrainingOrderFilter()({"sequence_id": [0, 1023, 1024]})
        {'training_position': [0, 1023, 1024], 'last_seen_step': [1, 1, 2]}
    """

    name: ClassVar[str] = "training_order"
    requires: ClassVar[tuple[str, ...]] = ("sequence_id",)
    columns: ClassVar[tuple[str, ...]] = ("training_position", "last_seen_step")

    order: str | None = None
    step_sequences: int = 1024

    def __post_init__(self) -> None:
        if self.step_sequences < 1:
            raise MemtaxError(f"step_sequences={self.step_sequences} must be at least 1")

    def inputs(self) -> Iterable[str]:
        """The table's path or name, if there is one."""
        return () if self.order is None else (location(self.order),)

    def compute(self, batch: Batch) -> Batch:
        """Position and step of each id.

        Raises:
            MemtaxError: the table cannot be read, or an id is negative.
        """
        asked = np.asarray(batch["sequence_id"], np.int64)
        if self.order is not None:
            known, values = _table(self.order, stamp(self.order))
            at = np.minimum(np.searchsorted(known, asked), max(len(known) - 1, 0))
            missing = known[at] != asked if len(known) else np.ones(len(asked), bool)
            return {
                name: [None if lacks else column[place] for lacks, place in zip(missing, at, strict=True)]
                for name, column in zip(self.columns, values, strict=True)
            }
        if len(asked) and int(asked.min()) < 0:
            raise MemtaxError(f"sequence_id {int(asked.min())} is no position in a training; give a table of the order")
        return {"training_position": asked.tolist(), "last_seen_step": (asked // self.step_sequences + 1).tolist()}


@functools.lru_cache(maxsize=4)
def _table(name: str, version: Any) -> tuple[Int64, tuple[list[int | None], list[int | None]]]:
    """Ascending ids, and their positions and steps; `version` changes with the files."""
    table = open_dataset(Source.parse(name)).with_format("arrow")[:]
    given = [each for each in ("sequence_id", "last_seen_step", "training_position") if each in table.column_names]
    schema.require(table.column_names, ("sequence_id", "last_seen_step"), name)
    table = schema.validate(table.select(given), given, name)
    ids = table.column("sequence_id").to_numpy()
    order = np.argsort(ids, kind="stable")
    if (ids[order][1:] == ids[order][:-1]).any():
        again = int(ids[order][1:][ids[order][1:] == ids[order][:-1]][0])
        raise MemtaxError(f"{name} has sequence_id {again} more than once; keep the row of the last step")
    table = table.take(order)
    steps = table.column("last_seen_step").to_pylist()
    positions = table.column("training_position").to_pylist() if len(given) == 3 else [None] * len(steps)
    return ids[order], (positions, steps)
