"""Counting: against tokengrams, against a bare loop, from 10^4 to 10^7 windows, and near-duplicates on natural text.

    pip install 'memtax[bench]'                    # tokengrams; without it the first table is left out, loudly
    python benchmarks/counting.py                  # everything, but memory, about ten minutes on two cores
    python benchmarks/counting.py --part windows   # one table: tokengrams, windows, default, linear, places, near, memory

Tokens are drawn from a Zipf law over 50,277 ids, in sequences of 2,049 as Pythia's; 1% of the sequences are copied over others,
so that windows are found. Natural text is the Python standard library's source, in tokens of a BPE trained on it; with
`--data FOLDER`, the texts of FOLDER/pile_samples with FOLDER/pythia_tokenizer.json. All rates are medians of rounds in
which the rivals take turns. `end to end` opens the file, cuts the windows, indexes and counts.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np

from memtax.corpus.opening import Reading, open_sources
from memtax.counting.counter import count, threads_available
from memtax.counting.index import WindowIndex
from memtax.counting.kernels import MULTIPLIER
from memtax.counting.near import NearIndex
from memtax.counting.totals import Query, Totals, add_block
from memtax.progress import set_quiet

LENGTH, VOCABULARY, PILE = 2049, 50_277, 300e9


@numba.njit(nogil=True)
def bare_loop(tokens: Any, offsets: Any, width: int, multiplier: np.uint64, power: np.uint64) -> np.uint64:
    """Only read the tokens and roll the hash of every window; the hashes are folded so that nothing is left out."""
    folded = np.uint64(0)
    for row in range(offsets.shape[0] - 1):
        start, stop = offsets[row], offsets[row + 1]
        h, leaving = np.uint64(0), np.uint64(0)
        for p in range(start, start + width - 1):
            h = h * multiplier + np.uint64(tokens[p])
        for p in range(start, stop - width + 1):
            h = h * multiplier + (np.uint64(tokens[p + width - 1]) - power * leaving)
            leaving = np.uint64(tokens[p])
            folded ^= h
    return folded


def zipf_file(path: Path, tokens: int, length: int = LENGTH) -> int:
    """Write the synthetic corpus; returns the tokens written (whole sequences)."""
    rng = np.random.default_rng(0)
    rows = tokens // length
    weights = 1 / np.arange(1, VOCABULARY + 1) ** 1.05
    edges = np.cumsum(weights / weights.sum())
    with path.open("wb") as file:
        kept = None
        for start in range(0, rows, 4096):
            here = min(4096, rows - start)
            block = np.searchsorted(edges, rng.random((here, length), np.float32)).clip(0, VOCABULARY - 1).astype(np.uint16)
            if kept is not None:
                block[: here // 100] = kept[: here // 100]
            kept = block
            block.tofile(file)
    return rows * length


def round_times(rivals: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each rival, sorted; they take turns, after one round to compile and to warm the caches."""
    times: dict[str, list[float]] = {name: [] for name in rivals}
    for number in range(rounds + 1):
        for name, run in rivals.items():
            start = time.perf_counter()
            run()
            if number:
                times[name].append(time.perf_counter() - start)
    return {name: sorted(values) for name, values in times.items()}


def median_times(rivals: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each rival."""
    return {name: values[len(values) // 2] for name, values in round_times(rivals, rounds).items()}


def blocks_of(path: Path, length: int = LENGTH) -> list[Any]:
    """All blocks of a headerless file."""
    corpus = open_sources([str(path)], Reading(sequence_length=length))
    return [block for shard in corpus.shards(2**23) for block in shard.blocks()]


def windows_of(path: Path, number: int, own: int | None = None) -> np.ndarray[Any, Any]:
    """Windows of 32 tokens from evenly spaced places of the corpus, within sequences.

    With `own`, only that many; the others are drawn from the same law, as from sequences of another dataset.
    """
    if own is not None and own < number:
        edges = np.cumsum(1 / np.arange(1, VOCABULARY + 1) ** 1.05)
        draws = np.random.default_rng(1).random((number - own, 32), np.float32) * edges[-1]
        others = np.searchsorted(edges.astype(np.float32), draws).clip(0, VOCABULARY - 1).astype(np.int32)
        return np.concatenate([windows_of(path, own), others])
    rows = np.memmap(path, np.uint16, "r").reshape(-1, LENGTH)
    places = np.linspace(0, len(rows) * (LENGTH - 32) - 1, number).astype(np.int64)
    found = np.empty((number, 32), np.int32)
    for start in range(0, number, 100_000):
        here = places[start : start + 100_000]
        found[start : start + len(here)] = rows[here // (LENGTH - 32)][
            np.arange(len(here))[:, None], (here % (LENGTH - 32))[:, None] + np.arange(32)
        ]
    return found


def pass_over(blocks: list[Any], query: Query) -> Callable[[], Any]:
    """One pass over the blocks in this thread."""
    totals = Totals.zero(query)
    return lambda: [add_block(query, totals, block) for block in blocks]


def part_tokengrams(folder: Path, tokens: int, rounds: int) -> None:
    """Build an index with tokengrams and count 10^5 windows with it; count them with memtax."""
    try:
        from tokengrams import MemmapIndex
    except ImportError:
        print("tokengrams is not installed (pip install 'memtax[bench]'): no comparison with it\n", file=sys.stderr)
        return
    path = folder / "corpus.bin"
    tokens = zipf_file(path, tokens)
    windows = windows_of(path, 100_000)
    queries = windows.tolist()

    def theirs() -> tuple[list[int], float]:
        table = folder / "corpus.idx-tokengrams"
        table.unlink(missing_ok=True)
        start = time.perf_counter()
        index = MemmapIndex.build(str(path), str(table), vocab=2**16)
        built = time.perf_counter() - start
        counts = [index.count(query) for query in queries]
        return counts, built

    def ours() -> Any:
        return count(open_sources([str(path)], Reading(sequence_length=LENGTH)), windows, vocabulary_size=VOCABULARY)

    ours()
    found = [[], []]
    for _ in range(rounds):
        start = time.perf_counter()
        mine = ours().window_counts
        found[0].append(time.perf_counter() - start)
        start = time.perf_counter()
        other, built = theirs()
        found[1].append(time.perf_counter() - start)
    assert mine.tolist() == other, "the counts differ"
    fast, slow = (sorted(values)[len(values) // 2] for values in found)
    size = (folder / "corpus.idx-tokengrams").stat().st_size / 2**20
    print(f"### Against tokengrams: {tokens / 1e6:.0f} M tokens, 10^5 windows, {threads_available()} threads, end to end\n")
    print("| | seconds | index on disk |\n|---|---|---|")
    print(f"| tokengrams (index {built:.1f} s of it) | {slow:.2f} | {size:.0f} MiB |")
    print(f"| memtax | {fast:.3f} | none |\n\nSame counts; memtax is {slow / fast:.0f} times faster (bar: 25).\n")


def part_windows(folder: Path, tokens: int, rounds: int) -> None:
    """One thread, from 10^4 to 10^7 windows, beside the bare loop."""
    path = folder / "corpus.bin"
    tokens = zipf_file(path, tokens)
    blocks = blocks_of(path)
    power = np.uint64(pow(MULTIPLIER, 32, 2**64))
    rivals: dict[str, Callable[[], Any]] = {
        "bare loop": lambda: [bare_loop(b.tokens, b.offsets, 32, np.uint64(MULTIPLIER), power) for b in blocks]
    }
    build: dict[str, float] = {}

    rivals["frequencies only"] = pass_over(blocks, Query.of([], vocabulary_size=VOCABULARY))
    cases = [(f"10^{e} windows", 10**e, 10_000) for e in (4, 5, 6, 7)]
    cases += [(f"10^{e} windows, all of them from the corpus", 10**e, 10**e) for e in (5, 6, 7)]
    for name, number, own in cases:
        index = WindowIndex(windows_of(path, number, own))
        start = time.perf_counter()
        index.tables(np.dtype(np.uint16))
        build[name] = time.perf_counter() - start
        rivals[name] = pass_over(blocks, Query((index,), vocabulary_size=VOCABULARY))
    seconds = median_times(rivals, rounds)
    print(f"### One core, {tokens / 1e6:.0f} M tokens: frequencies and windows of 32 tokens together\n")
    print("10^4 windows are from the corpus, the others from sequences of the same law, where not said otherwise.")
    print("10^7 windows from 10^8 tokens cover all of the corpus: every look-up hits, which is the worst case.\n")
    print("| | M tokens/s per core | of the bare loop | times 10^4 | index built in | the Pile (300 G tokens), one core |")
    print("|---|---|---|---|---|---|")
    for name, each in seconds.items():
        built = f"{build[name]:.2f} s" if name in build else ""
        times = f"{each / seconds['10^4 windows']:.2f}" if name in build else ""
        share = f"{seconds['bare loop'] / each:.0%}"
        print(f"| {name} | {tokens / each / 1e6:.0f} | {share} | {times} | {built} | {PILE * each / tokens / 60:.1f} min |")
    print("\nBars: at least 60% of the bare loop at 10^5; at most 3 times from 10^4 to 10^7.\n")


def part_default(folder: Path, rounds: int) -> None:
    """One thread, the windows that `memtax count` asks for by itself: 32:64 of sequences of 64 tokens of the corpus."""
    path = folder / "sequences.bin"
    tokens = zipf_file(path, 640_000_000, 64)
    blocks = blocks_of(path, 64)
    rows = np.memmap(path, np.uint16, "r").reshape(-1, 64)
    rivals: dict[str, Callable[[], Any]] = {}
    for number in (10**4, 10**5, 10**6, 10**7):
        index = WindowIndex(rows[np.linspace(0, len(rows) - 1, number).astype(np.int64), 32:].astype(np.int32))
        index.tables(np.dtype(np.uint16))
        rivals[f"{number:,}"] = pass_over(blocks, Query((index,), vocabulary_size=VOCABULARY))
    seconds = median_times(rivals, rounds)
    print(f"### One core, the default windows: 32:64 of sequences of 64 tokens, {tokens / 1e6:.0f} M tokens\n")
    print("| windows | M tokens/s per core | times 10^4 |\n|---|---|---|")
    for name, each in seconds.items():
        print(f"| {name} | {tokens / each / 1e6:.0f} | {each / seconds['10,000']:.2f} |")
    print("\nBar: at most 3 times from 10^4 to 10^7.\n")
    path.unlink()


def part_linear(folder: Path, tokens: int, rounds: int) -> None:
    """All threads, end to end from the file, for corpora that double."""
    print(f"### All threads ({threads_available()}), end to end from a file in the page cache, 10^5 windows\n")
    print("| M tokens | seconds | M tokens/s |\n|---|---|---|")
    path = folder / "corpus.bin"
    for size in (tokens // 4, tokens // 2, tokens, 2 * tokens):
        written = zipf_file(path, size)
        windows = windows_of(path, 100_000)
        how = Reading(sequence_length=LENGTH)
        run = {"": lambda w=windows, h=how: count(open_sources([str(path)], h), w, vocabulary_size=VOCABULARY)}
        seconds = median_times(run, rounds)[""]
        print(f"| {written / 1e6:.0f} | {seconds:.3f} | {written / seconds / 1e6:.0f} |")
    print()


def part_places(folder: Path, tokens: int, rounds: int) -> None:
    """What places cost in the same pass: one thread, end to end, 10^5 windows, few or all of them from the corpus.

    The best of the rounds is compared, which other work on the machine disturbs least.
    """
    path = folder / "corpus.bin"
    tokens = zipf_file(path, tokens)
    how = Reading(sequence_length=LENGTH)
    print(f"### Places: 10^5 windows, {tokens / 1e6:.0f} M tokens, one thread, end to end\n")
    print("| windows from the corpus | places | seconds | times without |\n|---|---|---|---|")
    for own in (10_000, 100_000):
        windows = windows_of(path, 100_000, own)

        def run(places: int, asked: Any = windows) -> Any:
            corpus = open_sources([str(path)], how)
            return count(corpus, asked, vocabulary_size=VOCABULARY, threads=1, places=places)

        seconds = round_times({str(n): lambda n=n: run(n) for n in (0, 1, 3, 10)}, rounds)
        for name, (best, *_) in seconds.items():
            print(f"| {own:,} | {name} | {best:.3f} | {best / seconds['0'][0]:.2f} |")
    print("\nBar: at most 1.3 times.\n")


def part_memory(folder: Path) -> None:
    """Anonymous memory at the peak while 2,000 M tokens (a file of 4 GB) and 200 M are counted, with 10^6 windows."""
    print(f"### Memory: 10^6 windows of 32 tokens, sequences of 2,000, {threads_available()} threads\n")
    print("| M tokens | seconds | anonymous memory at the peak, MiB |\n|---|---|---|")
    path = folder / "large.bin"
    for size in (200_000_000, 2_000_000_000):
        written = zipf_file(path, size, 2000)
        rows = np.memmap(path, np.uint16, "r").reshape(-1, 2000)
        places = np.linspace(0, 10 * len(rows) - 1, 10**6).astype(np.int64)
        windows = np.stack([rows[places // 10, places % 10 * 190 + j] for j in range(32)], axis=1).astype(np.int32)
        del rows
        peaks, ended = [_anonymous()], threading.Event()
        watch = threading.Thread(target=_sample, args=(peaks, ended))
        watch.start()
        start = time.perf_counter()
        count(open_sources([str(path)], Reading(sequence_length=2000)), windows, vocabulary_size=VOCABULARY)
        seconds = time.perf_counter() - start
        ended.set()
        watch.join()
        print(f"| {written / 1e6:.0f} | {seconds:.1f} | {max(peaks):.0f} |")
    path.unlink()
    print("\nBar: under 1,536 MiB at 2,000 M tokens.\n")


def _anonymous() -> float:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) / 1024


def _sample(peaks: list[float], ended: threading.Event) -> None:
    while not ended.wait(0.05):
        peaks.append(_anonymous())


def natural(data: Path | None) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], str]:
    """Tokens and offsets of natural text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    if data is not None:
        files = sorted((data / "pile_samples").glob("*.jsonl"))
        texts = [str(next(iter(_texts(json.loads(line))))) for file in files for line in file.open(encoding="utf-8")]
        tokenizer, what = Tokenizer.from_file(str(data / "pythia_tokenizer.json")), "Pile samples, Pythia's tokenizer"
    else:
        texts = [p.read_text("utf-8", "replace") for p in sorted(Path(os.__file__).parent.rglob("*.py"))]
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.train_from_iterator(texts[::10], trainers.BpeTrainer(vocab_size=16_000, show_progress=False))
        what = "the Python library's sources (site-packages too), BPE of 16,000"
    rows = [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    return np.fromiter((token for row in rows for token in row), np.uint16, int(offsets[-1])), offsets, what


def _texts(row: Any) -> list[str]:
    return [row] if isinstance(row, str) else [value for value in row.values() if isinstance(value, str)]


def part_near(folder: Path, rounds: int, data: Path | None) -> None:
    """Near-duplicates (e = 3 of 32) beside the exact pass, one thread, 10^5 windows."""
    from memtax.corpus.contract import Block

    tokens, offsets, what = natural(data)
    run = Block(np.zeros(2**21, np.uint16), np.array([0, 2**21], np.int64))
    rng = np.random.default_rng(0)
    long = np.flatnonzero(np.diff(offsets) >= 64)
    starts = np.concatenate([np.arange(offsets[row], offsets[row + 1] - 32, 32) for row in long])
    places = rng.choice(starts, min(100_000, len(starts)), replace=False)
    windows = tokens[places[:, None] + np.arange(32)].astype(np.int32)
    windows[0] = 0
    windows[1, 1:] = 0
    cases = {what: [Block(tokens, offsets)], "one token repeated": [run]}
    print(f"### Near-duplicates: up to 3 of 32 tokens substituted, {len(windows):,} windows of natural text, one core\n")
    print("| corpus | M tokens | exact, M tokens/s | near, M tokens/s | near / exact |\n|---|---|---|---|---|")
    for name, blocks in cases.items():
        exact = Query((WindowIndex(windows),), vocabulary_size=2**16)
        near = NearIndex(windows, 3)
        totals, found = Totals.zero(exact), np.zeros(near.size, np.int64)
        rivals = {
            "exact": lambda q=exact, t=totals, b=blocks: [add_block(q, t, each) for each in b],
            "near": lambda n=near, f=found, b=blocks: [n.scan(each, f) for each in b],
        }
        seconds = median_times(rivals, rounds)
        size = sum(len(block.tokens) for block in blocks)
        rates = " | ".join(f"{size / each / 1e6:.0f}" for each in seconds.values())
        print(f"| {name} | {size / 1e6:.1f} | {rates} | {seconds['near'] / seconds['exact']:.1f} |")
    print("\nBar: at most 10 times on natural text.\n")


def main() -> None:
    """Run the measurements and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--part", choices=("tokengrams", "windows", "default", "linear", "places", "near", "memory"), action="append"
    )
    parser.add_argument("--tokens", type=int, default=100_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, help="folder with pile_samples/ and pythia_tokenizer.json")
    arguments = parser.parse_args()
    set_quiet(True)
    parts = arguments.part or ["windows", "default", "linear", "places", "near", "tokengrams"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "windows" in parts:
            part_windows(folder, arguments.tokens, arguments.rounds)
        if "default" in parts:
            part_default(folder, arguments.rounds)
        if "linear" in parts:
            part_linear(folder, arguments.tokens, arguments.rounds)
        if "places" in parts:
            part_places(folder, arguments.tokens, arguments.rounds)
        if "memory" in parts:
            part_memory(folder)
        if "near" in parts:
            part_near(folder, arguments.rounds, arguments.data)
        if "tokengrams" in parts:
            part_tokengrams(folder, arguments.tokens, 1)


if __name__ == "__main__":
    main()
