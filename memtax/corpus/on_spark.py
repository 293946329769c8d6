"""Counting on Spark: each task opens its shards where it runs, counts them with the same loops, and yields its sums.

The sums are added on the cluster. What comes to the driver is one number for each window and token that occurs, whatever the
size of the corpus. It comes in rounds of some tasks a core each, and after a round the driver keeps the totals in the file that
a local pass keeps: a driver that was killed goes on with the next round, here or there.

Corpora are read by the workers, so their paths must be visible to all of them (a shared file system, the Hub); tables at
`s3a://`, `hdfs://` and the like are read by Spark itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from memtax.corpus.blocks import RowReader
from memtax.corpus.counting import Checkpoint
from memtax.corpus.opening import Reading, open_sources
from memtax.corpus.totals import Counts, Query, Totals, add_block
from memtax.engine import spark
from memtax.errors import MemtaxError

SCHEMA = "part int, number long, amount long"
_TASK_TOKENS = 2**28
"""Most tokens of a task: seconds of counting, beside which the start of a task is small."""
_TASKS = 4
"""Tasks a round, for each core of the cluster."""


@dataclass(frozen=True)
class Ask:
    """What every worker gets, once: the arguments of `Query.of`."""

    windows: tuple[npt.NDArray[Any], ...]
    options: dict[str, Any]

    def query(self) -> Query:
        """Indexed."""
        return Query.of(self.windows, **self.options)


def is_remote(name: str) -> bool:
    """Whether a name is an address that Spark reads itself."""
    return "://" in name


def count_on_spark(
    names: Sequence[str],
    reading: Reading,
    windows: Sequence[npt.NDArray[Any]],
    *,
    master: str | None = None,
    shard_tokens: int,
    keeper: Checkpoint | None = None,
    **options: Any,
) -> Counts:
    """Count a corpus on Spark; the result is that of `memtax.corpus.counting.count`.

    Args:
        names: the corpus, as for `open_sources`.
        reading: how it is read; workers open it themselves.
        windows: matrices of windows.
        master: of Spark.
        shard_tokens: tokens a shard.
        keeper: keeps the totals between runs, of a corpus that the workers open; one that Spark reads is counted in one go.
        options: `vocabulary_size`, `separator`, `substitutions`, `memorized`, as for `count`.

    Raises:
        MemtaxError: Spark cannot start, or a worker cannot read; the message names file and place.
    """
    session = spark.session(master)
    ask = Ask(tuple(windows), options)
    query = ask.query()
    sent = session.sparkContext.broadcast(ask)
    try:
        if any(map(is_remote, names)):
            totals = _sums(_remote(session, names, reading, sent), query)
        else:
            totals = _in_rounds(session, tuple(names), reading, shard_tokens, sent, query, keeper or Checkpoint())
    except MemtaxError:
        raise
    except Exception as error:
        raise spark.own_words(error) or MemtaxError(f"Spark stopped: {' '.join(str(error).split())[:300]}") from error
    finally:
        sent.destroy()
    return totals.counts(query)


def _in_rounds(
    session: Any, names: tuple[str, ...], reading: Reading, shard_tokens: int, sent: Any, query: Query, keeper: Checkpoint
) -> Totals:
    """The shards that are not yet in the totals, some tasks a core at a time."""
    shards = len(open_sources(names, reading).shards(shard_tokens))
    totals, done = keeper.load(query, shards)
    left = np.flatnonzero(~done)
    tasks = _TASKS * session.sparkContext.defaultParallelism
    a_task = max(1, min(-(-len(left) // tasks), _TASK_TOKENS // shard_tokens))
    for start in range(0, len(left), tasks * a_task):
        numbers = left[start : start + tasks * a_task]
        totals.add(_sums(_shared(session, names, reading, shard_tokens, sent, numbers, a_task), query))
        done[numbers] = True
        keeper.save(totals, done)
    return totals


def _shared(
    session: Any,
    names: tuple[str, ...],
    reading: Reading,
    shard_tokens: int,
    sent: Any,
    numbers: npt.NDArray[np.int64],
    a_task: int,
) -> Any:
    """Shards by number: each task opens the corpus and reads its own."""

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        query = _query(sent)
        totals = Totals.zero(query)
        mine = None
        for batch in batches:
            mine = mine or open_sources(names, reading).shards(shard_tokens)
            for place in batch.column(0).to_pylist():
                for block in mine[int(numbers[place])].blocks():
                    add_block(query, totals, block)
        yield from _rows(totals)

    return session.range(0, len(numbers), 1, -(-len(numbers) // a_task)).mapInArrow(work, SCHEMA)


def _remote(session: Any, names: Sequence[str], reading: Reading, sent: Any) -> Any:
    """Tables that Spark reads: Parquet, or JSON lines by their ending."""
    frame = session.read.json(list(names)) if names[0].endswith((".jsonl", ".json", ".gz")) else session.read.parquet(*names)
    label, tokenizer, size = ", ".join(names), reading.tokenizer, reading.vocabulary_size
    from memtax.corpus.columns import find_column

    column = find_column(frame.columns, reading.column, label)
    ids = next((name for name in ("sequence_id", "index", "Index") if name in frame.columns), None)
    frame = frame.select(column, ids) if ids else frame.select(column)

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        query = _query(sent)
        totals = Totals.zero(query)
        for batch in batches:
            reader = RowReader.of(batch.schema, label, column, tokenizer, size, 2**21)
            for _, block in reader.read(iter([batch]), None, ids):
                add_block(query, totals, block)
        yield from _rows(totals)

    return frame.mapInArrow(work, SCHEMA)


_kept: list[tuple[Ask, Query]] = []


def _query(sent: Any) -> Query:
    """The index, built once in each worker process however many tasks it runs."""
    ask = sent.value
    # The same object, not an equal number: what is kept here cannot be freed, so no later job can stand in its place.
    if not _kept or _kept[0][0] is not ask:
        _kept[:] = [(ask, ask.query())]
    return _kept[0][1]


def _rows(totals: Totals) -> Iterator[pa.RecordBatch]:
    """Sums as rows (part, number, amount), zeros left out. Part 0 is what was read; see `_parts`."""
    for part, array in _parts(totals):
        numbers = np.flatnonzero(array)
        for start in range(0, len(numbers), 2**20):
            chunk = numbers[start : start + 2**20]
            columns = [np.full(len(chunk), part, np.int32), chunk.astype(np.int64), array[chunk]]
            yield pa.RecordBatch.from_arrays([pa.array(each) for each in columns], ["part", "number", "amount"])


def _parts(totals: Totals) -> list[tuple[int, npt.NDArray[np.int64]]]:
    read = np.array([totals.tokens, totals.sequences], np.int64)
    return list(enumerate([read, *totals.frequencies, *totals.found, *totals.near]))


def _sums(frame: Any, query: Query) -> Totals:
    """What the tasks yield, added on the cluster, as totals."""
    sums = frame.groupBy("part", "number").sum("amount").toArrow()
    totals = Totals.zero(query)
    parts, numbers, amounts = (column.to_numpy() for column in sums.columns)
    groups = len(totals.frequencies)
    tokens = numbers[(parts >= 1) & (parts <= groups)]
    totals.reserve(int(tokens.max(initial=-1)) + 1)
    for part, array in _parts(totals)[1:]:
        mine = parts == part
        array[numbers[mine]] = amounts[mine]
    read = dict(zip(numbers[parts == 0].tolist(), amounts[parts == 0].tolist(), strict=True))
    totals.tokens, totals.sequences = read.get(0, 0), read.get(1, 0)
    return totals
