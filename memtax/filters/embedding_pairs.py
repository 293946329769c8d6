"""Pairs of embeddings above a cosine threshold: exact, at the speed of the matrix product.

The cosine is the dot product of the float32 unit vectors, summed in float64. A product of whole blocks in float32 or bfloat16
finds candidate pairs: its error is bounded, so pairs farther from a threshold than the bound are decided, and the few others
are recomputed in float64. The counts equal those of a float64 matrix product, whatever the dtype, the block sizes and the
machine.

Each thread searches the block that it has just multiplied while it is in the cache. Comparing a set with itself takes half the
work, since blocks below the diagonal mirror those above.
"""

import functools
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from memtax.compiled import kernel
from memtax.errors import MemtaxError
from memtax.progress import memory

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

THRESHOLDS = (0.8, 0.9)
"""Cosine thresholds of Prashanth et al. 2024."""

ROWS, COLUMNS = 1024, 2048
"""Vectors per block: a thread's memory is its products (8 MB in float32) and both operands."""
STRIDE = 256
"""Products searched at once: a group without a large enough product is skipped with vector instructions."""
KEPT = 4 << 30
"""Maximum bytes of a sample to keep in the dtype of the product; a larger one is converted block by block."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of a block at or above the lowest threshold.

    Attributes:
        rows: query index, (pairs,).
        columns: sample index, (pairs,).
        level: number of thresholds that the pair reaches, at least 1, (pairs,).
    """

    rows: Int64
    columns: Int64
    level: NDArray[np.int8]


def unit_vectors(vectors: Any, what: str) -> Float32:
    """Check embeddings and normalize them to unit length.

    Args:
        vectors: (rows, width), anything numpy accepts.
        what: name of the embeddings in messages.

    Returns:
        (rows, width) float32; vectors with unit length within 1e-6 stay unchanged and are not copied.

    Raises:
        MemtaxError: the embeddings are not a matrix, or a vector is zero or not finite.
    """
    found = np.asarray(vectors)
    if found.ndim != 2:
        raise MemtaxError(f"{what} must be a matrix with one embedding per row, but the shape is {found.shape}")
    bad = []
    changed: Float32 | None = None
    for start in range(0, len(found), 65_536):
        block = found[start : start + 65_536]
        lengths = np.sqrt(np.einsum("rd,rd->r", block, block, dtype=np.float64))
        bad += [start + int(row) for row in np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))[:1]]
        if bad:
            raise MemtaxError(f"row {bad[0]} of {what} is zero or not finite and has no direction; drop that row")
        if found.dtype != np.float32 or (np.abs(lengths - 1) > 1e-6).any():
            if changed is None:
                changed = found.astype(np.float32)
            changed[start : start + 65_536] = block / lengths[:, None]
    return found if changed is None else changed


def count_matches(queries: Any, sample: Any = None, **options: Any) -> Int64:
    """Number of sample vectors whose cosine with each query reaches each threshold.

    Args:
        queries: (rows, width).
        sample: (vectors, width); None compares the queries with each other: every pair once, and no vector with itself.
        options: as for `pairs`.

    Returns:
        (rows, thresholds).
    """
    thresholds = options.get("thresholds", THRESHOLDS)
    counts = np.zeros((len(queries), len(thresholds)), np.int64)
    for found in pairs(queries, sample, **options):
        for level in range(len(thresholds)):
            reached = found.level > level
            counts[:, level] += np.bincount(found.rows[reached], minlength=len(counts))
            if sample is None:
                counts[:, level] += np.bincount(found.columns[reached], minlength=len(counts))
    return counts


def pairs(
    queries: Any,
    sample: Any = None,
    thresholds: tuple[float, ...] = THRESHOLDS,
    dtype: str | None = None,
    device: Any = None,
) -> Iterator[Pairs]:
    """All pairs whose cosine reaches the lowest threshold, block by block.

    Args:
        queries: (rows, width).
        sample: (vectors, width), or a `Prepared` one; None compares the queries with each other: pairs with row < column.
        thresholds: cosines in ascending order, above 0 and at most 1.
        dtype: "float32" or "bfloat16" for the product; None chooses the faster one. Does not affect the result.
        device: device for the product; None uses the accelerator if there is one.

    Raises:
        MemtaxError: the vectors differ in width, or thresholds or dtype are invalid.
    """
    if not thresholds or list(thresholds) != sorted(set(thresholds)) or not 0 < thresholds[0] <= thresholds[-1] <= 1:
        raise MemtaxError(f"thresholds must be ascending, above 0 and at most 1, got {thresholds}")
    left = unit_vectors(queries, "the queries")
    right = sample if isinstance(sample, Prepared) else prepare(left if sample is None else sample, len(left), dtype, device)
    if left.shape[1] != right.vectors.shape[1]:
        raise MemtaxError(
            f"the queries have {left.shape[1]} dimensions and the sample {right.vectors.shape[1]}; embed both with one model"
        )
    limits = np.array(thresholds, np.float64)

    def settle(start: int, operand: Any, column: int) -> Pairs:
        rows, columns, level = right.hits(operand, column, limits)
        if sample is None:
            above = rows + start < columns + column
            rows, columns, level = rows[above], columns[above], level[above]
        open_pairs = np.flatnonzero(level < 0)
        exact = _dots(left[start : start + right.rows], right.vectors[column:], rows[open_pairs], columns[open_pairs])
        level[open_pairs] = (exact[:, None] >= limits).sum(axis=1)
        keep = level > 0
        return Pairs(rows[keep] + start, columns[keep] + column, level[keep])

    def blocks() -> Iterator[tuple[int, Any, int]]:
        for start in range(0, len(left), right.rows):
            operand = right.convert(left[start : start + right.rows])
            first = start // right.columns * right.columns if sample is None else 0
            for column in range(first, len(right.vectors), right.columns):
                yield start, operand, column

    yield from _in_threads(settle, blocks(), right.threads)


def _in_threads(work: Callable[..., Pairs], tasks: Iterator[tuple[Any, ...]], threads: int) -> Iterator[Pairs]:
    """Yield results in the order of the tasks. Each thread multiplies and searches its own blocks, which stay in its cache.

    Threads inside a product would wait for each other twice per block, and compete with those that search.
    """
    if threads == 1:
        yield from (work(*task) for task in tasks)
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            waiting = deque(pool.submit(work, *task) for task in islice(tasks, 4 * threads))
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(work, *task) for task in islice(tasks, 1))
    finally:
        torch.set_num_threads(before)


class Prepared:
    """A sample in the dtype and on the device of the product, converted once if it is not too large."""

    def __init__(self, vectors: Float32, dtype: str, device: Any) -> None:
        self.vectors, self.device, self.dtype = vectors, torch.device(device), getattr(torch, dtype)
        self.threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        # GPUs need larger blocks: 1 GB of products in bfloat16.
        self.rows, self.columns = (ROWS, COLUMNS) if self.device.type == "cpu" else (8 * ROWS, 32 * COLUMNS)
        width = vectors.shape[1]
        # Maximum error of a product of two unit vectors: rounding of both operands, of `width` float32 additions in any
        # order, and of the result; by Cauchy-Schwarz, sum |a b| <= 1. Doubled, to cover the second order. A GPU may also round
        # partial sums, which adds the same again. Below the highest precision, torch multiplies float32 in shorter formats
        # such as bfloat16.
        short = dtype == "bfloat16" or torch.get_float32_matmul_precision() != "highest"
        roundings = 3 if self.device.type == "cpu" else 6
        self.margin = 2 * width * 2.0**-24 + roundings * (2.0**-8 if short else 0.0) + 2.0**-22
        size = vectors.size * (4 if dtype == "float32" else 2)
        # In float32 on the CPU nothing is converted: the vectors stay in place, memory-mapped or not.
        self.kept = None
        most = min(KEPT, (memory() or 2 * KEPT) // 2)
        if size <= most and not (dtype == "float32" and self.device.type == "cpu"):
            self.kept = torch.cat([self.convert(vectors[at : at + 65_536]) for at in range(0, len(vectors), 65_536)])

    def convert(self, block: Float32) -> Any:
        """Vectors as a tensor with the dtype and device of the product."""
        if not block.flags.writeable:
            block = block.copy()
        return torch.from_numpy(block).to(device=self.device, dtype=self.dtype)

    def hits(self, operand: Any, column: int, limits: NDArray[np.float64]) -> tuple[Int64, Int64, NDArray[np.int8]]:
        """Rows, columns and level of pairs that may reach a threshold; level -k - 1: between level k and k + 1."""
        stop = column + self.columns
        right = self.kept[column:stop] if self.kept is not None else self.convert(self.vectors[column:stop])
        with torch.inference_mode():
            product = operand @ right.T
            if self.device.type != "cpu":
                rows, columns = (product >= limits[0] - self.margin).nonzero(as_tuple=True)
                values = product[rows, columns].cpu().double().numpy()
                rows, columns = rows.cpu().numpy(), columns.cpu().numpy()
            elif self.dtype == torch.float32:
                rows, columns, values = _find(product.numpy(), np.float32(limits[0] - self.margin))
            else:
                low = int(torch.tensor(limits[0] - self.margin).bfloat16().view(torch.int16)) - 1
                rows, columns, bits = _find(product.view(torch.int16).numpy(), np.int16(low))
                values = torch.from_numpy(bits).view(torch.bfloat16).double().numpy()
        sure = (values[:, None] >= limits + self.margin).sum(axis=1)
        likely = (values[:, None] >= limits - self.margin).sum(axis=1)
        return rows, columns, np.where(sure == likely, sure, -sure - 1).astype(np.int8)


def prepare(vectors: Any, rows: int, dtype: str | None = None, device: Any = None) -> Prepared:
    """Prepare a sample for `pairs`.

    Args:
        vectors: (vectors, width).
        rows: approximate number of queries: for few queries, the dtypes are not benchmarked.
        dtype: "float32", "bfloat16" or None for the faster one.
        device: device for the product.

    Raises:
        MemtaxError: the dtype is unknown, or a vector has no direction.
    """
    from memtax.lm.placement import process_device

    if dtype not in (None, "float32", "bfloat16"):
        raise MemtaxError(f"dtype is {dtype!r}; choose float32 or bfloat16, or None for the faster one")
    found = unit_vectors(vectors, "the sample")
    place = process_device() if device is None else device
    if dtype is None:
        dtype = faster_format(str(place)) if rows * len(found) > 10**8 else "float32"
    return Prepared(found, dtype, place)


@functools.cache
def faster_format(device: str) -> str:
    """The dtype that this machine multiplies faster, measured in a tenth of a second."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = (torch.ones(size, 384, dtype=dtype, device=device) for size in (1024, 2048))
        best = float("inf")
        for _ in range(4):
            started = time.perf_counter()
            total = (left @ right.T)[0, 0].item()  # reading a number synchronizes with the device
            best = min(best, time.perf_counter() - started) if total else best
        seconds[dtype] = best
    return "bfloat16" if seconds[torch.bfloat16] < 0.7 * seconds[torch.float32] else "float32"


def nearest(vectors: Any, most: int, **options: Any) -> tuple[Int64, Int64, NDArray[np.float64], Int64]:
    """The nearest neighbors of each vector within a set, among those that reach the lowest threshold.

    Args:
        vectors: (rows, width).
        most: maximum number of neighbors per vector; ties go to the lower row.
        options: as for `pairs`.

    Returns:
        Rows, rows of their neighbors, cosines (float64) and ranks from 1, each (pairs,), sorted by row and rank.
    """
    matrix = unit_vectors(vectors, "the embeddings")
    best: tuple[Int64, Int64, NDArray[np.float64]] = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    for found in pairs(matrix, **options):
        cosine = _dots(matrix, matrix, found.rows, found.columns)
        rows = np.concatenate([best[0], found.rows, found.columns])
        columns = np.concatenate([best[1], found.columns, found.rows])
        cosine = np.concatenate([best[2], cosine, cosine])
        order = np.lexsort((columns, -cosine, rows))
        keep = order[_places(rows[order]) <= most]
        best = rows[keep], columns[keep], cosine[keep]
    # Vectors in float32 have unit length within 1e-7 only; cosines are clipped to 1.
    return best[0], best[1], np.minimum(best[2], 1.0), _places(best[0])


def _places(rows: Int64) -> Int64:
    """Rank of each entry within its row, from 1; rows are sorted."""
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    return np.arange(len(rows)) - np.repeat(starts, np.diff(np.append(starts, len(rows)))) + 1


@kernel()
def _dots(left, right, rows, columns):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    found = np.empty(len(rows), np.float64)
    for pair in range(len(rows)):
        total = 0.0
        for d in range(left.shape[1]):
            total += np.float64(left[rows[pair], d]) * np.float64(right[columns[pair], d])
        found[pair] = total
    return found


@kernel(fastmath=True)
def _largest(values):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """A reduction that compiles to vector instructions, for finite values."""
    largest = values[0]
    for place in range(1, len(values)):
        largest = max(largest, values[place])
    return largest


@kernel()
def _find(product, low):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Rows, columns and values of entries of at least `low`; the bits of positive bfloat16 numbers sort like integers."""
    rows, columns = product.shape
    size = 4096
    at, where, values = np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, product.dtype)
    found = 0
    for row in range(rows):
        for start in range(0, columns, STRIDE):
            part = product[row, start : start + STRIDE]
            if _largest(part) < low:
                continue
            if found + len(part) > size:
                size *= 2
                at, where, values = _grown(at, size), _grown(where, size), _grown(values, size)
            for place in range(len(part)):
                if part[place] >= low:
                    at[found], where[found], values[found] = row, start + place, part[place]
                    found += 1
    return at[:found], where[:found], values[:found]


@kernel()
def _grown(array, size):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    longer = np.empty(size, array.dtype)
    longer[: len(array)] = array
    return longer
