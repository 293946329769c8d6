"""Property filters: rows a second of each, semantic counting against a bare product and faiss, textual matching against a loop.

    python benchmarks/filters.py [--rows 20000] [--rounds 3] [--classifier FOLDER]

Everything runs interleaved in one process on the same cores; rates are the best of the rounds. faiss is compared if it is
installed (`pip install faiss-cpu`). GFLOP/s count 2 x rows x rows x width for every method, whatever it skips.
"""

import argparse
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from memtax.filters import embedding_pairs as neighbours
from memtax.filters import filter_class
from memtax.filters.textual_matches import similar

WIDTH = 384


def texts_at_hand(rows: int) -> list[str]:
    """300-character pieces of the standard library."""
    root = Path(importlib.util.__file__).parent.parent
    joined = "".join(path.read_text(encoding="utf-8", errors="replace") for path in sorted(root.glob("*.py")))
    return [joined[300 * row : 300 * row + 300] for row in range(min(rows, len(joined) // 300))]


def embeddings(rows: int, seed: int = 0) -> np.ndarray:
    """Unit vectors, a quarter of them in clusters around a twentieth as many centres, as near-copies in a corpus are."""
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(rows, WIDTH)).astype(np.float32)
    centres = generator.normal(size=(rows // 20, WIDTH)).astype(np.float32)
    vectors[: rows // 4] = centres[generator.integers(0, len(centres), rows // 4)] + 0.35 * vectors[: rows // 4]
    vectors = vectors[generator.permutation(rows)]
    return neighbours.unit_vectors(vectors, "the benchmark")


def best(methods: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Least seconds of each method; the methods take turns."""
    seconds = dict.fromkeys(methods, float("inf"))
    for _ in range(rounds):
        for name, method in methods.items():
            started = time.perf_counter()
            method()
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    return seconds


def bare_product(left: torch.Tensor, right: torch.Tensor, block: int = 4096) -> None:
    """Nothing but the product, in blocks, each thrown away."""
    for row in range(0, len(left), block):
        for column in range(0, len(right), block):
            left[row : row + block] @ right[column : column + block].T


def semantic(rows: int, rounds: int) -> None:
    """Counting against products and faiss."""
    vectors = embeddings(rows)
    tensors = {dtype: torch.from_numpy(vectors).to(getattr(torch, dtype)) for dtype in ("float32", "bfloat16")}
    prepared = {dtype: neighbours.prepare(vectors, rows, dtype, "cpu") for dtype in tensors}
    methods: dict[str, Callable[[], object]] = {}
    for dtype in tensors:
        methods[f"bare product {dtype}"] = lambda dtype=dtype: bare_product(tensors[dtype], tensors[dtype])
        methods[f"memtax {dtype}"] = lambda dtype=dtype: neighbours.count_matches(vectors, prepared[dtype])
    methods["memtax with itself"] = lambda: neighbours.count_matches(vectors, device="cpu")
    counts = [neighbours.count_matches(vectors, each) for each in prepared.values()]
    assert (counts[0] == counts[1]).all()
    assert (neighbours.count_matches(vectors, device="cpu") + 1 == counts[0]).all()
    if importlib.util.find_spec("faiss"):
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())
        index = faiss.IndexFlatIP(WIDTH)
        index.add(vectors)
        blocks = [vectors[at : at + 4096] for at in range(0, rows, 4096)]
        methods["faiss range search"] = lambda: [index.range_search(block, 0.8) for block in blocks]
    seconds = best(methods, rounds)
    work = 2 * rows * rows * WIDTH / 1e9
    base = seconds["bare product float32"]
    print(f"\nSemantic counting at cosine >= 0.8 and 0.9, {rows:,} x {rows:,} x {WIDTH}, {torch.get_num_threads()} threads\n")
    print(f"pairs at 0.8: {int(counts[0][:, 0].sum()):,}; faster format here: {neighbours.faster_format('cpu')}\n")
    print("| method | seconds | GFLOP/s | against a bare float32 product |\n|---|---|---|---|")
    for name, value in seconds.items():
        print(f"| {name} | {value:.2f} | {work / value:,.0f} | {base / value:.2f} |")


def textual(rounds: int, pairs: int = 200_000) -> None:
    """Levenshtein distances of candidate pairs against a loop."""
    from rapidfuzz.distance import Levenshtein

    prompts = [text[:120] for text in texts_at_hand(5000)]
    generator = np.random.default_rng(0)
    left = [prompts[row] for row in generator.integers(0, len(prompts), pairs)]
    # Half of the candidates are the same prompt with a few characters changed, as templates are.
    right = [text[:40] + str(at) + text[46:] if at % 2 else prompts[at % len(prompts)] for at, text in enumerate(left)]

    def loop() -> list[bool]:
        return [0 < Levenshtein.distance(a, b) < 20 for a, b in zip(left, right, strict=True)]

    assert similar(left, right).tolist() == loop()
    seconds = best({"Python loop over Levenshtein.distance": loop, "memtax": lambda: similar(left, right)}, rounds)
    slow = seconds["Python loop over Levenshtein.distance"]
    print(f"\nTextual matching, {pairs:,} candidate pairs of prompts of 120 characters\n")
    print("| method | pairs per second | against the loop |\n|---|---|---|")
    for name, value in seconds.items():
        print(f"| {name} | {pairs / value:,.0f} | {slow / value:.1f} |")


def every_filter(rounds: int, classifier: str | None) -> None:
    """Rows a second of the filters that need no counts of a corpus."""
    import datasets

    texts = texts_at_hand(2000)
    batch = {"sequence_id": list(range(len(texts))), "text": texts, "prompt_text": [text[:120] for text in texts]}
    print(f"\nRows a second, {len(texts):,} pieces of 300 characters of the standard library, one call\n")
    print("| filter | rows per second |\n|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        filters = {name: filter_class(name)() for name in ("templates", "compressibility", "embeddings")}
        batch |= filters["embeddings"](batch)
        datasets.Dataset.from_dict(batch).save_to_disk(Path(folder) / "sample")
        for name in ("semantic_matches", "textual_matches"):
            filters[name] = filter_class(name)(sample=str(Path(folder) / "sample"), embedded=True)
        if classifier:
            filters["code_vs_nl"] = filter_class("code_vs_nl")(model=classifier)
        for name, each in filters.items():
            each({column: values[:50] for column, values in batch.items()})
            took = best({name: lambda each=each: each(batch)}, 1 if name in ("embeddings", "code_vs_nl") else rounds)
            print(f"| {name} | {len(texts) / took[name]:,.0f} |")


def main() -> None:
    """Run the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--classifier", help="folder of a classifier from training/train_code_vs_nl.py")
    arguments = parser.parse_args()
    semantic(arguments.rows, arguments.rounds)
    textual(arguments.rounds)
    every_filter(arguments.rounds, arguments.classifier)


if __name__ == "__main__":
    sys.exit(main())
