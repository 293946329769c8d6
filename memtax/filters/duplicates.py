"""Number of occurrences of a sequence's continuation in the corpus, looked up in a table of counts."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from memtax.counting.count_tables import Int64, location, read_duplicates, stamp
from memtax.filters.base import Batch, Filter


@dataclass(frozen=True)
class DuplicateFilter(Filter):
    """Adds `sequence_duplicates`, the occurrences of the sequence's continuation in the corpus (Prashanth et al. 2024).

    A sequence that is not in the table gets None, which means "not counted"; a continuation that does not occur gets 0.

    Attributes:
        counts: a folder from `memtax count`, a Parquet file, or a dataset as `org/name:config:split`, with the columns
            `sequence_id` and `sequence_duplicates`, or `counts` as in the published `generation-num-duplicates`.

    Example:
        >>> import pathlib, tempfile
        >>> import pyarrow as pa
        >>> import pyarrow.parquet as pq
        >>> from memtax.filters import DuplicateFilter
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "counts.parquet"
        >>> pq.write_table(pa.table({"sequence_id": [0, 1], "sequence_duplicates": [3, 0]}), path)
        >>> DuplicateFilter(str(path))({"sequence_id": [0, 1, 2]})
        {'sequence_duplicates': [3, 0, None]}
    """

    name: ClassVar[str] = "duplicates"
    requires: ClassVar[tuple[str, ...]] = ("sequence_id",)
    columns: ClassVar[tuple[str, ...]] = ("sequence_duplicates",)

    counts: str

    def inputs(self) -> Iterable[str]:
        """The table's path or name."""
        return (location(self.counts),)

    def compute(self, batch: Batch) -> Batch:
        """Look up the count of each id.

        Raises:
            MemtaxError: the table cannot be read.
        """
        ids, counts = _table(self.counts, stamp(self.counts))
        asked = np.asarray(batch["sequence_id"], np.int64)
        if len(ids) == 0:
            return {"sequence_duplicates": [None] * len(asked)}
        at = np.minimum(np.searchsorted(ids, asked), len(ids) - 1)
        found = counts[at].astype(object)
        found[ids[at] != asked] = None
        return {"sequence_duplicates": found.tolist()}


@functools.lru_cache(maxsize=4)
def _table(name: str, version: Any) -> tuple[Int64, Int64]:
    """The table, cached per process; `version` changes with the files."""
    return read_duplicates(name)
