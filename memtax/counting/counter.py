"""One pass over a corpus: how often each token and each requested window occurs."""

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from memtax.corpus.binary import BLOCK_TOKENS
from memtax.corpus.contract import Block, Corpus, Shard
from memtax.counting import kernels
from memtax.counting.count_tables import write_counts
from memtax.counting.places import SHARD_BITS
from memtax.counting.totals import Counts, Query, Totals, add_block
from memtax.errors import MemtaxError
from memtax.progress import memory, progress_bar

__all__ = ["Checkpoint", "Counts", "count", "write_counts"]

SHARD_TOKENS = 2**23
"""Tokens per shard, if the source can be split; threads take work and a killed run resumes in units of shards."""

MERGE_TOKENS = 32
"""Tokens counted per array entry before a thread adds its sums to the shared ones; adding then costs little."""

_BASE = 300 << 20
"""Bytes used by Python and its libraries."""

_AHEAD = 2
"""Blocks read in advance."""


class Checkpoint:
    """Stores the totals of a pass; this base class stores nothing. `memtax.counting.resume` stores them on disk."""

    def load(self, query: Query, shards: int) -> tuple[Totals, npt.NDArray[np.bool_]]:
        """Totals so far, and the mask of shards that they include."""
        return Totals.zero(query), np.zeros(shards, np.bool_)

    def save(self, totals: Totals, done: npt.NDArray[np.bool_]) -> None:
        """Store the totals; called periodically, never by two threads at once."""


@dataclass
class _Pass:
    """State shared by the threads of a pass."""

    query: Query
    checkpoint: Checkpoint
    totals: Totals
    done: npt.NDArray[np.bool_]
    bar: Any
    lock: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)

    def work(self, shards: Sequence[Shard], numbers: "queue.SimpleQueue[int]") -> None:
        """Process shards until none remain, and add finished ones to the totals periodically and at the end."""
        mine, finished = Totals.zero(self.query), list[int]()
        try:
            while not self.stop.is_set():
                try:
                    number = numbers.get_nowait()
                except queue.Empty:
                    break
                order = number << SHARD_BITS
                for block in read_ahead(shards[number].blocks(), self.stop):
                    add_block(self.query, mine, block, order)
                    order += len(block.tokens)
                    with self.lock:
                        self.bar.update(len(block.tokens))
                if self.stop.is_set():
                    # A stop request may have cut the shard short.
                    return
                finished.append(number)
                if mine.tokens >= MERGE_TOKENS * (mine.frequencies.size + self.query.entries):
                    self._merge(mine, finished)
            self._merge(mine, finished)
        except BaseException:
            self.stop.set()
            # The sums mix the shard that failed with finished ones, so all are dropped.
            raise

    def _merge(self, mine: Totals, finished: list[int]) -> None:
        with self.lock:
            self.totals.add(mine)
            self.done[finished] = True
            self.checkpoint.save(self.totals, self.done)
        mine.clear()
        finished.clear()


def read_ahead(blocks: Iterator[Block], stop: threading.Event | None = None) -> Iterator[Block]:  # noqa: C901
    """Yield the blocks, read by a separate thread while earlier blocks are counted.

    Args:
        blocks: the blocks to read.
        stop: event that ends the reading early.

    Raises:
        Exception: errors of the reading thread are raised in the consumer.
    """
    ready: queue.Queue[Block | BaseException | None] = queue.Queue(_AHEAD)
    ended = threading.Event()

    def put(item: "Block | BaseException | None") -> bool:
        while not ended.is_set() and not (stop is not None and stop.is_set()):
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def read() -> None:
        try:
            for block in blocks:
                if not put(block):
                    return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=read, name="memtax-read", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = ready.get(timeout=0.1)
            except queue.Empty:
                if stop is not None and stop.is_set():
                    return
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        ended.set()
        thread.join()


def threads_available() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count(
    corpus: Corpus,
    windows: npt.NDArray[Any] | Sequence[npt.NDArray[Any]] | None,
    *,
    vocabulary_size: int | None = None,
    separator: int | None = None,
    substitutions: int | None = None,
    memorized: npt.NDArray[np.int64] | Sequence[int] | None = None,
    threads: int | None = None,
    shard_tokens: int = SHARD_TOKENS,
    multiplier: int = kernels.MULTIPLIER,
    checkpoint: Callable[[Query], Checkpoint] | None = None,
    places: int = 0,
) -> Counts:
    """Count, in one pass, every token and every exact occurrence of the windows.

    An occurrence may start at any offset of a sequence at which the whole window fits; occurrences may overlap and never
    cross from one sequence to the next. (The reference code of Prashanth et al. 2024 skips the last offset.)

    Args:
        corpus: the corpus to count.
        windows: integer matrix of shape (n, w), or several matrices with different w; windows may repeat. None counts tokens
            only.
        vocabulary_size: length of the frequencies; None takes the corpus's own, or the largest id seen plus one.
        separator: token that ends documents; an occurrence that contains it crosses documents and does not count.
        substitutions: also count positions that differ from a window in at most this many tokens, exact ones included.
        memorized: ids (row numbers, if the corpus has no ids) of sequences whose tokens are also counted separately.
        threads: number of threads; None uses all cores. Does not affect the result.
        shard_tokens: tokens per shard.
        multiplier: hash multiplier; does not affect the result.
        checkpoint: creates the store that keeps the totals between runs; None keeps nothing.
        places: occurrences of each window to locate, the first ones in the order of the corpus.

    Returns:
        The counts; `window_counts` has one entry per window.

    Raises:
        MemtaxError: the windows are not a matrix of token ids, the corpus cannot be read, or an id exceeds the vocabulary.
    """
    matrices = [] if windows is None else [windows] if isinstance(windows, np.ndarray) else list(windows)
    query = Query.of(
        matrices,
        vocabulary_size=vocabulary_size if vocabulary_size is not None else corpus.vocabulary_size,
        separator=separator,
        substitutions=substitutions,
        memorized=memorized,
        multiplier=multiplier,
        places=places,
    )
    shards = corpus.shards(shard_tokens)
    keeper = Checkpoint() if checkpoint is None else checkpoint(query)
    totals, done = keeper.load(query, len(shards))
    with progress_bar("counting", corpus.tokens, unit="tokens", initial=totals.tokens) as bar:
        state = _Pass(query, keeper, totals, done, bar)
        numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in np.flatnonzero(~done):
            numbers.put(int(number))
        wanted = min(threads or threads_available(), max(1, numbers.qsize()))
        _run(state, shards, numbers, within_memory(query, totals, wanted))
    return state.totals.counts(query)


def within_memory(query: Query, totals: Totals, threads: int) -> int:
    """The largest number of threads that fits the memory limit; measured figures are in `benchmarks/results/memory.md`.

    Raises:
        MemtaxError: not even one thread fits.
    """
    limit = memory()
    if limit is None:
        return threads
    # Memory for the windows (as cut and in the corpus's own type), hash table, filter, and owners.
    shared = _BASE + sum(len(index.windows) * (9 * index.windows.shape[1] + 64) for index in query.indexes)
    sums = 8 * (totals.frequencies.size + query.entries)
    each = sums + (_AHEAD + 2) * 4 * BLOCK_TOKENS
    fit = (limit - shared - sums) // each
    if fit < 1:
        raise MemtaxError(
            f"counting {query.size:,} windows takes about {(shared + sums + each) / 2**30:.1f} GiB, more than "
            f"--memory {limit / 2**30:g}; count fewer windows at a time"
        )
    return int(min(threads, fit))


def _run(state: _Pass, shards: Sequence[Shard], numbers: "queue.SimpleQueue[int]", threads: int) -> None:
    with ThreadPoolExecutor(threads, thread_name_prefix="memtax-count") as pool:
        futures = [pool.submit(state.work, shards, numbers) for _ in range(threads)]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            # On Ctrl-C too, the threads stop at the next block.
            if any(not future.done() or future.exception() for future in futures):
                state.stop.set()
        for future in futures:
            future.result()
