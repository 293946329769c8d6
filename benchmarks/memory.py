"""Peak memory of verbs at growing sizes: each a process of its own, the largest resident set it reached.

python benchmarks/memory.py                # or some of: count score filters search report
"""

import os
import shutil
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

Row = tuple[str, str, float, float]
"""Verb, size, MiB, seconds."""


def peak(words: tuple[Any, ...], output: Path | None) -> tuple[float, float]:
    """MiB and seconds of one command; `wait4` gives the resident peak of that very child. The output is removed."""
    command = [sys.executable, "-m", "memtax", "--quiet", *map(str, words)]
    command += [] if output is None else ["--output", str(output)]
    began = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{words[0]} ended with {status}")
    took = time.monotonic() - began
    if output is not None:
        shutil.rmtree(output)
    return usage.ru_maxrss / 1024, took


def count(folder: Path, rng: np.random.Generator) -> Iterator[Row]:
    """Tokens alone, and windows."""
    for tokens in (10**6, 10**7, 10**8):
        path = folder / f"{tokens}.bin"
        rng.integers(0, 50_000, tokens, dtype=np.uint16).tofile(path)
        words = ("count", path, "--sequence-length", 1000, "--no-windows")
        yield "count, tokens alone", f"{tokens:,} tokens", *peak(words, folder / "out")
        path.unlink()
    for rows in (10**5, 10**6, 3 * 10**6):
        path = folder / f"{rows}.bin"
        rng.integers(0, 50_000, (rows, 64), dtype=np.uint16).tofile(path)
        words = ("count", path, "--sequence-length", 64, "--window", "32:64", "--vocabulary-size", 50_000)
        yield "count, windows of 32", f"{rows:,} windows", *peak(words, folder / "out")
        path.unlink()


def score(folder: Path, rng: np.random.Generator) -> Iterator[Row]:
    """A tiny model: what grows is what is held of the rows."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=1000, max_position_embeddings=64, **shape))
    model.save_pretrained(folder / "model")
    for rows in (2_000, 20_000, 60_000):
        path = folder / f"score{rows}.parquet"
        tokens = pa.FixedSizeListArray.from_arrays(pa.array(rng.integers(0, 1000, rows * 64, dtype=np.int32)), 64)
        pq.write_table(pa.table({"sequence_id": np.arange(rows), "tokens": tokens.cast(pa.list_(pa.int32()))}), path)
        yield "score, 64 tokens", f"{rows:,} rows", *peak(("score", path, "--model", folder / "model"), folder / "out")


def filters(folder: Path, rng: np.random.Generator) -> Iterator[Row]:
    """A filter of text, and one that compares with a sample of embeddings."""
    words = np.array([f"word{number}" for number in range(2000)])
    for rows in (2_000, 20_000, 60_000):
        path = folder / f"text{rows}.parquet"
        texts = [" ".join(row) for row in rng.choice(words, (rows, 30))]
        pq.write_table(pa.table({"sequence_id": np.arange(rows), "text": texts}), path)
        yield "filter compressibility", f"{rows:,} rows", *peak(("filter", "compressibility", path), folder / "out")
    for rows in (10_000, 100_000, 300_000):
        vectors = rng.normal(size=(rows, 384)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 384).cast(pa.list_(pa.float32()))
        table = pa.table({"sequence_id": np.arange(rows), "embedding": column})
        pq.write_table(table, folder / "sample.parquet")
        pq.write_table(table.slice(0, 2_000), folder / "queries.parquet")
        options = ("--set", f"sample={folder / 'sample.parquet'}", "--set", "embedded=true")
        yield (
            "filter semantic_matches, 2,000 rows",
            f"sample of {rows:,}",
            *peak(("filter", "semantic_matches", folder / "queries.parquet", *options), folder / "out"),
        )


def search(folder: Path, rng: np.random.Generator) -> Iterator[Row]:
    """Two factors, two partitions."""
    for rows in (5_000, 50_000, 500_000):
        path = folder / f"s{rows}.parquet"
        a, b = rng.normal(size=(2, rows))
        table = {"sequence_id": np.arange(rows), "a": a, "b": b, "sequence_duplicates": rng.integers(0, 12, rows)}
        table |= {"taxonomy": rng.integers(0, 3, rows), "is_memorized": rng.random(rows) < 1 / (1 + np.exp(1 - a + b))}
        pq.write_table(pa.table(table), path)
        options = ("--factors", "a,b", "--split-on", "a,b", "--resamples", 20)
        yield "search, 2 factors", f"{rows:,} rows", *peak(("search", path, *options), folder / "out")


def report(folder: Path, rng: np.random.Generator) -> Iterator[Row]:
    """The page of a run, from its table of features."""
    for rows in (10_000, 100_000, 1_000_000):
        run = folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        (run / "dataset" / "features").mkdir(parents=True)
        tokens = pa.FixedSizeListArray.from_arrays(pa.array(rng.integers(0, 1000, rows * 64, dtype=np.int32)), 64)
        text = pa.DictionaryArray.from_arrays(rng.integers(0, 1000, rows), [f"text of a row {n} " * 8 for n in range(1000)])
        table = {
            "sequence_id": np.arange(rows),
            "tokens": tokens.cast(pa.list_(pa.int32())),
            "text": text.cast(pa.string()),
            "sequence_duplicates": rng.integers(1, 50, rows),
            "continuation_perplexity": rng.lognormal(2, 1, rows).astype(np.float32),
            "is_memorized": rng.random(rows) < 0.3,
            "taxonomy": rng.integers(0, 3, rows),
        }
        pq.write_table(pa.table(table), run / "dataset" / "features" / "train.parquet")
        yield "report", f"{rows:,} rows", *peak(("report", run), None)


def main() -> None:
    """Print the table as Markdown."""
    print("| verb | size | peak resident MiB | seconds |\n| --- | --- | ---: | ---: |", flush=True)
    chosen = sys.argv[1:] or ["count", "score", "filters", "search", "report"]
    parts = {each.__name__: each for each in (count, score, filters, search, report)}
    for name in chosen:
        with tempfile.TemporaryDirectory() as folder:
            for verb, size, mib, seconds in parts[name](Path(folder), np.random.default_rng(0)):
                print(f"| {verb} | {size} | {mib:,.0f} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
