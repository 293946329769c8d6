"""Spark: a session that uses the system's Java, and functions over Arrow batches on its workers."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from memtax.checksums import Parts
from memtax.errors import MemtaxError
from memtax.extras import explained
from memtax.progress import say

if TYPE_CHECKING:
    import datasets

    from memtax.engine.shards import Plan
    from memtax.engine.stage import BatchFunction

JAVA = 17
"""Minimum Java version of Spark 4."""


def find_java() -> Path:
    """The Java that Spark will start, from `JAVA_HOME` or the PATH.

    Raises:
        MemtaxError: there is none, or it is too old; the message says how to install one.
    """
    way_out = "install one (Debian, Ubuntu: apt-get install -y openjdk-17-jre-headless) or set JAVA_HOME"
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    if found is None:
        where = f"JAVA_HOME={home} has no bin/java" if home else "there is none on the PATH"
        raise MemtaxError(f"Spark needs Java {JAVA} or newer, and {where}; {way_out}")
    printed = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(?:1\.)?(\d+)', printed)
    if version is None or int(version[1]) < JAVA:
        is_old = f"Java {version[1]}" if version else "no Java that reports its version"
        raise MemtaxError(f"Spark needs Java {JAVA} or newer, and {found} is {is_old}; {way_out}")
    return Path(found)


def session(master: str | None = None) -> Any:
    """The active Spark session, or a new one.

    Args:
        master: `local[2]`, `spark://host:7077`, `yarn`, ...; None uses the setting of `spark-submit` or the configuration, or
            all cores of this machine.

    Raises:
        MemtaxError: PySpark or Java is missing, or the session does not start.
    """
    with explained():
        from pyspark.sql import SparkSession
    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    find_java()
    # Workers must run this interpreter, which has memtax, instead of the system's Python.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("memtax").config("spark.ui.showConsoleProgress", "true")
    if master is not None:
        builder = builder.master(master)
    elif "MASTER" not in os.environ and "SPARK_REMOTE" not in os.environ:
        builder = builder.config("spark.master", os.environ.get("SPARK_MASTER", "local[*]"))
    try:
        started = builder.getOrCreate()
    except Exception as error:
        raise MemtaxError(f"Spark does not start on {master or 'this machine'}: {first_line(error)}") from error
    started.sparkContext.setLogLevel("ERROR")
    address = started.sparkContext.uiWebUrl
    say(f"Spark {started.version} on {started.sparkContext.master}" + (f", watch it at {address}" if address else ""))
    return started


def first_line(error: BaseException) -> str:
    """The first meaningful line of a long Java error."""
    lines = (line.strip().removeprefix(": ") for line in str(error).splitlines())
    return next(
        (line for line in lines if line and not line.startswith("An error occurred while calling")), type(error).__name__
    )


def own_words(error: BaseException) -> MemtaxError | None:
    """The MemtaxError that a worker raised, extracted from Spark's traceback; None if there is none."""
    found = re.findall(r"memtax\.errors\.(?:\w+): (.*)", str(error))
    return MemtaxError(found[-1].strip()) if found else None


def run_on_spark(
    dataset: "datasets.Dataset", function: "BatchFunction", output: Path, rows_per_batch: int, master: str | None = None
) -> pa.Table:
    """`memtax.engine.stage` with Spark workers instead of processes: the same shards, batches and parts, byte for byte.

    Each task computes whole shards (fixed row blocks) from their staged rows, with `mapInArrow`. Finished parts are reused.

    Args:
        dataset: rows with `sequence_id` and the columns that the function requires.
        function: a filter.
        output: the stage's directory, on a file system visible to all workers.
        rows_per_batch: rows per call.
        master: Spark master.

    Raises:
        MemtaxError: a column is missing, Spark cannot start, or the filter rejects the rows.
        StaleOutputError: `output` contains parts of another input or function.
    """
    from memtax import schema
    from memtax.engine.shards import plan
    from memtax.engine.stage import KEY, claim, read, stage_identity

    schema.require(dataset.column_names, (KEY, *function.requires), f"the input of {function.name!r}")
    cut = plan(len(dataset), rows_per_batch)
    identity = stage_identity(dataset, function, cut)
    claim(output, identity)
    parts = Parts.of(output.resolve(), identity)
    missing = [shard for shard in range(cut.shards) if not parts.is_usable(cut.part(shard))]
    if missing:
        spark = session(master)
        columns = [KEY, *(name for name in function.requires if name != KEY)]
        staged = output / ".input"
        try:
            # The workers read the rows from files, so that the driver holds only one shard at a time.
            for shard in missing:
                _stage(dataset, columns, cut, shard, staged)
            work = _shard_work(function, cut, parts, staged.resolve())
            numbers = spark.createDataFrame([(shard,) for shard in missing], "number long")
            numbers = numbers.repartition(min(len(missing), 4 * spark.sparkContext.defaultParallelism))
            numbers.mapInArrow(work, "number long").count()
        except MemtaxError:
            raise
        except Exception as error:
            raise own_words(error) or MemtaxError(f"Spark stopped: {' '.join(str(error).split())[:300]}") from error
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    return read(output, function, cut, dataset)


def _stage(dataset: "datasets.Dataset", columns: list[str], cut: "Plan", shard: int, folder: Path) -> None:
    from memtax.files import write_parquet

    start, stop = cut.bounds(shard)
    table = dataset.select(range(start, stop)).select_columns(columns).with_format("arrow")[:]
    write_parquet(folder / f"{shard}.parquet", table)


def _shard_work(function: "BatchFunction", cut: "Plan", parts: Parts, staged: Path) -> Any:
    """The work of a task: the batches of each shard, split as in `memtax.engine.stage`."""

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import datasets

        from memtax.engine.stage import compute_shard
        from memtax.provenance import fingerprint_path

        for batch in batches:
            for shard in batch.column(0).to_pylist():
                path = staged / f"{shard}.parquet"
                rows = datasets.Dataset(pq.read_table(path), fingerprint=fingerprint_path(path))
                parts.write_parquet(cut.part(shard), compute_shard(rows, function, cut.rows_per_batch))
            yield batch

    return work
