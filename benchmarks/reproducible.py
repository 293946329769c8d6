"""Matrix products with and without MKL's strict reproducibility, which memtax asks for on Intel's processors.

    python benchmarks/reproducible.py [--rounds 5]

For shapes of language models: speed with it over speed without, and how many of the products of 256 to 1,024 rows differ in a
bit between one thread and two. Processes with and without it take turns, because MKL decides at its first product.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

SHAPES = ((512, 2048), (2048, 512), (1024, 4096), (4096, 1024), (384, 1536), (1536, 384), (512, 50304))
"""Inputs and outputs of linear maps."""
ROWS, TRIES = 1024, 8


def measure() -> list[list[float]]:
    """For each shape: products per second, and the share of row counts that one thread and two round differently."""
    import torch

    threads, found = torch.get_num_threads(), []
    for inputs, outputs in SHAPES:
        torch.manual_seed(0)
        weight, rows = torch.randn(outputs, inputs), torch.randn(ROWS, inputs)
        seconds = []
        for _ in range(TRIES):
            started = time.perf_counter()
            torch.nn.functional.linear(rows, weight)
            seconds.append(time.perf_counter() - started)
        other = []
        for count in range(256, ROWS + 1, 64):
            results = []
            for number in (1, 2):
                torch.set_num_threads(number)
                results.append(torch.nn.functional.linear(rows[:count], weight))
            other.append(not torch.equal(*results))
        torch.set_num_threads(threads)
        found.append([1 / min(seconds), sum(other) / len(other)])
    return found


def child(value: str) -> list[list[float]]:
    """`measure` in a new process with this value of `MKL_CBWR`."""
    done = subprocess.run(
        [sys.executable, __file__, "--child"],
        env={**os.environ, "MKL_CBWR": value},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: list[list[float]] = json.loads(done.stdout)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(measure()))
        return
    rounds = [(child(""), child("AUTO,STRICT")) for _ in range(given.rounds)]
    print("| inputs x outputs | speed, strict / default | shapes that differ, default | strict |\n|---|---:|---:|---:|")
    for place, (inputs, outputs) in enumerate(SHAPES):
        speed = statistics.median(strict[place][0] / default[place][0] for default, strict in rounds)
        default, strict = rounds[0][0][place][1], rounds[0][1][place][1]
        print(f"| {inputs} x {outputs} | {speed:.2f} | {default:.0%} | {strict:.0%} |")


if __name__ == "__main__":
    main()
