"""Right: the fused reduction against the plain one, batches that do not fit, and decisions in 16 bits."""

import math
from collections.abc import Iterator
from typing import Any

import scoring
import torch

from memtax.lm import fused
from memtax.lm.memory import fitting
from memtax.lm.reduction import Wanted, reduce
from memtax.lm.scores import score
from on_gpu.plan import Size
from on_gpu.speed import Line, pass_of, prepared


def logits_of(kind: str, rows: int, vocabulary: int, device: str) -> torch.Tensor:
    """Logits with what can go wrong: random, tied, with -inf, and huge. Made on the device: a CPU takes seconds for each."""
    generator = torch.Generator(device).manual_seed(0)
    found = torch.randn(rows, vocabulary, generator=generator, device=device) * 4
    if kind == "tied":
        found = (found * 2).round() / 2
    if kind == "-inf":
        found[torch.rand(rows, vocabulary, generator=generator, device=device) < 0.4] = -math.inf
        found[:, 0] = 0.0
    if kind == "huge":
        found *= 1e4
    if kind == "largest":
        found = found.sign() * 3e38
        found[:, 0] = 3.3e38
    if kind == "tied across blocks":
        found[:, [vocabulary // 2, vocabulary - 1]] = 40.0
    return found


def equality(size: Size) -> Iterator[Line]:
    """Largest differences, and whether decisions and ranks are equal."""
    yield "fused reduction in use", "yes" if fused.usable(torch.device(size.device)) else f"no: {fused.WHY}", "yes"
    wanted = Wanted(moments=True, ranks=True, near=True)
    wrong = []
    for kind in ("random", "tied", "tied across blocks", "-inf", "huge", "largest", "odd vocabulary"):
        # Rows that begin at no multiple of 16 bytes are read in another way.
        vocabulary = size.pick(50_257, 501) if kind == "odd vocabulary" else size.pick(50_304, 512)
        for dtype in (torch.float32, torch.bfloat16):
            logits = logits_of(kind, size.pick(4096, 64), vocabulary, size.device).to(dtype)
            targets = torch.randint(logits.shape[1], (len(logits),), generator=torch.Generator().manual_seed(1))
            targets = torch.where(torch.arange(len(targets)) % 2 == 0, logits.argmax(-1).cpu(), targets).to(logits.device)
            ours = {name: values.cpu() for name, values in reduce(logits, targets, wanted).items()}
            plain = {name: values.cpu() for name, values in reduce(logits, targets, wanted, plain=True).items()}
            same = [name for name in ("match", "bad", "ranks", "near") if torch.equal(ours[name], plain[name])]
            # In float32 the plain reduction rounds the bound for near-ties.
            good = {"match", "bad", "ranks", *(("near",) if dtype == torch.bfloat16 else ())} <= set(same)
            told = "equal: " + ", ".join(same)
            for name in ("logprobs", "means", "variances"):
                both = ours[name].double(), plain[name].double()
                scale = both[1].abs().clamp(min=1)
                difference = torch.where(both[0] == both[1], 0.0, (both[0] - both[1]).abs() / scale).max()
                told += f"; {name} {float(difference):.0e}"
                good &= bool(difference <= 1e-5)
            case = f"{kind}, {str(dtype).removeprefix('torch.')}"
            wrong += [] if good else [case]
            yield case, told, "4 equal, 1e-5"
    if wrong:
        raise SystemExit(f"not equal: {'; '.join(wrong)}")


def out_of_memory(size: Size) -> Iterator[Line]:
    """A batch that does not fit is halved, and the scores are the same."""
    model, rows, batch = prepared(size, "70m", torch.bfloat16, 2)
    expected = score(model, rows, batch_tokens=batch * 64)
    if size.device == "cuda":
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        room = torch.cuda.memory_reserved() + 300 * 2**20
        torch.cuda.set_per_process_memory_fraction(min(room / total, 1.0))
    else:

        def refuse(module: Any, inputs: Any, kwargs: Any) -> None:
            if kwargs["input_ids"].numel() > batch * 64:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 TiB")

        model.base_model.register_forward_pre_hook(refuse, with_kwargs=True)
    found = score(model, rows)
    if size.device == "cuda":
        torch.cuda.set_per_process_memory_fraction(1.0)
    start = 65_536 if size.device == "cuda" else 4096
    used = fitting(model, "scores", start)
    yield "positions per batch at the start, and what fitted", f"{start:,}, {used:,}", "smaller"
    difference = abs(found.logprobs - expected.logprobs).max()
    changed = (found.match != expected.match).mean()
    yield "difference of a log-probability, and share of other decisions (bf16)", f"{difference:.2g}, {changed:.2%}", ""
    if used >= start:
        raise SystemExit("no batch was halved")


def near_ties(size: Size, shape: str) -> Iterator[Line]:
    """How often decisions in 16 bits differ from float32, on rows that the float32 model continues as they are."""
    model, rows, batch = prepared(size, shape, torch.float32, 1)
    rows = scoring.memorize(model, rows, 1.0)
    plain = pass_of(model, rows, batch)()
    after = plain.match.reshape(len(rows), 63)[:, 31:]
    yield "float32: positions of greedy continuations that are the argmax again", f"{after.mean():.4%}", ""
    for dtype in (torch.bfloat16, torch.float16):
        half = scoring.build(size.pick(shape, "tiny"), size.device, dtype)
        half.load_state_dict(model.state_dict())
        found = pass_of(half, rows, batch)()
        other = found.match != plain.match
        name = str(dtype).removeprefix("torch.")
        kept = found.match.reshape(len(rows), 63)[:, 31:]
        yield f"{name}: near-ties, of all positions", f"{found.near.mean():.3%}", ""
        yield f"{name}: decisions that differ from float32, of all positions", f"{other.mean():.3%}", ""
        yield f"{name}: of those, near-ties", f"{found.near[other].mean() if other.any() else 0:.0%}", ""
        lost = 1 - kept.all(1).mean() / max(after.all(1).mean(), 1e-9)
        yield f"{name}: memorized rows (32 of 32) that are lost", f"{lost:.2%}", ""
