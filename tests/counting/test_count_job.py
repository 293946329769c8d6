"""The whole job: threads, resume after a kill, several windows, documents, memorized sequences, against plain counting."""

import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from helpers.processes import python, start
from memtax.corpus.binary import FlatCorpus
from memtax.corpus.contract import Block
from memtax.corpus.opening import Reading, open_sources
from memtax.counting import counter as counting
from memtax.counting.count_job import CountJob
from memtax.counting.counter import count
from memtax.counting.resume import FILE, FileCheckpoint
from memtax.counting.spans import Span
from memtax.errors import MemtaxError, StaleOutputError
from memtax.results import read_summary

ROOT = Path(__file__).parents[2]


def corpus_rows(rows=300, length=90, vocabulary=1000, seed=0):
    """Random rows with duplicates planted across and inside rows, at the ends, and runs of one token."""
    rng = np.random.default_rng(seed)
    made = rng.integers(0, vocabulary, (rows, length))
    made[5] = made[17]
    made[6, 58:90] = made[200, 32:64]  # ends with the row
    made[7, 0:32] = made[200, 32:64]  # starts it
    made[8, :] = 3  # a run: 90 - 32 + 1 = 59 overlapping occurrences of its own window
    made[9, 40:80] = 3
    made[10, 10:42] = made[10, 45:77]
    return made


def plain(rows, start, stop):
    """Oracle: every slice of every row in a dictionary."""
    width = stop - start
    seen = Counter(tuple(row[i : i + width]) for row in rows for i in range(len(row) - width + 1))
    return [seen[tuple(row[start:stop])] for row in rows if len(row) >= stop]


def suffix_array_counts(rows, windows):
    """Oracle: binary search in the sorted suffixes of all rows, which a token beyond the vocabulary keeps apart."""
    flat = [token for row in rows for token in (*row, 10**6)]
    width = len(windows[0])
    suffixes = sorted(tuple(flat[i : i + width]) for i in range(len(flat)))
    from bisect import bisect_left, bisect_right

    return [bisect_right(suffixes, tuple(window)) - bisect_left(suffixes, tuple(window)) for window in windows]


def table(path, column="sequence_duplicates"):
    return pq.read_table(path).column(column).to_pylist()


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
@pytest.mark.parametrize("length", [90, 2049])
def test_several_windows_in_one_pass(dtype, length, tmp_path):
    rows = corpus_rows(length=length)
    rows.astype(dtype).tofile(tmp_path / "document.bin")
    spans = (Span(32, 64), Span(0, 50), Span(85, 90), Span(3, 4), Span(10, 21), Span(60, 84))
    reading = Reading(sequence_length=length, dtype=dtype)
    job = CountJob((str(tmp_path / "document.bin"),), spans=spans, reading=reading, threads=3, shard_tokens=length * 7)
    totals = job.run(tmp_path / "counts")
    names = ["num_duplicates", *(f"num_duplicates_{span.name}" for span in spans[1:])]
    for name, span in zip(names, spans, strict=True):
        assert table(tmp_path / "counts" / f"{name}.parquet") == plain(rows.tolist(), span.start, span.stop)
    frequencies = table(tmp_path / "counts" / "token_frequencies.parquet", "token_frequency")
    assert frequencies == np.bincount(rows.reshape(-1)).tolist()
    assert (totals["tokens"], totals["sequences"], totals["windows"]) == (rows.size, len(rows), [len(rows)] * 6)


def test_counts_equal_a_suffix_array():
    rng = np.random.default_rng(3)
    rows = [rng.integers(0, 3, rng.integers(0, 80)).tolist() for _ in range(60)]
    for width in (1, 2, 5, 8, 11, 23, 32):
        windows = [row[i : i + width] for row in rows for i in range(0, len(row) - width + 1, 3)]
        found = count(Lists(rows), np.array(windows, np.int32), threads=2)
        assert found.window_counts.tolist() == suffix_array_counts(rows, windows)


class Lists:
    """Rows as a corpus with one shard per row, of changing types of token."""

    vocabulary_size = identity = None

    def __init__(self, rows):
        self.lists = rows
        self.rows, self.tokens = len(rows), sum(map(len, rows))

    def shards(self, tokens):
        return [Row(row, number) for number, row in enumerate(self.lists)]


class Row:
    def __init__(self, row, number):
        self.row, self.number, self.tokens = row, number, len(row)

    def blocks(self):
        dtype = (np.uint16, np.int32)[self.number % 2]
        yield Block(np.array(self.row, dtype), np.array([0, len(self.row)]), self.number)


def test_a_corpus_of_both_types_counts_as_one():
    # Odd rows come as int32, even ones as uint16, where the window with 70000 cannot stand.
    rows = [[1, 2, 3, 1, 2], [1, 2, 70_000, 1, 2], [2, 1, 2], [70_000, 1, 2]]
    windows = np.array([[1, 2], [70_000, 1], [1, 2], [5, 5]])
    assert count(Lists(rows), windows).window_counts.tolist() == [6, 2, 6, 0]


def test_any_number_of_threads_and_any_cut_count_the_same(tmp_path):
    rows = corpus_rows()
    np.save(tmp_path / "a.npy", rows.astype(np.uint16))
    results = []
    for threads, shard_tokens in ((1, 2**23), (1, 90), (4, 500), (2, 12_345)):
        corpus = open_sources([str(tmp_path / "a.npy")])
        found = count(corpus, rows[:, 32:64], threads=threads, shard_tokens=shard_tokens, substitutions=2)
        results.append([found.window_counts.tolist(), found.near[0].tolist(), found.token_frequencies.tolist()])
    assert results[0][0] == plain(rows.tolist(), 32, 64)
    assert all(each == results[0] for each in results)


def test_windows_do_not_cross_documents(tmp_path):
    rows = [[1, 2, 3, 9, 1, 2, 3, 1], [2, 3, 9, 1, 2, 9, 9, 5]]
    np.save(tmp_path / "a.npy", np.array(rows))
    windows = np.array([[1, 2], [3, 9], [9, 1], [2, 3], [9, 9]])
    corpus = open_sources([str(tmp_path / "a.npy")])
    assert count(corpus, windows).window_counts.tolist() == [3, 2, 2, 3, 1]
    # 9 ends documents and belongs to none: windows with it lie in no document.
    assert count(corpus, windows, separator=9).window_counts.tolist() == [3, 0, 0, 3, 0]


def test_frequencies_are_split_by_memorized_sequences(tmp_path, capsys):
    import datasets

    rows = corpus_rows()
    np.save(tmp_path / "a.npy", rows.astype(np.int32))
    ids = [3, 17, 299, 5000]
    flags = {"sequence_id": [*ids, 4], "is_memorized": [True, True, True, True, False]}
    datasets.Dataset.from_dict(flags).save_to_disk(tmp_path / "memorized")
    job = CountJob((str(tmp_path / "a.npy"),), memorized=str(tmp_path / "memorized"), shard_tokens=900)
    job.run(tmp_path / "counts")
    memorized = table(tmp_path / "counts" / "memorized_frequencies.parquet", "token_frequency")
    others = table(tmp_path / "counts" / "non_memorized_frequencies.parquet", "token_frequency")
    assert memorized == np.bincount(rows[[3, 17, 299]].reshape(-1), minlength=1000).tolist()
    assert others == np.bincount(np.delete(rows, [3, 17, 299], axis=0).reshape(-1), minlength=1000).tolist()
    assert "memorized ids" not in capsys.readouterr().out

    datasets.Dataset.from_dict({"index": [5000, 6000]}).to_parquet(tmp_path / "elsewhere.parquet")
    CountJob((str(tmp_path / "a.npy"),), memorized=str(tmp_path / "elsewhere.parquet")).run(tmp_path / "none")
    assert "none of the 2 memorized ids is a sequence of the corpus" in capsys.readouterr().out


def test_memorized_ids_follow_the_id_column_of_a_table(tmp_path):
    import datasets

    rows = {"Index": [70, 80], "tokens": [[1, 2], [3, 4]]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "rows.parquet")
    found = count(open_sources([str(tmp_path / "rows.parquet")]), None, memorized=[80])
    assert found.memorized_frequencies.tolist() == [0, 0, 0, 1, 1]


def test_a_failure_keeps_what_is_finished_and_the_next_run_goes_on(tmp_path, monkeypatch):
    rows = corpus_rows()
    np.save(tmp_path / "a.npy", rows.astype(np.uint16))
    windows = rows[:, 32:64]
    whole = count(open_sources([str(tmp_path / "a.npy")]), windows, shard_tokens=900)
    monkeypatch.setattr(counting, "MERGE_TOKENS", 0)
    read = []

    class Recording(FlatCorpus):
        fails = True

        def read(self, start, stop):
            if self.fails and start >= 200:
                raise MemtaxError("the disk is gone")
            read.append(start)
            return super().read(start, stop)

    corpus = open_sources([str(tmp_path / "a.npy")])
    corpus.__class__ = Recording
    options = {"shard_tokens": 900, "threads": 1, "checkpoint": lambda query: FileCheckpoint(tmp_path / FILE, {"a": 1}, 0.0)}
    monkeypatch.setattr(FileCheckpoint, "SHARE", 0)
    with pytest.raises(MemtaxError, match="the disk is gone"):
        count(corpus, windows, **options)
    # 300 rows in shards of ten; the first twenty were counted.
    assert read == list(range(0, 200, 10))
    read.clear()
    Recording.fails = False
    again = count(corpus, windows, **options)
    assert read == list(range(200, 300, 10))
    assert again.window_counts.tolist() == whole.window_counts.tolist()
    assert again.token_frequencies.tolist() == whole.token_frequencies.tolist()
    assert (again.tokens, again.sequences) == (whole.tokens, whole.sequences)
    # Everything is in the file now: nothing is read, and equal windows still share their count.
    read.clear()
    assert count(corpus, windows, **options).window_counts.tolist() == whole.window_counts.tolist()
    assert read == []
    with pytest.raises(StaleOutputError, match="from a pass with another a"):
        count(corpus, windows, checkpoint=lambda query: FileCheckpoint(tmp_path / FILE, {"a": 2}))
    # What cannot be trusted is counted again from the start.
    content = bytearray((tmp_path / FILE).read_bytes())
    content[len(content) // 2] ^= 1
    for damaged in (b"PK nothing", bytes(content)):
        (tmp_path / FILE).write_bytes(damaged)
        assert count(corpus, windows, **options).window_counts.tolist() == whole.window_counts.tolist()
        assert read == list(range(0, 300, 10))
        read.clear()


def test_killed_runs_end_in_the_same_bytes(tmp_path):
    rows = corpus_rows(10_000, 2000, 30_000)
    rows.astype(np.uint16).tofile(tmp_path / "document.bin")
    corpus = [tmp_path / "document.bin", "--sequence-length", 2000, "--shard-tokens", 100_000, "--threads", 2]
    common = ["count", *corpus, "--window", "32:64", "--window", "0:9", "--substitutions", 3]
    whole = python("-m", "memtax", *common, "--output", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    output, killed, seen = tmp_path / "killed", 0, 0
    for attempt in range(3):
        process = start("-m", "memtax", *common, "--output", output)
        while process.is_running() and attempt < 2:
            # Killed when it has just saved more than the run before it, at different moments after that.
            if (output / "parts" / FILE).exists() and (output / "parts" / FILE).stat().st_mtime_ns > seen:
                time.sleep(0.02 * attempt)
                process.kill()
                break
            time.sleep(0.002)
        ended = process.wait()
        killed += ended.returncode == -signal.SIGKILL
        seen = (output / "parts" / FILE).stat().st_mtime_ns if (output / "parts" / FILE).exists() else seen
    assert ended.returncode == 0
    assert killed > 0
    names = sorted(str(path.relative_to(tmp_path / "whole")) for path in (tmp_path / "whole").rglob("*.parquet"))
    assert sorted(str(path.relative_to(output)) for path in output.rglob("*.parquet")) == names
    for name in (*names, "summary.json", "parts/totals.json"):
        assert (output / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_finished_output_is_reused_and_another_job_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", corpus_rows().astype(np.uint16))
    job = CountJob((str(tmp_path / "a.npy"),))
    totals = job.run(tmp_path / "counts")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "counts").iterdir()}
    assert job.run(tmp_path / "counts") == totals
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "counts").iterdir()} == before
    with pytest.raises(StaleOutputError, match="changed: windows, sequences"):
        CountJob((str(tmp_path / "a.npy"),), spans=(Span(0, 32),)).run(tmp_path / "counts")
    np.save(tmp_path / "a.npy", corpus_rows(seed=1).astype(np.uint16))
    with pytest.raises(StaleOutputError, match="changed: corpus"):
        job.run(tmp_path / "counts")


def test_the_command_prints_where_the_result_is_and_one_line_for_an_error(tmp_path):
    np.save(tmp_path / "a.npy", corpus_rows().astype(np.uint16))
    good = python("-m", "memtax", "count", tmp_path / "a.npy", "--output", tmp_path / "counts", "--no-windows")
    assert good.returncode == 0
    assert good.stdout.startswith("27,000 tokens in 300 sequences\n")
    assert read_summary(tmp_path / "counts", "count")["tokens"] == 27_000
    bad = python("-m", "memtax", "count", tmp_path / "a.npy", "--output", tmp_path / "other", "--vocabulary-size", 999)
    assert bad.returncode == 2
    (line,) = [line for line in bad.stderr.splitlines() if line.startswith("memtax: ")]
    assert "token id 999" in line
    assert "a.npy" in line
