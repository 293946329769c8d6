"""Groups of rows that a split must not divide: documents, joined where they hold copies or near-copies of each other.

Near-copies are rows of which one has at least half of the other's 8-grams (of token ids, else of words), estimated from the
16 smallest hashes of each (Broder 1997). Only rows that share one of these are compared, each with its nearest, so that time
grows with rows and not with pairs; memory is 18 numbers per row.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memtax import statistics
from memtax.compiled import kernel

SHINGLE = 8
"""Tokens, or words, of a shingle."""
SKETCH = 16
"""Smallest hashes that are kept of a row's shingles."""
SHARED = 0.5
"""Share of the sketch of the union, within the smaller set, from which two rows are near-copies."""
LARGEST = 0.1
"""Share of all rows beyond which documents are not joined further through a text: it is boilerplate."""
COLUMN = "copy_sketch"
"""Column that stands for tokens and texts in tables of millions of rows."""
NEIGHBORS = 3
"""Following rows that a row is compared with among those that share a hash."""
ROWS = 1 << 19
"""Rows, or pairs, in work at once."""
_EMPTY = np.iinfo(np.uint64).max


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of rows that a split keeps together.

    Attributes:
        codes: (rows,) group of each row, from 0.
        units: the unit of resampling of each row.
        copies: rows that have a copy or near-copy in another unit.
        boilerplate: rows of texts in so many documents that they form groups of their own.
    """

    codes: NDArray[np.int64]
    units: statistics.Units
    copies: int
    boilerplate: int

    @classmethod
    def of_rows(cls, rows: int) -> "Groups":
        """Each row by itself."""
        return cls(np.arange(rows), statistics.Units.of_rows(rows), 0, 0)

    def __getitem__(self, rows: Any) -> "Groups":
        return Groups(self.codes[rows], self.units[rows], self.copies, self.boilerplate)

    @property
    def described(self) -> dict[str, Any]:
        """JSON-ready: `unit`, `groups`, `largest_group` (rows), `copies` and `boilerplate`."""
        sizes = np.unique(self.codes, return_counts=True)[1]
        facts: dict[str, Any] = {"unit": self.units.name, "groups": len(sizes), "largest_group": int(sizes.max(initial=0))}
        return {**facts, "copies": self.copies, "boilerplate": self.boilerplate}


def split_groups(table: pa.Table) -> Groups:
    """Groups of a table's rows, from its columns `document`, `text` and `tokens`, as far as it has them.

    Documents are joined where they hold copies, the texts of fewest documents first. A text that would join more than a tenth
    of all rows (a license, a header) stays apart: its copies are one group, whatever their documents, so that copies never
    cross a split; its rows are then the only ones whose document may lie on both sides.
    """
    units = units_of(table)
    sketches = sketch_rows(table)
    if sketches is None or not table.num_rows:
        return Groups(units.codes, units, 0, 0)
    copies = copy_classes(sketches)
    codes, left = _join(units.codes, copies, max(2, int(LARGEST * table.num_rows)))
    pairs = np.unique(np.stack([copies, units.codes], axis=1), axis=0)
    several = np.bincount(pairs[:, 0]) > 1
    return Groups(codes, units, int(several[copies].sum()), int(left.sum()))


def copy_classes(sketches: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Class (rows,) of rows that are copies or near-copies of each other, directly or through others, by `sketch_rows`."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    exact = sketches[:, 0]
    # One row of each set of equals stands for them; rows without text are copies of nothing.
    _, first, inverse = np.unique(exact, return_index=True, return_inverse=True)
    inverse = inverse.ravel()
    links = _near(sketches[first])
    count = len(first)
    graph = coo_array((np.ones(len(links), bool), (links[:, 0], links[:, 1])), shape=(count, count))
    classes = connected_components(graph, directed=False)[1][inverse].astype(np.int64)
    empty = exact == _EMPTY
    classes[empty] = classes.max(initial=0) + 1 + np.arange(int(empty.sum()))
    return np.unique(classes, return_inverse=True)[1].ravel().astype(np.int64)


def sketch_rows(table: pa.Table) -> NDArray[np.uint64] | None:
    """Input of `copy_classes` for each row (rows, SKETCH + 2); None for a table without tokens and text.

    Columns are a hash of the whole row, its number of different shingles, and the smallest hashes of these, ascending. White
    space in texts does not matter. A null or empty row has the largest number throughout.
    """
    if COLUMN in table.column_names:
        column = table.column(COLUMN).combine_chunks()
        return np.asarray(column.flatten()).reshape(-1, SKETCH + 2)
    name = next((name for name in ("tokens", "text") if name in table.column_names), None)
    if name is None:
        return None
    parts = [_sketch_batch(batch.column(0).to_pylist()) for batch in table.select([name]).to_batches(max_chunksize=65_536)]
    return np.concatenate([np.empty((0, SKETCH + 2), np.uint64), *parts])


def held_by(extra: pa.Table, table: pa.Table, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which rows (extra rows,) are copies or near-copies of the given rows of a table, or of one document with them."""
    found = np.zeros(extra.num_rows, bool)
    if "document" in extra.column_names and "document" in table.column_names:
        names = {name for name in table.column("document").take(rows).to_pylist() if name is not None}
        found |= np.array([name in names for name in extra.column("document").to_pylist()], bool)
    ours, theirs = sketch_rows(extra), sketch_rows(table.take(rows))
    if ours is not None and theirs is not None:
        classes = copy_classes(np.concatenate([ours, theirs]))
        found |= np.isin(classes[: len(ours)], classes[len(ours) :])
    return found


def with_sketch(table: pa.Table) -> pa.Table:
    """The table with the column `COLUMN` in place of its tokens and texts, if it has them."""
    sketches = sketch_rows(table)
    table = table.drop_columns([name for name in ("tokens", "text") if name in table.column_names])
    if sketches is None or COLUMN in table.column_names:
        return table
    return table.append_column(COLUMN, pa.FixedSizeListArray.from_arrays(pa.array(sketches.ravel()), SKETCH + 2))


def units_of(table: pa.Table) -> statistics.Units:
    """Units of resampling of a table whose tokens and texts may be sketches."""
    if COLUMN not in table.column_names:
        return statistics.Units.of_table(table)
    sketches = sketch_rows(table)
    documents = table.column("document") if "document" in table.column_names else None
    texts = None
    if sketches is not None:
        # Arrow reads Python numbers as int64, which the upper half of the hashes does not fit.
        texts = pa.array(sketches[:, 0], mask=sketches[:, 0] == _EMPTY)
    codes = statistics.unit_codes(documents, texts, rows=table.num_rows)
    if documents is not None and documents.null_count < table.num_rows:
        return statistics.Units(codes, "document")
    return statistics.Units(codes, "text" if statistics.count_units(codes) < table.num_rows else "sequence")


def _sketch_batch(rows: Sequence[Any]) -> NDArray[np.uint64]:
    items = [
        _hash_words(row) if isinstance(row, str) else np.asarray([] if row is None else row, np.int64).view(np.uint64)
        for row in rows
    ]
    ends = np.cumsum([len(row) for row in items])
    flat = np.concatenate([np.empty(0, np.uint64), *items])
    return _sketch(flat, ends.astype(np.int64))


def _hash_words(text: str) -> NDArray[np.uint64]:
    digests = (hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest() for word in text.split())
    return np.frombuffer(b"".join(digests), np.uint64)


@kernel()
def _mix(value: Any) -> Any:
    """The finalizer of splitmix64."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@kernel()
def _sketch(flat: NDArray[np.uint64], ends: NDArray[np.int64]) -> NDArray[np.uint64]:
    """See `sketch_rows`; row i is `flat` from the end before to `ends[i]`."""
    result = np.full((len(ends), SKETCH + 2), np.uint64(_EMPTY))
    factor = np.uint64(0x9E3779B97F4A7C15)
    start = 0
    for row in range(len(ends)):
        length = ends[row] - start
        if length > 0:
            whole = np.uint64(length)
            for place in range(start, ends[row]):
                whole = _mix(whole * factor + flat[place] + np.uint64(1))
            size = min(SHINGLE, length)
            hashes = np.empty(length - size + 1, np.uint64)
            for first in range(len(hashes)):
                value = np.uint64(0)
                for place in range(start + first, start + first + size):
                    value = _mix(value * factor + flat[place] + np.uint64(1))
                hashes[first] = value
            hashes.sort()
            count = 0
            for place in range(len(hashes)):
                if place == 0 or hashes[place] != hashes[place - 1]:
                    if count < SKETCH:
                        result[row, 2 + count] = hashes[place]
                    count += 1
            result[row, 0] = min(whole, np.uint64(_EMPTY - 1))
            result[row, 1] = np.uint64(count)
        start = ends[row]
    return result


def _near(sketches: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Pairs (links, 2) of different rows that are near-copies, of those that stand beside each other in a list by hash."""
    hashes = sketches[:, 2:]
    links = [np.empty((0, 2), np.int64)]
    # Ranges of hashes bound the memory.
    ranges = max(1, len(sketches) // ROWS)
    step = int(_EMPTY) // ranges + 1
    for part in range(ranges):
        low, high = np.uint64(part * step), np.uint64(min((part + 1) * step, int(_EMPTY)))
        rows, places = np.nonzero((hashes >= low) & (hashes < high))
        values = hashes[rows, places]
        # Rows that share a hash stand in the order of their smallest hashes, so that alike ones are neighbors.
        order = np.lexsort((hashes[rows, 1], hashes[rows, 0], values))
        rows, values = rows[order], values[order]
        for apart in range(1, NEIGHBORS + 1):
            left, right = rows[:-apart], rows[apart:]
            same = values[:-apart] == values[apart:]
            pairs = np.unique(np.stack([left[same], right[same]], axis=1), axis=0)
            for first in range(0, len(pairs), ROWS):
                some = pairs[first : first + ROWS]
                links.append(some[_containment(sketches[some[:, 0]], sketches[some[:, 1]]) >= SHARED])
    return np.concatenate(links)


def _containment(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Share (pairs,) of the smaller row's shingles that the other has too, estimated from the smallest hashes of both."""
    merged = np.sort(np.concatenate([first[:, 2:], second[:, 2:]], axis=1), axis=1)
    known = merged != _EMPTY
    new = known.copy()
    new[:, 1:] &= merged[:, 1:] != merged[:, :-1]
    rank = np.cumsum(new, axis=1)
    among = known & (rank <= SKETCH)
    union = np.where(among, rank, 0).max(axis=1)
    jaccard = (among & ~new).sum(axis=1) / np.maximum(union, 1)
    sizes = np.stack([first[:, 1], second[:, 1]]).astype(np.float64)
    result: NDArray[np.float64] = jaccard / (1 + jaccard) * sizes.sum(axis=0) / sizes.min(axis=0)
    return result


def _join(units: NDArray[np.int64], copies: NDArray[np.int64], most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Groups (rows,) of units joined through classes of copies, and the rows (rows,) that left their unit.

    Args:
        units: (rows,) codes from 0.
        copies: (rows,) codes from 0.
        most: rows that joined units may have together.
    """
    pairs = np.unique(np.stack([copies, units], axis=1), axis=0)
    classes, starts, spans = np.unique(pairs[:, 0], return_index=True, return_counts=True)
    roots = np.arange(int(units.max(initial=-1)) + 1)
    sizes = np.bincount(units, minlength=len(roots))
    apart = np.zeros(int(copies.max(initial=-1)) + 1, bool)
    shared = np.flatnonzero(spans > 1)
    for place in shared[np.argsort(spans[shared], kind="stable")].tolist():
        members = pairs[starts[place] : starts[place] + spans[place], 1].tolist()
        joined = sorted({_find(roots, unit) for unit in members})
        if len(joined) > 1 and sum(int(sizes[root]) for root in joined) > most:
            apart[classes[place]] = True
            continue
        sizes[joined[0]] = sum(int(sizes[root]) for root in joined)
        roots[joined] = joined[0]
    while (roots != roots[roots]).any():
        roots = roots[roots]
    left = apart[copies]
    codes = np.where(left, len(roots) + copies, roots[units])
    return np.unique(codes, return_inverse=True)[1].ravel().astype(np.int64), left


def _find(roots: NDArray[np.int64], unit: int) -> int:
    while roots[unit] != unit:
        roots[unit] = roots[roots[unit]]
        unit = int(roots[unit])
    return unit
