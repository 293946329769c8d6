"""Tables of counts, from memtax or published: written by a counting pass, read by the filters that look up counts."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from memtax import schema
from memtax.checksums import verify
from memtax.corpus.sources import Source, open_dataset, reading, split_name
from memtax.counting.large_ids import TokenTable
from memtax.errors import MemtaxError
from memtax.files import visible_files, write_parquet

if TYPE_CHECKING:
    from memtax.counting.totals import Counts

DUPLICATES_FILE = "num_duplicates.parquet"
FREQUENCIES_FILE = "token_frequencies.parquet"

INDEX_PREFIX = "infini-gram:"
MINI_PREFIX = "infini-gram-mini:"
"""Starts of the names of indexes that are asked for counts, see `memtax.counting.infini_gram`."""
SUMMED_SPLITS = ("memorized", "non_memorized")
"""The two splits of the published frequencies; their sum is the corpus frequency."""

Int64 = npt.NDArray[np.int64]


def is_index(name: object) -> bool:
    """Whether a name is that of an infini-gram index instead of a table."""
    return isinstance(name, str) and name.startswith((INDEX_PREFIX, MINI_PREFIX))


def write_counts(
    directory: Path | str,
    sequence_ids: Sequence[int] | npt.NDArray[np.int64] | None,
    counts: "Counts",
    further: "Sequence[tuple[str, npt.NDArray[np.int64]]]" = (),
) -> list[str]:
    """Write `num_duplicates.parquet` and `token_frequencies.parquet` into a directory, each atomically.

    Near-duplicates add a column to the first table. If memorized sequences were counted separately, also write
    `memorized_frequencies.parquet` and `non_memorized_frequencies.parquet`, whose sum is `token_frequencies.parquet`.

    Args:
        directory: created if missing.
        sequence_ids: shape (windows), the sequence that each window was cut from; None writes frequencies only.
        counts: the counts. Every id of the vocabulary below 2^24 gets a row, even with frequency 0; larger ids get a row
            only if they occur.
        further: for each further matrix of windows, its name (for `num_duplicates_<name>.parquet`) and its sequence ids.

    Returns:
        Names of the files.

    Raises:
        MemtaxError: the numbers of ids and windows differ, or an id occurs twice.
    """
    named = [] if sequence_ids is None else [("", sequence_ids), *((f"_{name}", ids) for name, ids in further)]
    windows = (counts.window_counts, *counts.further)
    tables: dict[str, dict[str, npt.NDArray[np.int64]]] = {}
    for number, (suffix, each) in enumerate(named):
        ids = np.asarray(each, np.int64)
        if len(ids) != len(windows[number]):
            raise MemtaxError(f"{len(ids)} sequence ids for {len(windows[number])} counted windows")
        values, times = np.unique(ids, return_counts=True)
        if len(values) != len(ids):
            raise MemtaxError(f"sequence_id {int(values[times > 1][0])} occurs more than once; ids must be unique")
        table = {"sequence_id": ids, "sequence_duplicates": windows[number]}
        if counts.near:
            table["sequence_near_duplicates"] = counts.near[number]
        tables[DUPLICATES_FILE.replace(".", f"{suffix}.", 1)] = table
    ids = np.concatenate([np.arange(len(counts.token_frequencies)), counts.large_ids])
    every = np.concatenate([counts.token_frequencies, counts.large_frequencies])
    tables[FREQUENCIES_FILE] = {"token_id": ids, "token_frequency": every}
    if counts.memorized_frequencies is not None:
        large = np.zeros(0, np.int64) if counts.large_memorized_frequencies is None else counts.large_memorized_frequencies
        memorized = np.concatenate([counts.memorized_frequencies, large])
        for split, part in zip(SUMMED_SPLITS, (memorized, every - memorized), strict=True):
            tables[f"{split}_frequencies.parquet"] = {"token_id": ids, "token_frequency": part}
    for name, columns in tables.items():
        write_parquet(Path(directory) / name, schema.validate(pa.table(columns), columns, name))
    return list(tables)


def read_duplicates(name: str) -> tuple[Int64, Int64]:
    """Read a table of duplicate counts.

    Args:
        name: folder from `write_counts`, Parquet file, or `org/name:config:split`, with memtax or published column names.

    Returns:
        Sequence ids in ascending order, and the count of each.

    Raises:
        MemtaxError: the table cannot be read, lacks a column, or gives one id two different counts.
    """
    (table,) = _read(name, DUPLICATES_FILE, ("sequence_id", "sequence_duplicates"), ())
    # A null count means the same as a missing row: not counted.
    ids, counts = _columns(table.filter(table.column("sequence_duplicates").is_valid()), name)
    if len(ids) > 1 and not (ids[1:] > ids[:-1]).all():
        order = np.argsort(ids, kind="stable")
        ids, counts = ids[order], counts[order]
        clash = np.flatnonzero((ids[1:] == ids[:-1]) & (counts[1:] != counts[:-1]))
        if len(clash):
            raise MemtaxError(f"{name} gives sequence_id {ids[clash[0]]} two different counts; keep one row per id")
    return ids, counts


def read_frequencies(name: str) -> TokenTable:
    """Read a table of token frequencies.

    Args:
        name: as for `read_duplicates`. Without a split, the published pair `memorized` and `non_memorized` is summed.

    Raises:
        MemtaxError: the table cannot be read, lacks a column, or has a token twice in one split.
    """
    parts = [_columns(table, name) for table in _read(name, FREQUENCIES_FILE, ("token_id", "token_frequency"), SUMMED_SPLITS)]
    for ids, _ in parts:
        if len(ids) and int(ids.max()) >= 2**31:
            raise MemtaxError(f"{name} has token id {int(ids.max())}; ids must be below 2^31")
        if len(ids) and int(ids.min()) < 0:
            raise MemtaxError(f"{name} has the negative token id {int(ids.min())}")
        values, times = np.unique(ids, return_counts=True)
        if (times > 1).any():
            raise MemtaxError(f"{name} has token_id {int(values[times > 1][0])} more than once; keep one row per token")
    every, at = np.unique(np.concatenate([np.zeros(0, np.int64), *(ids for ids, _ in parts)]), return_inverse=True)
    frequencies = np.zeros(len(every), np.int64)
    np.add.at(frequencies, at, np.concatenate([np.zeros(0, np.int64), *(counts for _, counts in parts)]))
    return TokenTable(every, frequencies)


def stamp(name: str) -> tuple[tuple[str, int, int], ...]:
    """Name, time and size of every file below a local path; a change makes a cached table stale. Empty for Hub names."""
    path = Path(location(name))
    files = visible_files(path) if path.is_dir() else [path] if path.exists() else []
    return tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)


def location(name: str) -> str:
    """The path or Hub name in `path:config:split`."""
    return split_name(name)[0]


def _read(name: str, file: str, columns: tuple[str, str], summed: tuple[str, ...]) -> list[pa.Table]:
    """The validated table, or the tables to sum, with memtax's column names."""
    path, config, split = split_name(name)
    verify(path)
    # The file is in the output of `memtax count` or of `write_counts`.
    for place in (Path(path, "dataset", Path(file).stem, "train.parquet"), Path(path, file)):
        path = str(place) if place.is_file() else path
    if Path(path).is_file() and path.endswith(".parquet"):
        with reading(path):
            tables = [pq.read_table(path)]
    else:
        splits = [split] if split else _splits(path, config, summed)
        tables = [_arrow(open_dataset(Source(path, name=config, split=each))) for each in splits]
    renamed = [table.rename_columns([schema.PUBLISHED.get(c, c) for c in table.column_names]) for table in tables]
    return [schema.validate(table, columns, name) for table in renamed]


def _splits(path: str, config: str | None, summed: tuple[str, ...]) -> list[str]:
    """The splits to read if none was given: `train`, the only split, or those to be summed."""
    from datasets import get_dataset_split_names

    # Folders written by `save_to_disk` and similar have no list of splits: try `train`.
    if (Path(path) / "state.json").exists() or Path(path).is_file():
        return ["train"]
    try:
        with reading(path):
            found = list(get_dataset_split_names(path, config))
    except MemtaxError:
        return ["train"]  # opening it raises the specific error
    if summed and set(found) == set(summed):
        return list(summed)
    if "train" in found:
        return ["train"]
    if len(found) == 1:
        return found
    raise MemtaxError(f"{path} has the splits {', '.join(found)}; choose one: {path}:{config or ''}:{found[0]}")


def _arrow(dataset: Any) -> pa.Table:
    return dataset.with_format("arrow")[:]


def _columns(table: pa.Table, name: str) -> tuple[Int64, Int64]:
    ids, counts = (column.to_numpy() for column in table.columns)
    if len(counts) and int(counts.min()) < 0:
        raise MemtaxError(f"{name} has the negative count {int(counts.min())}; a count is at least 0")
    return ids, counts
