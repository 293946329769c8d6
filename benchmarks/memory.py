"""Peak memory of count, filter and search at growing sizes: each a process of its own, the largest resident set it reached.

python benchmarks/memory.py > benchmarks/results/memory.md
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

COUNT = (10**6, 10**7, 10**8)
ROWS = (2_000, 20_000)
SEARCH = (5_000, 50_000)


def peak(words: tuple[Any, ...], folder: Path) -> tuple[float, float]:
    """MiB and seconds of one command; `wait4` gives the resident peak of that very child."""
    command = [sys.executable, "-m", "memtax", "--quiet", *map(str, words), "--output", str(folder)]
    began = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{words[0]} ended with {status}")
    return usage.ru_maxrss / 1024, time.monotonic() - began


def measure(folder: Path) -> Iterator[tuple[str, str, float, float]]:
    """Yield verb, size, MiB and seconds."""
    rng = np.random.default_rng(0)
    for tokens in COUNT:
        path = folder / f"{tokens}.bin"
        rng.integers(0, 50_000, tokens, dtype=np.uint16).tofile(path)
        yield (
            "count, tokens alone",
            f"{tokens:,} tokens",
            *peak(("count", path, "--sequence-length", 1000, "--no-windows"), folder / f"c{tokens}"),
        )
    for rows in ROWS:
        path = folder / f"{rows}.parquet"
        words = np.array([f"word{number}" for number in range(2000)])
        pq.write_table(
            pa.table({"sequence_id": np.arange(rows), "text": [" ".join(rng.choice(words, 30)) for _ in range(rows)]}), path
        )
        yield "filter compressibility", f"{rows:,} rows", *peak(("filter", "compressibility", path), folder / f"f{rows}")
    for rows in SEARCH:
        path = folder / f"s{rows}.parquet"
        a, b = rng.normal(size=(2, rows))
        table = {"sequence_id": np.arange(rows), "a": a, "b": b, "sequence_duplicates": rng.integers(0, 12, rows)}
        table |= {"taxonomy": rng.integers(0, 3, rows), "is_memorized": rng.random(rows) < 1 / (1 + np.exp(1 - a + b))}
        pq.write_table(pa.table(table), path)
        options = ("--factors", "a,b", "--split-on", "a,b", "--resamples", 20)
        yield "search, 2 factors", f"{rows:,} rows", *peak(("search", path, *options), folder / f"r{rows}")


def main() -> None:
    """Print the table as Markdown."""
    print("| verb | size | peak resident MiB | seconds |\n| --- | --- | ---: | ---: |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for verb, size, mib, seconds in measure(Path(folder)):
            print(f"| {verb} | {size} | {mib:,.0f} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
