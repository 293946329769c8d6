"""Places of occurrences: for each window the first few in the order of the corpus, found in the pass that counts.

An occurrence has four numbers: its order in the corpus, the row number of its sequence (-1 if unknown), the sequence's id (its
row number, where the source has no ids) and the offset in the sequence. Places of different threads are merged by order.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from memtax import schema
from memtax.compiled import kernel
from memtax.files import write_parquet
from memtax.hub.screening import public_name

if TYPE_CHECKING:
    from memtax.corpus.contract import Block, Corpus
    from memtax.counting.totals import Counts

Int64 = npt.NDArray[np.int64]

NONE = np.iinfo(np.int64).max
"""Order of a place that is not taken."""
SHARD_BITS = 40
"""An order is a shard's number, then this many bits for the position in the shard."""
MOST = 1000
"""Most places per window that can be asked for."""
FIELDS = 4


class Where(NamedTuple):
    """Position of a block in the corpus, as its scan records it.

    Attributes:
        order: order of the block's first token.
        row: number of its first sequence; -1 if unknown.
        ids: shape (sequences), their ids, or of size 0 if row numbers are the ids.
    """

    order: int
    row: int
    ids: Int64

    @classmethod
    def of(cls, block: "Block", order: int) -> "Where":
        """The position of a block whose first token has this order."""
        row = -1 if block.first_row is None else block.first_row
        return cls(order, row, np.zeros(0, np.int64) if block.ids is None else np.ascontiguousarray(block.ids, np.int64))


NOWHERE = Where(0, -1, np.zeros(0, np.int64))


def empty(windows: int, places: int) -> Int64:
    """No places: shape (windows, places, 4), or of size 0 without places."""
    found = np.zeros((windows if places else 0, places, FIELDS), np.int64)
    clear(found)
    return found


def clear(places: Int64) -> None:
    """Remove all places."""
    places[:, :, 0] = NONE


@numba.njit(nogil=True)
def keep(places: Int64, window: int, first: int, offsets: Int64, order: int, row: int, ids: Int64) -> None:
    """Keep the occurrence at token `first` of a block, if it is among the first of its window.

    Args:
        places: shape (windows, places, 4), each window's in ascending order.
        window: number of the window.
        first: position in the block.
        offsets: shape (sequences + 1), positions of the sequences in the block.
        order: see `Where`.
        row: see `Where`.
        ids: see `Where`.
    """
    mine = places[window]
    at = mine.shape[0] - 1
    if order + first >= mine[at, 0]:
        return
    low, high = 0, offsets.shape[0] - 1
    while high - low > 1:
        middle = (low + high) // 2
        if offsets[middle] <= first:
            low = middle
        else:
            high = middle
    while at > 0 and mine[at - 1, 0] > order + first:
        for field in range(FIELDS):
            mine[at, field] = mine[at - 1, field]
        at -= 1
    number = row + low if row >= 0 else -1
    mine[at, 0], mine[at, 1], mine[at, 3] = order + first, number, first - offsets[low]
    mine[at, 2] = ids[low] if ids.shape[0] else number


@kernel(allocates=False)
def merge(places: Int64, others: Int64) -> None:
    """Keep the first of two sets of places of the same windows; `others` holds the rest afterwards.

    Args:
        places: shape (windows, places, 4), changed.
        others: the same shape, changed.
    """
    windows, count, fields = places.shape
    for window in range(windows):
        mine, theirs = places[window], others[window]
        for at in range(count):
            # The smallest of theirs is always first: what they get in exchange is moved to its place.
            if theirs[0, 0] >= mine[count - 1, 0]:
                break
            if theirs[0, 0] < mine[at, 0]:
                for field in range(fields):
                    mine[at, field], theirs[0, field] = theirs[0, field], mine[at, field]
                to = 0
                while to + 1 < count and theirs[to + 1, 0] < theirs[to, 0]:
                    for field in range(fields):
                        theirs[to, field], theirs[to + 1, field] = theirs[to + 1, field], theirs[to, field]
                    to += 1


def write_places(directory: Path, named: Sequence[tuple[str, Int64]], counts: "Counts", corpus: "Corpus") -> list[str]:
    """Write `places.parquet`, one row per place; for further windows `places_NAME.parquet`.

    Args:
        directory: the output.
        named: suffix of the name and sequence ids of each matrix of windows.
        counts: the counts.
        corpus: the corpus, for the documents of the rows.

    Returns:
        Names of the files.
    """
    rows = np.unique(np.concatenate([each[:, :, 1][each[:, :, 0] != NONE] for each in counts.places]))
    find = getattr(corpus, "documents", None)
    documents = find(rows[rows >= 0]) if find is not None else {}
    names = []
    for (suffix, ids), each in zip(named, counts.places, strict=True):
        names.append(f"places{suffix}.parquet")
        write_parquet(directory / names[-1], table(ids, each, counts.sources, documents))
    return names


def table(sequence_ids: Int64, places: Int64, sources: dict[int, str], documents: dict[int, str | None]) -> pa.Table:
    """One row per place, by sequence in the given order, then by the order of the corpus.

    Args:
        sequence_ids: shape (windows), the sequence that each window was cut from.
        places: shape (windows, places, 4).
        sources: number of a shard to the name of its source.
        documents: row number to the document of that row, where it is known.
    """
    windows, numbers = np.nonzero(places[:, :, 0] != NONE)
    chosen = places[windows, numbers]
    rows, ids = chosen[:, 1], chosen[:, 2]
    shards = (chosen[:, 0] >> SHARD_BITS).tolist()
    columns = {
        "sequence_id": np.asarray(sequence_ids, np.int64)[windows],
        "place": numbers.astype(np.int32),
        "place_source": pa.array([public_name(sources[shard]) for shard in shards], pa.string()),
        "place_sequence": pa.array(ids, mask=(rows < 0) & (ids < 0)),
        "place_offset": chosen[:, 3],
        "place_document": pa.array([documents.get(row) for row in rows.tolist()], pa.string()),
    }
    return schema.validate(pa.table(columns), columns, "the places")
