"""Counting on Spark: each task opens its shards on its worker, counts them with the same loops, and yields its sums.

The sums are added on the cluster. The driver receives one number per window and per token that occurs, whatever the size of
the corpus, in rounds of a few tasks per core. After each round the driver saves the totals in the same file as a local pass,
so a killed driver resumes with the next round, locally or on Spark.

Workers read the corpora, so paths must be visible to all of them (a shared file system, the Hub); tables at `s3a://`,
`hdfs://` and similar addresses are read by Spark itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from memtax.corpus.blocks import RowReader
from memtax.corpus.opening import Reading, open_sources
from memtax.corpus.remote import RemoteTables
from memtax.counting.counter import Checkpoint
from memtax.counting.large_ids import DENSE
from memtax.counting.totals import Counts, Query, Totals, add_block
from memtax.engine import spark
from memtax.errors import MemtaxError

SCHEMA = "part int, number long, amount long"
_TASK_TOKENS = 2**28
"""Maximum tokens per task: seconds of counting, so that starting a task costs comparatively little."""
_TASKS = 4
"""Tasks per round, for each core of the cluster."""


@dataclass(frozen=True)
class Ask:
    """The arguments of `Query.of`, sent once to every worker."""

    windows: tuple[npt.NDArray[Any], ...]
    options: dict[str, Any]

    def query(self) -> Query:
        """Indexed."""
        return Query.of(self.windows, **self.options)


def count_on_spark(
    corpus: Sequence[str] | RemoteTables,
    reading: Reading,
    windows: Sequence[npt.NDArray[Any]],
    *,
    master: str | None = None,
    shard_tokens: int,
    keeper: Checkpoint | None = None,
    **options: Any,
) -> Counts:
    """Count a corpus on Spark, with the same result as `memtax.counting.counter.count`.

    Args:
        corpus: names accepted by `open_sources`, or tables that Spark reads itself.
        reading: reading options; workers open the corpus themselves.
        windows: matrices of windows.
        master: Spark master.
        shard_tokens: tokens per shard.
        keeper: keeps the totals between runs; None keeps nothing.
        options: `vocabulary_size`, `separator`, `substitutions`, `memorized`, as for `count`.

    Raises:
        MemtaxError: Spark cannot start, or a worker cannot read its input; the message names the file and position.
    """
    session = spark.session(master)
    ask = Ask(tuple(windows), options)
    query = ask.query()
    sent = session.sparkContext.broadcast(ask)
    try:
        rounds = _Rounds(query, keeper or Checkpoint(), _TASKS * session.sparkContext.defaultParallelism)
        if isinstance(corpus, RemoteTables):
            totals = rounds.of_files(session, corpus, reading, sent)
        else:
            totals = rounds.of_shards(session, tuple(corpus), reading, shard_tokens, sent)
    except MemtaxError:
        raise
    except Exception as error:
        raise spark.own_words(error) or MemtaxError(f"Spark stopped: {' '.join(str(error).split())[:300]}") from error
    finally:
        sent.destroy()
    return totals.counts(query)


@dataclass(frozen=True)
class _Rounds:
    """A pass in rounds of several tasks; the totals are saved after each round."""

    query: Query
    keeper: Checkpoint
    tasks: int

    def of_shards(self, session: Any, names: tuple[str, ...], reading: Reading, shard_tokens: int, sent: Any) -> Totals:
        """Count shards that the workers open."""
        totals, done = self.keeper.load(self.query, len(open_sources(names, reading).shards(shard_tokens)))
        left = np.flatnonzero(~done)
        a_task = max(1, min(-(-len(left) // self.tasks), _TASK_TOKENS // shard_tokens))
        for start in range(0, len(left), self.tasks * a_task):
            numbers = left[start : start + self.tasks * a_task]
            self._add(_shared(session, names, reading, shard_tokens, sent, numbers, a_task), numbers, totals, done)
        return totals

    def of_files(self, session: Any, tables: RemoteTables, reading: Reading, sent: Any) -> Totals:
        """Count files that Spark reads."""
        totals, done = self.keeper.load(self.query, len(tables.files))
        for numbers in tables.rounds(np.flatnonzero(~done), self.tasks):
            self._add(_remote(session, tables, numbers, reading, sent), numbers, totals, done)
        return totals

    def _add(self, frame: Any, numbers: npt.NDArray[np.int64], totals: Totals, done: npt.NDArray[np.bool_]) -> None:
        totals.add(_sums(frame, self.query))
        done[numbers] = True
        self.keeper.save(totals, done)


def _shared(
    session: Any,
    names: tuple[str, ...],
    reading: Reading,
    shard_tokens: int,
    sent: Any,
    numbers: npt.NDArray[np.int64],
    a_task: int,
) -> Any:
    """Rows from shards, by number: each task opens the corpus and reads its own shards."""

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


def _remote(session: Any, tables: RemoteTables, numbers: npt.NDArray[np.int64], reading: Reading, sent: Any) -> Any:
    """Rows from files, by number, read by Spark."""
    label, column, ids, tokenizer, size = tables.label, tables.column, tables.ids, reading.tokenizer, tables.vocabulary_size

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        query = _query(sent)
        totals = Totals.zero(query)
        for batch in batches:
            reader = RowReader.of(batch.schema, label, column, tokenizer, size, 2**21)
            for _, block in reader.read(iter([batch]), None, ids):
                add_block(query, totals, block)
        yield from _rows(totals)

    return tables.frame(session, numbers).mapInArrow(work, SCHEMA)


_kept: list[tuple[Ask, Query]] = []


def _query(sent: Any) -> Query:
    """The index, built once per worker process however many tasks it runs."""
    ask = sent.value
    # Compare identity, not equality: an object kept here is never freed, so no later job can reuse its address.
    if not _kept or _kept[0][0] is not ask:
        _kept[:] = [(ask, ask.query())]
    return _kept[0][1]


def _rows(totals: Totals) -> Iterator[pa.RecordBatch]:
    """Nonzero sums as rows (part, number, amount). Part 0 is the amount read; see `_parts`."""
    sums = [(part, np.flatnonzero(array), array[array != 0]) for part, array in _parts(totals)]
    sums += [(part, totals.large.ids, counts) for part, counts in enumerate(totals.large.counts, 1)]
    for part, numbers, amounts in sums:
        for start in range(0, len(numbers), 2**20):
            chunk = slice(start, start + 2**20)
            columns = [np.full(len(numbers[chunk]), part, np.int32), numbers[chunk], amounts[chunk]]
            yield pa.RecordBatch.from_arrays([pa.array(each) for each in columns], ["part", "number", "amount"])


def _parts(totals: Totals) -> list[tuple[int, npt.NDArray[np.int64]]]:
    read = np.array([totals.tokens, totals.sequences], np.int64)
    return list(enumerate([read, *totals.frequencies, *totals.found, *totals.near]))


def _sums(frame: Any, query: Query) -> Totals:
    """Add the rows from all tasks on the cluster, and return them as totals."""
    sums = frame.groupBy("part", "number").sum("amount").toArrow()
    totals = Totals.zero(query)
    parts, numbers, amounts = (column.to_numpy() for column in sums.columns)
    groups = len(totals.frequencies)
    is_large = (parts >= 1) & (parts <= groups) & (numbers >= DENSE)
    for group in range(groups):
        mine = is_large & (parts == group + 1)
        counts = np.zeros((groups, int(mine.sum())), np.int64)
        counts[group] = amounts[mine]
        totals.large.add(numbers[mine], counts)
    parts, numbers, amounts = parts[~is_large], numbers[~is_large], amounts[~is_large]
    totals.reserve(int(numbers[(parts >= 1) & (parts <= groups)].max(initial=-1)) + 1)
    for part, array in _parts(totals)[1:]:
        mine = parts == part
        array[numbers[mine]] = amounts[mine]
    read = dict(zip(numbers[parts == 0].tolist(), amounts[parts == 0].tolist(), strict=True))
    totals.tokens, totals.sequences = read.get(0, 0), read.get(1, 0)
    return totals
