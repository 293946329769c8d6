"""Places of occurrences: for each window the first few in the order of the corpus, found in the pass that counts.

A place has four numbers: its order in the corpus, the row number of its sequence (-1 if unknown), the sequence's id (its
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
"""Numbers of a place."""


class Places(NamedTuple):
    """Places of windows, each window's in ascending order.

    Attributes:
        order: shape (windows, places); `NONE` if there is no such place. Only then are its other numbers not set: memory for
            them is first touched when a place is taken.
        rest: shape (windows, places, 3): row number, id and offset.
    """

    order: Int64
    rest: Int64

    def of_window(self, window: int) -> list[tuple[int, ...]]:
        """Order, row number, id and offset of each place of a window."""
        orders = self.order[window].tolist()
        return [(order, *self.rest[window, at].tolist()) for at, order in enumerate(orders) if order != NONE]

    def select(self, windows: Int64) -> "Places":
        """The places of some windows, in another order or repeated; -1 for a window without any."""
        order = np.where(windows[:, None] < 0, NONE, self.order[windows])
        rest = np.empty((*order.shape, FIELDS - 1), np.int64)
        which, at = np.nonzero(order != NONE)
        rest[which, at] = self.rest[windows[which], at]
        return Places(order, rest)


class Where(NamedTuple):
    """Position of a block in the corpus, and the places found so far.

    Attributes:
        order: order of the block's first token.
        row: number of its first sequence; -1 if unknown.
        ids: shape (sequences), their ids, or of size 0 if row numbers are the ids.
        places: the places, of size 0 if they are not asked for.
    """

    order: int
    row: int
    ids: Int64
    places: Places

    @classmethod
    def of(cls, block: "Block", order: int, places: Places) -> "Where":
        """The position of a block whose first token has this order."""
        row = -1 if block.first_row is None else block.first_row
        ids = np.zeros(0, np.int64) if block.ids is None else np.ascontiguousarray(block.ids, np.int64)
        return cls(order, row, ids, places)


def empty(windows: int, places: int) -> Places:
    """No places: shape (windows, places), or of size 0 without places."""
    shape = (windows if places else 0, places)
    return Places(np.full(shape, NONE), np.empty((*shape, FIELDS - 1), np.int64))


NOWHERE = Where(0, -1, np.zeros(0, np.int64), empty(0, 0))


@numba.njit(nogil=True)
def keep(where: Where, window: int, first: int, offsets: Int64) -> None:
    """Keep the occurrence at token `first` of a block, if it is among the first of its window.

    Args:
        where: position of the block; its places are changed.
        window: number of the window.
        first: position in the block.
        offsets: shape (sequences + 1), positions of the sequences in the block.
    """
    order, rest = where.places.order[window], where.places.rest[window]
    if where.order + first >= order[order.shape[0] - 1]:
        return
    low, high = 0, offsets.shape[0] - 1
    while high - low > 1:
        middle = (low + high) // 2
        if offsets[middle] <= first:
            low = middle
        else:
            high = middle
    at = _room_for(order, rest, where.order + first)
    number = where.row + low if where.row >= 0 else -1
    rest[at, 0], rest[at, 2] = number, first - offsets[low]
    rest[at, 1] = where.ids[low] if where.ids.shape[0] else number


@numba.njit(nogil=True)
def _room_for(order: Int64, rest: Int64, value: int) -> int:
    """Insert an order, which is below the last one, and return its index, at which the rest of the place is still missing."""
    at = 0
    while at < order.shape[0] - 1 and order[at] != NONE:
        at += 1
    while at > 0 and order[at - 1] > value:
        order[at] = order[at - 1]
        for field in range(rest.shape[1]):
            rest[at, field] = rest[at - 1, field]
        at -= 1
    order[at] = value
    return at


@kernel()
def merge(places: Places, others: Places) -> None:
    """Keep the first of two sets of places of the same windows.

    Args:
        places: changed.
        others: the same shape.
    """
    windows, count = places.order.shape
    for window in range(windows):
        order, rest = places.order[window], places.rest[window]
        for number in range(count):
            value = others.order[window, number]
            if value >= order[count - 1]:
                break
            at = _room_for(order, rest, value)
            for field in range(rest.shape[1]):
                rest[at, field] = others.rest[window, number, field]


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
    rows = np.unique(np.concatenate([each.rest[each.order != NONE][:, 0] for each in counts.places]))
    find = getattr(corpus, "documents", None)
    documents = find(rows[rows >= 0]) if find is not None else {}
    names = []
    for (suffix, ids), each in zip(named, counts.places, strict=True):
        names.append(f"places{suffix}.parquet")
        write_parquet(directory / names[-1], table(ids, each, counts.sources, documents))
    return names


def table(sequence_ids: Int64, places: Places, sources: dict[int, str], documents: dict[int, str | None]) -> pa.Table:
    """One row per place, by sequence in the given order, then by the order of the corpus.

    Args:
        sequence_ids: shape (windows), the sequence that each window was cut from.
        places: their places.
        sources: number of a shard to the name of its source.
        documents: row number to the document of that row, where it is known.
    """
    windows, numbers = np.nonzero(places.order != NONE)
    rows, ids, offsets = places.rest[windows, numbers].T
    shards = (places.order[windows, numbers] >> SHARD_BITS).tolist()
    columns = {
        "sequence_id": np.asarray(sequence_ids, np.int64)[windows],
        "place": numbers.astype(np.int32),
        "place_source": pa.array([public_name(sources[shard]) for shard in shards], pa.string()),
        "place_sequence": pa.array(ids, mask=(rows < 0) & (ids < 0)),
        "place_offset": offsets,
        "place_document": pa.array([documents.get(row) for row in rows.tolist()], pa.string()),
    }
    return schema.validate(pa.table(columns), columns, "the places")
