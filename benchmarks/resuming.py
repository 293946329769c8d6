"""What checksums cost a resumed run: seconds of the whole command, and of them those spent on reading and comparing checksums.

python benchmarks/resuming.py                # or some of: score filter predict

Each verb runs once, and then three times more over its finished parts. The command is a process of its own, started as a user
starts it; inside it, the time in the functions of `memtax.checksums` is added up.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DRIVER = """
import sys, time
from memtax import checksums
spent, depth = 0.0, 0

def timed(function):
    def run(*given, **named):
        global spent, depth
        began, depth = time.perf_counter(), depth + 1
        try:
            return function(*given, **named)
        finally:
            depth -= 1
            if not depth:
                spent += time.perf_counter() - began
    return run

for name in ("seal", "verify", "damage", "is_of"):
    setattr(checksums, name, timed(getattr(checksums, name)))
for name in ("is_usable", "names"):
    setattr(checksums.Parts, name, timed(getattr(checksums.Parts, name)))
from memtax import cli
try:
    cli.main()
finally:
    print(f"spent {spent}", file=sys.stderr)
"""


def measure(words: tuple[Any, ...]) -> tuple[float, float]:
    """Seconds of a command, and of them those in checksums."""
    began = time.monotonic()
    command = [sys.executable, "-c", DRIVER, "--quiet", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{words[0]}: {done.stderr}")
    return time.monotonic() - began, float(done.stderr.rsplit("spent ", 1)[1])


def material(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Inputs, and each verb's words."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=1000, max_position_embeddings=64, **shape))
    model.save_pretrained(folder / "model")
    rng = np.random.default_rng(0)
    tokens = pa.array(rng.integers(0, 1000, (20_000, 64), dtype=np.int32).tolist(), pa.list_(pa.int32()))
    pq.write_table(pa.table({"sequence_id": np.arange(20_000), "tokens": tokens}), folder / "rows.parquet")
    words = np.array([f"word{number}" for number in range(500)])
    texts = [" ".join(words[row]) for row in rng.integers(0, 500, (100_000, 30))]
    pq.write_table(pa.table({"sequence_id": np.arange(len(texts)), "text": texts}), folder / "texts.parquet")
    rows = 1_000_000
    a, b = rng.normal(size=(2, rows))
    labels = rng.random(rows) < 1 / (1 + np.exp(1 - a + b))
    table = pa.table({"sequence_id": np.arange(rows), "a": a, "b": b, "taxonomy": np.arange(rows) % 3, "is_memorized": labels})
    pq.write_table(table, folder / "many.parquet")
    pq.write_table(table.slice(0, 5000), folder / "table.parquet")
    fit = ("fit", folder / "table.parquet", "--output", folder / "fitted", "--factors", "a,b", "--resamples", 20)
    measure((*fit, "--no-explain"))
    scoring = ("--model", folder / "model", "--token-logprobs", "--moments", "--output", folder / "scores")
    return {
        "score": ("score", folder / "rows.parquet", *scoring),
        "filter": ("filter", "compressibility", folder / "texts.parquet", "--output", folder / "filtered"),
        "predict": ("predict", folder / "fitted", folder / "many.parquet", "--output", folder / "risk"),
    }


def main() -> None:
    """Print a table in Markdown."""
    print("| verb | MB of parts | resumed run, s | of it checksums, s | share |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for verb, words in material(folder).items():
            if sys.argv[1:] and verb not in sys.argv[1:]:
                continue
            measure(words)
            output = Path(words[words.index("--output") + 1])
            size = sum(path.stat().st_size for path in output.rglob("part-*.parquet")) / 1e6
            took, spent = (sorted(values)[1] for values in zip(*(measure(words) for _ in range(3)), strict=True))
            print(f"| `{verb}` | {size:.0f} | {took:.2f} | {spent:.3f} | {spent / took:.1%} |", flush=True)
        big = folder / "big"
        with big.open("wb") as file:
            for _ in range(64):
                file.write(np.random.default_rng(1).bytes(2**24))
        from memtax.checksums import checksum

        began = time.monotonic()
        checksum(big)
        print(f"\n{2**30 / (time.monotonic() - began) / 1e9:.1f} GB/s from the page cache, one core.")


if __name__ == "__main__":
    main()
