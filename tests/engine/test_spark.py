"""Spark against the local engine, on two workers of this machine. Needs Java 17: in CI its absence is a failure."""

import os
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest

from helpers import catalogue
from memtax.engine import run
from memtax.engine.spark import find_java, run_on_spark, session
from memtax.errors import MemtaxError

pytest.importorskip("pyspark", reason="pip install 'memtax[spark]' to test the Spark engine")


def java_is_missing():
    try:
        find_java()
    except MemtaxError as error:
        return str(error)
    return ""


MISSING = java_is_missing()
if MISSING and not os.environ.get("CI"):
    pytest.skip(f"THE SPARK ENGINE IS NOT TESTED: {MISSING}", allow_module_level=True)


@pytest.fixture(scope="module")
def spark():
    started = session("local[2]")
    yield started
    started.stop()


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def test_java_is_there_where_it_must_be():
    assert not MISSING


def test_a_missing_java_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(MemtaxError, match=r"Spark needs Java 17 or newer, and JAVA_HOME=.* has no bin/java; .*openjdk-17"):
        find_java()
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MemtaxError, match="none on the PATH"):
        find_java()
    old = tmp_path / "java"
    old.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_392\"' >&2\n")
    old.chmod(0o755)
    with pytest.raises(MemtaxError, match="is Java 8; install one"):
        find_java()


def corpus(tmp_path):
    rows = np.random.default_rng(0).integers(0, 900, (400, 80)).astype(np.uint16)
    rows[5] = rows[17]
    rows[8] = 3
    rows[9, 48:80] = rows[300, 32:64]
    np.save(tmp_path / "a.npy", rows[:150])
    table = {"sequence_id": list(range(1000, 1250)), "tokens": rows[150:].tolist()}
    datasets.Dataset.from_dict(table).to_parquet(tmp_path / "b.parquet", batch_size=60)
    return rows, (str(tmp_path / "a.npy"), str(tmp_path / "b.parquet"))


def test_counts_are_the_bytes_of_a_local_pass(spark, tmp_path):
    from memtax.counting.count_job import CountJob
    from memtax.counting.spans import Span

    rows, names = corpus(tmp_path)
    datasets.Dataset.from_dict({"sequence_id": [3, 1001]}).save_to_disk(tmp_path / "memorized")
    options = {
        "spans": (Span(32, 64), Span(0, 9)),
        "substitutions": 3,
        "memorized": str(tmp_path / "memorized"),
        "separator": 7,
        "shard_tokens": 3000,
    }
    here = CountJob(names, **options).run(tmp_path / "local")
    there = CountJob(names, engine="spark", master="local[2]", **options).run(tmp_path / "spark")
    assert here == there
    files = sorted(path.name for path in (tmp_path / "local").iterdir())
    assert "memorized_frequencies.parquet" in files
    assert sorted(path.name for path in (tmp_path / "spark").iterdir()) == files
    for name in files:
        assert (tmp_path / "local" / name).read_bytes() == (tmp_path / "spark" / name).read_bytes(), name
    # The windows of rows 5 and 17 are equal, and that of 300 is planted in row 9, unless the separator is in them.
    table = pq.read_table(tmp_path / "spark" / "num_duplicates.parquet").to_pydict()
    counts = dict(zip(table["sequence_id"], table["sequence_duplicates"], strict=True))
    assert counts[5] == counts[17] == (0 if 7 in rows[5, 32:64] else 2)
    assert counts[1150] == (0 if 7 in rows[300, 32:64] else 2)


def killed_after_its_first_round(job, output):
    """Run a job whose process dies when it has kept its totals for the first time."""
    from memtax.counting.resume import FileCheckpoint

    class Killed(BaseException):
        pass

    saved = FileCheckpoint.save

    def save_and_die(self, totals, done):
        saved(self, totals, done)
        raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(FileCheckpoint, "save", save_and_die)
        job.run(output)


@pytest.mark.parametrize("then", ["spark", "local"])
def test_a_driver_that_dies_between_rounds_is_gone_on_with(spark, tmp_path, monkeypatch, then):
    """Of 11 shards, a round takes 8 (4 tasks for each of 2 cores): the totals of those are kept when the driver dies."""
    from memtax.counting import on_spark
    from memtax.counting.count_job import CountJob

    _, names = corpus(tmp_path)
    options = {"shard_tokens": 3000, "substitutions": 2}
    expected = CountJob(names, **options).run(tmp_path / "local")
    monkeypatch.setattr(on_spark, "_TASK_TOKENS", 3000)
    job = CountJob(names, engine="spark", master="local[2]", **options)
    killed_after_its_first_round(job, tmp_path / "spark")
    with np.load(tmp_path / "spark" / "progress.npz") as kept:
        done, read = kept["done"], int(kept["read"][0])
    assert done.sum() == 8
    assert len(done) > 8
    assert 0 < read < expected["tokens"]
    assert CountJob(names, engine=then, **options).run(tmp_path / "spark") == expected
    for path in (tmp_path / "local").iterdir():
        assert path.read_bytes() == (tmp_path / "spark" / path.name).read_bytes(), path.name
    assert not (tmp_path / "spark" / "progress.npz").exists()


def test_tables_that_spark_reads_itself_are_counted_some_files_at_a_time(spark, tmp_path, monkeypatch):
    """Three files, a round each: the driver dies after the first, and what it had counted is not counted again."""
    from memtax.corpus import remote
    from memtax.counting.count_job import CountJob

    _, names = corpus(tmp_path)
    table = pq.read_table(names[1])
    (tmp_path / "far").mkdir()
    for number, name in enumerate(("a b.parquet", "c[1].parquet", "d.parquet")):
        pq.write_table(table.slice(number * 90, 90), tmp_path / "far" / name)
    datasets.Dataset.from_dict({"sequence_id": [1003, 1201]}).save_to_disk(tmp_path / "memorized")
    options = {"sequences": (names[1],), "memorized": str(tmp_path / "memorized")}
    expected = CountJob((names[1],), **options).run(tmp_path / "local")

    monkeypatch.setattr(remote, "_TASK_BYTES", 1)
    job = CountJob((f"file://{tmp_path}/far",), engine="spark", **options)
    killed_after_its_first_round(job, tmp_path / "spark")
    with np.load(tmp_path / "spark" / "progress.npz") as kept:
        assert kept["done"].tolist() == [True, False, False]
        assert kept["read"].tolist() == [90 * 80, 90]
    assert job.run(tmp_path / "spark") == expected
    for path in (tmp_path / "local").glob("*.parquet"):
        assert path.read_bytes() == (tmp_path / "spark" / path.name).read_bytes(), path.name
    # A file that was written again is another corpus.
    pq.write_table(table, tmp_path / "far" / "d.parquet")
    with pytest.raises(MemtaxError, match=r"another run \(changed: corpus\)"):
        job.run(tmp_path / "spark")


@pytest.mark.parametrize(
    ("names", "engine", "message"),
    [
        (("file:///none.parquet",), "local", "an address that only Spark reads; add --engine spark"),
        (("file:///none.parquet",), "spark", r"Spark cannot read .*Path does not exist: file:/none\.parquet"),
        (("s3a://bucket/none",), "spark", "ClassNotFoundException.*; add the Spark package for it"),
        (("file:///none.parquet", "here.parquet"), "spark", "here.parquet is a path and others are addresses"),
        (("file://HERE/b.parquet",), "spark", "give the sequences to look for with --sequences"),
    ],
)
def test_an_address_that_cannot_be_counted_says_why(spark, tmp_path, names, engine, message):
    from memtax.counting.count_job import CountJob

    corpus(tmp_path)
    names = tuple(name.replace("HERE", str(tmp_path)) for name in names)
    with pytest.raises(MemtaxError, match=message) as caught:
        CountJob(names, engine=engine).run(tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_workers_error_is_one_line(spark, tmp_path):
    from memtax.corpus.opening import Reading
    from memtax.counting.count_job import CountJob

    _, names = corpus(tmp_path)
    with pytest.raises(MemtaxError, match=r"token id \d+ in row \d+ of .*a\.npy \(byte offset \d+\) is outside") as caught:
        job = CountJob(names[:1], sequences=(), reading=Reading(vocabulary_size=800), engine="spark")
        job.run(tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_filters_give_the_bytes_of_the_local_engine(spark, tmp_path):
    from memtax.jobs.filter import Filter

    words = np.random.default_rng(1).integers(0, 50, (5000, 12))
    texts = [f"{i} " + " ".join(f"w{word}" for word in row) for i, row in enumerate(words)]
    datasets.Dataset.from_dict({"index": list(range(5000)), "text": texts}).to_parquet(tmp_path / "rows.parquet")
    names = ("templates", "compressibility", str(tmp_path / "rows.parquet"))
    local = Filter(names=names, output=tmp_path / "local").run()
    there = Filter(names=names, output=tmp_path / "spark", engine="spark", master="local[2]").run()
    assert local.table().equals(there.table())
    parts = sorted(path.relative_to(tmp_path / "local") for path in (tmp_path / "local").rglob("part-*"))
    assert len(parts) == 4
    for part in parts:
        assert (tmp_path / "local" / part).read_bytes() == (tmp_path / "spark" / part).read_bytes()
    assert not list((tmp_path / "spark").rglob(".input"))


@pytest.mark.long
def test_every_catalogued_filter_gives_the_parts_of_the_local_engine(spark, tmp_path):
    rows = catalogue.rows()
    for name, each in catalogue.build(tmp_path / "inputs", rows).items():
        run(rows, each, tmp_path / "local" / name, rows_per_batch=1)
        run_on_spark(rows, each, tmp_path / "spark" / name, 1, master="local[2]")
        there, here = (sorted((tmp_path / engine / name).rglob("part-*.parquet")) for engine in ("spark", "local"))
        assert [part.name for part in there] == [part.name for part in here]
        assert len(here) == 3  # 40 rows in shards of 16
        assert [part.read_bytes() for part in there] == [part.read_bytes() for part in here], name


@pytest.mark.long
def test_the_drivers_memory_does_not_grow_with_the_corpus(tmp_path):
    # Six times the corpus, the same windows: the peak of the Python driver must not follow.
    script = """
import re, sys
from pathlib import Path
from memtax.counting.count_job import CountJob
queries, *corpora = sys.argv[1:]
for corpus in corpora:
    CountJob((corpus,), sequences=(queries,), engine="spark", master="local[2]").run(Path(corpus + ".counts"))
    # Not ru_maxrss: a child inherits that from the process that started it.
    print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
"""
    rows = np.random.default_rng(0).integers(0, 30_000, (5000, 1500)).astype(np.uint16)
    np.save(tmp_path / "queries.npy", rows[:100, :64])
    corpora = []
    for times in (1, 6):
        corpora.append(str(tmp_path / f"{times}.npy"))
        np.save(corpora[-1], np.tile(rows, (times, 1)))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", script, str(tmp_path / "queries.npy"), *corpora]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
    small, large = map(float, done.stdout.split()[-2:])
    # The larger corpus has 75 MB more; a driver that held it, or its shards' rows, would show that.
    assert large < small + 35
