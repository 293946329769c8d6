"""The reduction of `memtax.lm.reduction` as one Triton kernel, which reads the logits once, in their own dtype.

Without it, every value takes passes of its own over float32 logits, which take far longer on an accelerator than the model's
matrix products. The kernel updates all sums while it goes over the vocabulary (Milakov & Gimelshein 2018), the moments too.
Triton comes with CUDA builds of PyTorch; where it is missing or cannot compile, the plain reduction is used.
"""

import contextlib
import functools
from typing import TYPE_CHECKING, Any

import torch

try:
    import triton
    import triton.language as tl

    _jit = triton.jit
except (ImportError, AttributeError):  # a folder of this name in the working directory imports too
    triton = None

if TYPE_CHECKING:
    from memtax.lm.reduction import Wanted

WHY = ""
"""Why the kernel is not in use, for reports."""
_BLOCK = 4096
"""Logits of a row read at once."""


@functools.cache
def usable(device: torch.device) -> bool:
    """Whether the kernel compiles on a device and agrees there with plain arithmetic; tried once per process."""
    global WHY
    from memtax.lm.reduction import Wanted, reduce

    if triton is None or device.type not in ("cuda", "xpu"):
        WHY = "Triton is not installed" if triton is None else f"the device is {device.type}"
        return False
    logits = (torch.arange(4 * 5000, device=device) * 7919 % 997).reshape(4, 5000).float() / 64
    targets, wanted = torch.tensor([3, 4999, 11, 0], device=device), Wanted(moments=True, ranks=True, near=True)
    try:
        found, expected = reduce_rows(logits, targets, wanted), reduce(logits, targets, wanted, plain=True)
        close = all(torch.allclose(found[name].double(), expected[name].double(), 1e-4, 1e-4) for name in expected)
    except torch.OutOfMemoryError:
        raise  # It says nothing about the kernel: the batch is halved, and this is tried again.
    except Exception as error:  # no C compiler, an unsupported card, a driver that is too old: each raises its own type
        WHY = f"{type(error).__name__}: {error}"
        return False
    WHY = "" if close else "its values differ from the plain reduction's"
    return close


def _on(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Make the tensors' device the current one: Triton launches on that, and layers may be spread over several cards."""
    if device.type == "cpu":  # Triton's interpreter
        return contextlib.nullcontext()
    current: contextlib.AbstractContextManager[Any] = torch.get_device_module(device).device(device)
    return current


def reduce_rows(logits: torch.Tensor, targets: torch.Tensor, wanted: "Wanted") -> dict[str, torch.Tensor]:
    """As `memtax.lm.reduction.reduce`, without `decoded`.

    Args:
        logits: (rows, vocabulary), in any floating dtype of at most 32 bits.
        targets: (rows,), int64.
        wanted: values to compute.
    """
    rows, vocabulary = logits.shape
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    targets = targets.contiguous()
    columns = {name: dtype for name, dtype in wanted.columns.items() if name != "decoded"}
    out = {name: torch.empty(rows, dtype=dtype, device=logits.device) for name, dtype in columns.items()}
    unused = targets  # Never written to: the kernel stores only what is wanted.
    if rows:
        with _on(logits.device):
            _kernel[(rows,)](
                logits,
                targets,
                *(out.get(name, unused) for name in ("logprobs", "match", "bad", "means", "variances", "ranks", "near")),
                logits.stride(0),
                vocabulary,
                -1 if wanted.suppressed is None else wanted.suppressed,
                torch.finfo(logits.dtype).eps,
                SUMS=wanted.logprobs or wanted.moments,
                LOGPROBS=wanted.logprobs,
                MOMENTS=wanted.moments,
                RANKS=wanted.ranks,
                NEAR=wanted.near,
                BLOCK=min(_BLOCK, triton.next_power_of_2(vocabulary)),
                num_warps=8,
            )
    return out


if triton is not None:

    @_jit
    def _kernel(  # type: ignore[no-untyped-def]
        logits,
        targets,
        logprobs,
        match,
        bad,
        means,
        variances,
        ranks,
        near,
        stride,
        vocabulary,
        suppressed,
        eps,
        SUMS: tl.constexpr,
        LOGPROBS: tl.constexpr,
        MOMENTS: tl.constexpr,
        RANKS: tl.constexpr,
        NEAR: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        """One row per program. Tokens with logit -inf have p = 0 and add nothing to the sums."""
        row = tl.program_id(0).to(tl.int64)
        logits += row * stride
        target = tl.load(targets + row)
        own = tl.load(logits + target).to(tl.float32)
        least = float("-inf")
        peak = least  # largest logit, for the sums
        best = least  # largest logit that may be chosen, the first place that has it, and the second largest
        place = tl.full((), 0, tl.int32)
        second = least
        nan = tl.full((), 0, tl.int32)
        ahead = tl.full((), 0, tl.int32)
        total = 0.0
        first = 0.0
        squares = 0.0
        for start in range(0, vocabulary, BLOCK):
            at = start + tl.arange(0, BLOCK)
            inside = at < vocabulary
            values = tl.load(logits + at, mask=inside, other=least).to(tl.float32)
            nan += tl.sum((values != values).to(tl.int32), 0)
            allowed = tl.where(at == suppressed, least, values)
            block_best = tl.max(allowed, 0)
            block_place = tl.min(tl.where((allowed == block_best) & inside, at, vocabulary), 0)
            if NEAR:
                block_second = tl.max(tl.where(at == block_place, least, allowed), 0)
                second = tl.maximum(tl.maximum(second, block_second), tl.minimum(best, block_best))
            place = tl.where(block_best > best, block_place, place)
            best = tl.maximum(best, block_best)
            if RANKS:
                before = (values > own) | ((values == own) & (at < target))
                ahead += tl.sum((before & inside).to(tl.int32), 0)
            new = tl.maximum(peak, tl.max(values, 0))
            if SUMS:
                # Bounded: differences of huge logits overflow, and 0 times -inf is NaN. While all is -inf, the scale is 0.
                base = tl.where(new == least, 0.0, new)
                moved = tl.maximum(peak - base, -1e30)
                scale = tl.exp(moved)
                shifted = tl.maximum(values - base, -1e30)
                powers = tl.exp(shifted)
                if MOMENTS:
                    # Products in this order: a power that underflows to 0 stays 0, however large the other factors are.
                    squares = scale * squares + 2 * (scale * first) * moved + scale * total * moved * moved
                    first = scale * first + scale * total * moved
                    weighted = powers * shifted
                    first += tl.sum(weighted, 0)
                    squares += tl.sum(weighted * shifted, 0)
                total = scale * total + tl.sum(powers, 0)
            peak = new
        tl.store(match + row, (own == best) & (place == target))
        tl.store(bad + row, (nan > 0) | (peak == float("inf")) | (peak == least))
        if LOGPROBS:
            tl.store(logprobs + row, own - peak - tl.log(total))
        if MOMENTS:
            mean = first / total
            tl.store(means + row, mean - tl.log(total))
            tl.store(variances + row, tl.maximum(squares / total - mean * mean, 0.0))
        if RANKS:
            tl.store(ranks + row, ahead)
        if NEAR:
            tl.store(near + row, best - second <= eps * tl.abs(best))
