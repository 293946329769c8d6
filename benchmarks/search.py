"""The partition search against a direct loop of scikit-learn fits, on the same cores.

    python benchmarks/search.py [--rows 200000] [--factors 14] [--sample 40]

Simulated training rows with correlated factors, ten of which carry rules (three quantiles each: 810 partitions). The direct
loop assigns a partition's groups by array comparisons and fits `LogisticRegression()` on each, one after another; it is
timed on a random sample of partitions and scaled to all. Coefficients are compared with `LogisticRegression(tol=1e-10)`.
"""

import argparse
import time
import tracemalloc

import numpy as np
import pyarrow as pa
from sklearn.linear_model import LogisticRegression

from memtax.predictor.groups import Problem, workers
from memtax.predictor.partition_search import score
from memtax.predictor.partitions import QUANTILES, all_partitions


def simulate(rows: int, factors: int, seed: int = 1024) -> pa.Table:
    """Factors with pairwise correlation .3, and a target that depends on all of them."""
    rng = np.random.default_rng(seed)
    values = np.sqrt(0.7) * rng.normal(size=(rows, factors)) + np.sqrt(0.3) * rng.normal(size=(rows, 1))
    odds = values @ rng.normal(scale=0.5, size=factors) - 2.0
    columns = {f"f{number}": column for number, column in enumerate(values.T)}
    return pa.table({**columns, "is_memorized": rng.random(rows) < 1 / (1 + np.exp(-odds))})


def prepare(rows: int, factors: int) -> Problem:
    """Exactly `rows` training rows: the table has as many more for validation and test."""
    names = [f"f{number}" for number in range(factors)]
    return Problem.prepare(
        simulate(round(rows / 0.6), factors),
        factors=names,
        split_on=names[:10],
        quantiles=QUANTILES,
        target="is_memorized",
        validation=0.2,
        test=0.2,
        seed=1024,
    )


def main() -> None:
    """Run the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--factors", type=int, default=14)
    parser.add_argument("--sample", type=int, default=40)
    arguments = parser.parse_args()
    prepare(2000, arguments.factors)  # compiles
    problem = prepare(arguments.rows, arguments.factors)
    partitions = all_partitions(10, len(QUANTILES))
    train = problem.parts["train"]

    times = []
    for part in (9, 90, len(partitions)):
        problem.known.clear()
        tracemalloc.start()
        started = time.perf_counter()
        score(problem, enumerate(partitions[:: len(partitions) // part]), "log_loss")
        times.append((part, time.perf_counter() - started, tracemalloc.get_traced_memory()[1] / 2**20))
        tracemalloc.stop()
    problem.known.clear()
    started = time.perf_counter()
    score(problem, enumerate(partitions), "log_loss")
    ours = time.perf_counter() - started

    rng = np.random.default_rng(0)
    sample = [partitions[number] for number in rng.choice(len(partitions), arguments.sample, replace=False)]
    started = time.perf_counter()
    for partition in sample:
        groups = partition.assign(train.codes)
        for code in range(3):
            LogisticRegression().fit(train.values[groups == code], train.labels[groups == code])
    direct = (time.perf_counter() - started) * len(partitions) / len(sample)

    worst = 0.0
    for partition in sample[:10]:
        groups = partition.assign(train.codes)
        for code, group in enumerate(partition.groups):
            exact = LogisticRegression(tol=1e-10, max_iter=100_000).fit(
                train.values[groups == code], train.labels[groups == code]
            )
            found = problem.known[group].fit
            worst = max(worst, np.abs(exact.coef_[0] - found.coefficients).max(), abs(exact.intercept_[0] - found.intercept))
    print(f"{len(train.labels):,} training rows x {arguments.factors} factors, {workers()} cores")
    print("| | partitions | seconds | |")
    print("|---|---|---|---|")
    print(f"| direct loop (from {len(sample)} partitions) | {len(partitions)} | {direct:.1f} | 1x |")
    print(f"| memtax | {len(partitions)} | {ours:.1f} | {direct / ours:.0f}x |")
    print()
    print(f"Largest difference of a coefficient from `LogisticRegression(tol=1e-10)`: {worst:.1e}")
    print()
    print("| partitions | peak memory of Python and numpy while scoring (MiB) |")
    print("|---|---|")
    for part, _, peak in times:
        print(f"| {part} | {peak:.1f} |")


if __name__ == "__main__":
    main()
