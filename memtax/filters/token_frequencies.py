"""Corpus frequencies of a sequence's tokens, looked up in a table of frequencies."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from memtax.counting.count_tables import location, read_frequencies, stamp
from memtax.counting.large_ids import Int64, TokenTable
from memtax.filters.base import Batch, Filter


@dataclass(frozen=True)
class TokenFrequencyFilter(Filter):
    """Adds the maximum, mean, minimum, median and quartiles of the corpus frequencies of a sequence's tokens.

    Percentiles are interpolated linearly, as by `numpy.percentile`; the published ones are observed values. All values are
    None if the sequence has no tokens, or a token that is not in the table.

    Attributes:
        frequencies: a folder from `memtax count`, a Parquet file, or a dataset as `org/name:config:split`, with the columns
            `token_id` and `token_frequency`, or `TokenID` and `Frequency` as in the published `num-frequencies`, whose
            splits `memorized` and `non_memorized` are summed if no split is given.

    Example:
        >>> import pathlib, tempfile
        >>> import pyarrow as pa
        >>> import pyarrow.parquet as pq
        >>> from memtax.filters import TokenFrequencyFilter
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "frequencies.parquet"
        >>> pq.write_table(pa.table({"token_id": [0, 1, 2], "token_frequency": [10, 20, 60]}), path)
        >>> columns = TokenFrequencyFilter(str(path))({"tokens": [[0, 1, 2]]})
        >>> columns["avg_frequency"], columns["p25_frequency"]
        ([30.0], [15.0])
    """

    name: ClassVar[str] = "token_frequencies"
    requires: ClassVar[tuple[str, ...]] = ("tokens",)
    columns: ClassVar[tuple[str, ...]] = (
        "max_frequency",
        "avg_frequency",
        "min_frequency",
        "median_frequency",
        "p25_frequency",
        "p75_frequency",
    )

    frequencies: str

    def inputs(self) -> Iterable[str]:
        """The table's path or name."""
        return (location(self.frequencies),)

    def compute(self, batch: Batch) -> Batch:
        """Look up the tokens and summarize each row.

        Raises:
            MemtaxError: the table cannot be read.
        """
        table = _table(self.frequencies, stamp(self.frequencies))
        rows = batch["tokens"]
        lengths = np.array([0 if row is None else len(row) for row in rows], np.int64)
        tokens = np.fromiter(chain.from_iterable(row for row in rows if row is not None), np.int64, count=int(lengths.sum()))
        values, known = table.look_up(tokens)
        starts = np.cumsum(lengths) - lengths
        usable = lengths > 0
        usable[np.repeat(np.arange(len(rows)), lengths)[~known]] = False

        added = {name: np.full(len(rows), None, object) for name in self.columns}
        # Rows of equal length form a matrix; a batch has few different lengths.
        for length in np.unique(lengths[usable]):
            group = np.flatnonzero(usable & (lengths == length))
            for name, column in zip(self.columns, _statistics(values[starts[group][:, None] + np.arange(length)]), strict=True):
                added[name][group] = column.tolist()
        return {name: column.tolist() for name, column in added.items()}


def _statistics(matrix: Int64) -> tuple[npt.NDArray[Any], ...]:
    """Maximum, mean, minimum, median, 25th and 75th percentile of each row of (rows, tokens)."""
    # The sum stays in integers, so the mean does not depend on the order of addition.
    mean = matrix.sum(axis=1) / matrix.shape[1]
    p25, median, p75 = np.percentile(matrix, [25, 50, 75], axis=1)
    return matrix.max(axis=1), mean, matrix.min(axis=1), median, p25, p75


@functools.lru_cache(maxsize=4)
def _table(name: str, version: Any) -> TokenTable:
    """The table, cached per process; `version` changes with the files."""
    return read_frequencies(name)
