"""The forward pass: against its bare parts, by kernel, against cached generation, and in other dtypes."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import scoring
import torch

from memtax.lm.decoding import Decoding
from memtax.lm.placement import settled_dtype
from memtax.lm.scores import score
from on_gpu.plan import Size

Line = tuple[str, str, str]
GOALS = {"70m": ("0.6", "0.7"), "410m": ("0.9", "1.0")}
SEEN = {"70m": ("1.16", "2.08"), "410m": ("1.11", "1.38")}
"""On an H100, when every reduction was a pass of its own."""
_MATRIX = re.compile(r"gemm|cutlass|nvjet|xmma|cublas|_sm\d+_|aten::(addmm|mm|bmm|linear)$", re.IGNORECASE)
_ATTENTION = re.compile(r"flash|fmha|attention|sdpa", re.IGNORECASE)


def prepared(size: Size, shape: str, dtype: torch.dtype, batches: int) -> tuple[Any, list[list[int]], int]:
    """A model with random weights, random rows of 64 tokens, and rows per batch."""
    batch = size.pick(1024, 8)
    model = scoring.build(size.pick(shape, "tiny"), size.device, dtype)
    vocabulary = model.config.vocab_size
    generator = torch.Generator().manual_seed(1)
    count = batch * size.pick(batches, 2)
    return model, torch.randint(vocabulary, (count, 64), generator=generator).tolist(), batch


def pass_of(model: Any, rows: list[list[int]], batch: int, **options: Any) -> Callable[[], Any]:
    """One call of `score`, to its end."""

    def work() -> Any:
        found = score(model, rows, batch_tokens=batch * 64, **options)
        scoring.wait(model)
        return found

    return work


def score_rows(size: Size, shape: str) -> Iterator[Line]:
    """`score` with its options, in turns with the bare pass."""
    model, rows, batch = prepared(size, shape, torch.bfloat16, 8)
    work = {"bare": lambda: scoring.bare(model, rows, batch)}
    work |= {"plain": pass_of(model, rows, batch), "moments": pass_of(model, rows, batch, moments=True)}
    work |= {"all": pass_of(model, rows, batch, moments=True, ranks=True)}
    work |= {"top-k": pass_of(model, rows, batch, decoding=Decoding(0.7, 40))}
    times = scoring.measure(work, size.pick(7, 1))
    rate = len(rows) / times["plain"]
    yield f"bare pass, bf16, {len(rows):,} rows of 64 in batches of {batch:,}", f"{times['bare']:.3f} s", ""
    for name, told, goal, seen in (
        ("plain", "log-probabilities and decisions", *(each[0] for each in (GOALS[shape], SEEN[shape]))),
        ("moments", "and moments", *(each[1] for each in (GOALS[shape], SEEN[shape]))),
        ("all", "and moments and ranks", "", ""),
        ("top-k", "and temperature 0.7, top-k 40", "", ""),
    ):
        before = f" (before: {seen})" if seen else ""
        yield f"{told}, over the bare pass{before}", f"{times[name] / times['bare']:.2f}", goal
    yield "rows per second", f"{rate:,.0f}", ""


def kernel_shares(size: Size, shape: str) -> Iterator[Line]:
    """Share of the matrix products in the time of the device, and what else takes it."""
    from torch.profiler import ProfilerActivity, profile

    model, rows, batch = prepared(size, shape, torch.bfloat16, 4)
    for name, options in (("log-probabilities", {}), ("and moments", {"moments": True})):
        work = pass_of(model, rows, batch, **options)
        work()
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if size.device == "cuda" else [])]
        with profile(activities=activities) as profiler:
            work()
        times: Counter[str] = Counter()
        for event in profiler.key_averages():
            if size.device == "cuda" and "CUDA" not in str(event.device_type):
                continue
            if getattr(event, "is_user_annotation", False):
                continue
            on_device = getattr(event, "self_device_time_total", None) or getattr(event, "self_cuda_time_total", 0)
            times[event.key] += on_device if size.device == "cuda" else event.self_cpu_time_total
        total = sum(times.values()) or 1
        attention = sum(time for key, time in times.items() if _ATTENTION.search(key))
        matrix = sum(time for key, time in times.items() if _MATRIX.search(key) and not _ATTENTION.search(key))
        yield f"{name}: matrix products, of the device's time", f"{matrix / total:.0%}", "one pass over the logits beside them"
        yield f"{name}: attention", f"{attention / total:.0%}", ""
        for key, taken in times.most_common(8):
            yield f"{name}: {key[:90]}", f"{taken / total:.1%}", ""


def cached_generation(size: Size, shape: str) -> Iterator[Line]:
    """Against `generate` with its cache and a second pass for the perplexities."""
    model, rows, batch = prepared(size, shape, torch.bfloat16, 1)
    work = {"memtax": pass_of(model, rows, batch), "generate": lambda: scoring.cached(model, rows, batch)}
    times = scoring.measure(work, size.pick(3, 1))
    yield "cached generation and a second pass, over score", f"{times['generate'] / times['memtax']:.1f}", "7"
    yield "score", f"{times['memtax']:.3f} s", ""


def dtypes(size: Size, shape: str) -> Iterator[Line]:
    """float32, float32 with tf32 products, and bfloat16."""
    model, rows, batch = prepared(size, shape, torch.float32, 1)
    half = scoring.build(size.pick(shape, "tiny"), size.device, torch.bfloat16)

    def tf32() -> None:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        pass_of(model, rows, batch)()
        torch.set_float32_matmul_precision(before)

    work = {"float32": pass_of(model, rows, batch), "tf32": tf32, "bfloat16": pass_of(half, rows, batch)}
    times = scoring.measure(work, size.pick(3, 1))
    yield "what dtype auto is here", settled_dtype("auto"), "bfloat16"
    for name in ("float32", "tf32"):
        yield f"{name}, over bfloat16", f"{times[name] / times['bfloat16']:.2f}", ""
    plain, other = pass_of(model, rows, batch)(), pass_of(half, rows, batch)()
    difference = abs(plain.logprobs - other.logprobs)
    yield (
        "bfloat16: difference of a log-probability, median and largest",
        f"{_median(difference):.3f}, {difference.max():.2f}",
        "",
    )


def _median(values: Any) -> float:
    return float(sorted(values.tolist())[len(values) // 2])
