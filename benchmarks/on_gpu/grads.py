"""Gradients: alignment and DataInf, as in `benchmarks/gradients.py`."""

import functools
import time
from collections.abc import Iterator
from typing import Any

import gradients
import numpy as np
import torch

from memtax.attribution.influence_functions import from_products, influence
from memtax.lm.gradients import capture
from on_gpu.plan import Size
from on_gpu.speed import Line


def peak_of(work: Any, device: str) -> float:
    """MiB above what was allocated before, on a card."""
    if device != "cuda":
        work()
        return float("nan")
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def alignment(size: Size) -> Iterator[Line]:
    """64 texts with 3 paraphrases: full gradients a text, memtax, and the bare pass, in turns."""
    model = size.pick(gradients.pythia_70m, gradients.pythia_tiny)(size.device)
    data = gradients.texts(size.pick(64, 2), size.pick(64, 16))
    batches = size.pick((64, 256), (4,))
    ways: dict[str, Any] = {f"bare {batch}": functools.partial(gradients.bare, model, data, batch) for batch in batches}
    ways |= {"memtax": lambda: gradients.kernels(model, data), "reference": lambda: gradients.reference(model, data)}
    for way in ways.values():
        way()
    seconds, results = gradients.timed(ways, size.pick(3, 1))
    least = min(taken for name, taken in seconds.items() if name.startswith("bare"))
    yield f"a backward pass per text, over memtax ({len(data)} texts)", f"{seconds['reference'] / seconds['memtax']:.1f}", "25"
    yield "memtax, over the bare pass", f"{seconds['memtax'] / least:.2f}", "1.5"
    difference = np.abs(np.subtract(results["memtax"], results["reference"])).max()
    yield "largest difference of an alignment", f"{difference:.1e}", "1e-4"
    budget = "5,120 MiB of errors, and activations"  # As docs/guides/gpu.md states it.
    for name, way in ways.items():
        yield f"peak above the weights: {name}", f"{peak_of(way, size.device):,.0f} MiB", budget if name == "memtax" else ""


def datainf(size: Size) -> Iterator[Line]:
    """1,000 x 200 texts, LoRA: memtax, and one backward pass per example with the loop over pairs (a part, scaled)."""
    train_count, test_count = size.pick((1000, 200), (12, 4))
    model = gradients.adapted(size.device)
    generator = torch.Generator().manual_seed(2)
    rows = torch.randint(8192, (train_count + test_count, size.pick(64, 16)), generator=generator).tolist()
    train, test = rows[:train_count], rows[train_count:]
    influence(model, train[:8], test[:4], methods=["datainf"])
    gradients.synchronize()
    started = time.perf_counter()
    ours, theirs = capture(model, train, parameters="lora"), capture(model, test, parameters="lora")
    has = np.ones(train_count, bool), np.ones(test_count, bool)
    found = from_products(["datainf"], ours.gram(), ours.gram(theirs), ours.sizes, has)["datainf"].values
    fast = time.perf_counter() - started
    yield f"memtax, {train_count:,} x {test_count}", f"{fast:.2f} s", "0.3 s"
    few = size.pick(100, 12)
    gradients.synchronize()
    started = time.perf_counter()
    passes = gradients.backward_passes(model, [*train[:few], *test[:2]])
    gradients.synchronize()
    slow = (time.perf_counter() - started) * (train_count + test_count) / (few + 2)
    head, tail = ({name: values[part].cpu() for name, values in passes.items()} for part in (slice(few), slice(few, None)))
    started = time.perf_counter()
    gradients.pair_loop(head, tail, 2)
    # Both loops of DataInf go over all training examples: the time grows with their number, and with the test examples.
    slow += (time.perf_counter() - started) * train_count / few * test_count / 2
    yield (
        f"one backward pass per example, loop over pairs (from {few} x 2, scaled)",
        f"{slow:.1f} s, {slow / fast:,.0f} times",
        "",
    )
    yield "all influences are finite", str(bool(np.isfinite(found).all())), "True"
