"""Places of windows against looking at every position: threads, shards, ids, collisions, a resumed pass, and the command."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from memtax.corpus.contract import Block
from memtax.counting import places
from memtax.counting.count_job import CountJob
from memtax.counting.counter import count
from memtax.counting.kernels import MULTIPLIER
from memtax.counting.resume import FileCheckpoint
from memtax.counting.spans import Span
from memtax.errors import MemtaxError


class Shard:
    tokens = None

    def __init__(self, blocks):
        self._blocks = blocks

    def blocks(self):
        yield from self._blocks


class Corpus:
    rows = tokens = vocabulary_size = identity = None

    def __init__(self, shards):
        self._shards = shards

    def shards(self, tokens):
        return self._shards


def random_corpus(rng, vocabulary, has_ids):
    """Shards of blocks of short rows over few tokens, and each row as (shard, row number, id, tokens)."""
    rows, shards, first = [], [], 0
    for shard in range(rng.integers(1, 5)):
        blocks = []
        for _ in range(rng.integers(1, 4)):
            texts = [rng.integers(0, vocabulary, n).astype(np.uint16) for n in rng.integers(0, 120, rng.integers(0, 6))]
            numbers = np.arange(first, first + len(texts))
            ids = numbers * 7 + 3 if has_ids else numbers
            offsets = np.concatenate([[0], np.cumsum([len(text) for text in texts])]).astype(np.int64)
            flat = np.concatenate([np.zeros(0, np.uint16), *texts])
            blocks.append(Block(flat, offsets, first, ids if has_ids else None, f"part {shard}"))
            rows += [(shard, *pair, text.tolist()) for *pair, text in zip(numbers.tolist(), ids.tolist(), texts, strict=True)]
            first += len(texts)
        shards.append(Shard(blocks))
    return Corpus(shards), rows


def occurrences(rows, window):
    """Shard, row, id and offset of every occurrence, in the order of the corpus."""
    width = len(window)
    return [
        (shard, row, key, at)
        for shard, row, key, text in rows
        for at in range(len(text) - width + 1)
        if text[at : at + width] == window
    ]


def taken(found, window):
    return [(order >> places.SHARD_BITS, *rest) for order, *rest in found.of_window(window)]


@pytest.mark.parametrize("seed", range(12))
def test_places_are_the_first_of_brute_force(seed):
    rng = np.random.default_rng(seed)
    width, most = int(rng.integers(1, 40)), int(rng.integers(1, 5))
    corpus, rows = random_corpus(rng, int(rng.integers(1, 6)), seed % 2)
    cut = [
        text[at : at + width] for *_, text in rows for at in rng.integers(0, max(1, len(text)), 3) if len(text) - at >= width
    ]
    windows = [*cut, [0] * width]
    # A multiplier of 0 makes all hashes collide.
    given = {"threads": int(rng.integers(1, 4)), "multiplier": 0 if seed % 4 == 0 else MULTIPLIER}
    found = count(corpus, np.array(windows, np.int32), places=most, **given)
    for number, window in enumerate(windows):
        expected, own = occurrences(rows, window), taken(found.places[0], number)
        assert found.window_counts[number] == len(expected)
        assert own == expected[:most]
        assert all(found.sources[shard] == f"part {shard}" for shard, *_ in own)


def test_merged_places_are_the_first_of_both():
    rng = np.random.default_rng(1)
    for _ in range(50):
        windows, most = int(rng.integers(1, 5)), int(rng.integers(1, 6))
        orders = rng.permutation(1000)[: 2 * windows * most].reshape(2, windows, most)
        orders = np.where(rng.random(orders.shape) < 0.3, places.NONE, orders)
        orders.sort(axis=2)
        ours, theirs = (places.Places(each.copy(), np.repeat(each[:, :, None], places.FIELDS - 1, 2)) for each in orders)
        places.merge(ours, theirs)
        expected = np.sort(np.concatenate(orders, axis=1), axis=1)[:, :most]
        np.testing.assert_array_equal(ours.order, expected)
        for window in range(windows):
            assert ours.of_window(window) == [(order,) * places.FIELDS for order in expected[window] if order != places.NONE]


def test_a_resumed_pass_has_the_same_places(tmp_path):
    corpus, rows = random_corpus(np.random.default_rng(5), 2, False)
    windows = np.array([text[:4] for *_, text in rows if len(text) > 4], np.int32)
    whole = count(corpus, windows, places=3)

    class Failing(Shard):
        def blocks(self):
            raise MemtaxError("the disk is gone")

    def keeper(query):
        return FileCheckpoint(tmp_path / "progress.npz", {}, seconds=0)

    assert len(corpus.shards(1)) > 2
    broken = Corpus([*corpus.shards(1)[:-1], Failing([])])
    with pytest.raises(MemtaxError, match="gone"):
        count(broken, windows, places=3, checkpoint=keeper, threads=1)
    resumed = count(corpus, windows, places=3, checkpoint=keeper)
    for window in range(len(windows)):
        assert resumed.places[0].of_window(window) == whole.places[0].of_window(window)
    assert resumed.sources == whole.sources


def test_the_table_names_files_sequences_offsets_and_documents(tmp_path):
    first = {"sequence_id": [10, 11], "tokens": [[1, 2, 3, 4], [9, 1, 2, 3]], "document": ["a.txt", "b.txt"]}
    second = {"sequence_id": [20], "tokens": [[1, 2, 3, 1, 2, 3]], "url": ["c"]}
    for name, rows in (("first", first), ("second", second)):
        pq.write_table(pa.table(rows), tmp_path / f"{name}.parquet")
    names = tuple(str(tmp_path / f"{name}.parquet") for name in ("first", "second"))
    CountJob(names, spans=(Span(0, 3), Span(1, 3)), places=3).run(tmp_path / "out")
    found = pq.read_table(tmp_path / "out" / "places.parquet").to_pylist()
    mine = [tuple(row.values())[1:] for row in found if row["sequence_id"] == 10]
    assert mine == [
        (0, "first.parquet", 10, 0, "a.txt"),
        (1, "first.parquet", 11, 1, "b.txt"),
        (2, "second.parquet", 20, 0, "c"),
    ]
    assert [row["place"] for row in found if row["sequence_id"] == 11] == [0]
    assert pq.read_table(tmp_path / "out" / "places_1_3.parquet").num_rows > 0
    with pytest.raises(MemtaxError, match="local pass"):
        CountJob(names, places=3, engine="spark")
