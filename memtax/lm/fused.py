"""The reduction of `memtax.lm.reduction` as one Triton kernel, which reads the logits once, in their own dtype.

Without it, every value takes passes of its own over float32 logits, which take far longer on an accelerator than the model's
matrix products. The kernel updates all sums while it goes over the vocabulary (Milakov & Gimelshein 2018), the moments too.
Every thread has sums and a largest logit of its own, which are combined after the last block: to combine them in each block
would take several barriers, at which threads wait instead of reading.

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
    # Triton compiles again for a number that is 1 or a multiple of 16.
    _jit_kernel = triton.jit(do_not_specialize=["suppressed"])
except (ImportError, AttributeError):  # a folder of this name in the working directory imports too
    triton = None

if TYPE_CHECKING:
    from memtax.lm.reduction import Wanted

WHY = ""
"""Why the kernel is not in use, for reports."""
_LANES, _WARPS = 256, 4
"""Groups of logits read at once, and warps: two groups per thread, so that two loads are under way. With all values wanted, the
kernel then takes 57 registers per thread on compute capability 9.0 (ptxas of Triton 3.6), which leaves room for 32 warps per
multiprocessor; four groups per thread take 118, which leaves room for 16."""
_BYTES = 16
"""Size of a group: the longest load of one thread."""


@functools.cache
def usable(device: torch.device) -> bool:
    """Whether the kernel compiles on a device and agrees there with plain arithmetic; tried once per process."""
    global WHY
    from memtax.lm.reduction import Wanted, reduce

    if triton is None or device.type not in ("cuda", "xpu"):
        WHY = "Triton is not installed" if triton is None else f"the device is {device.type}"
        return False
    logits = (torch.arange(4 * 5008, device=device) * 7919 % 997).reshape(4, 5008).float() / 64
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
    group = _BYTES // logits.element_size()
    suppressed = -1 if wanted.suppressed is None or wanted.suppressed >= vocabulary else wanted.suppressed
    if rows:
        with _on(logits.device):
            _kernel[(rows,)](
                logits,
                targets,
                *(out.get(name, unused) for name in ("logprobs", "match", "bad", "means", "variances", "ranks", "near")),
                logits.stride(0),
                vocabulary,
                suppressed,
                torch.finfo(logits.dtype).eps,
                LOGPROBS=wanted.logprobs,
                MOMENTS=wanted.moments,
                RANKS=wanted.ranks,
                NEAR=wanted.near,
                SUPPRESS=suppressed >= 0,
                LANES=min(_LANES, triton.next_power_of_2(-(-vocabulary // group))),
                GROUP=group,
                # Triton knows of multiples of 16 only, in elements and in bytes.
                ALIGNED=logits.stride(0) % 16 == 0 and logits.data_ptr() % _BYTES == 0,
                num_warps=_WARPS,
            )
    return out


if triton is not None:

    @_jit_kernel
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
        LOGPROBS: tl.constexpr,
        MOMENTS: tl.constexpr,
        RANKS: tl.constexpr,
        NEAR: tl.constexpr,
        SUPPRESS: tl.constexpr,
        LANES: tl.constexpr,
        GROUP: tl.constexpr,
        ALIGNED: tl.constexpr,
    ):
        """One row per program. Tokens with logit -inf have p = 0 and add nothing to the sums."""
        row = tl.program_id(0).to(tl.int64)
        logits += row * stride
        target = tl.load(targets + row)
        own = tl.load(logits + target).to(tl.float32)
        above = _next_above(own)
        offsets = _offsets(tl.arange(0, LANES)[:, None], tl.arange(0, GROUP)[None, :], LANES, GROUP, ALIGNED)
        peak = tl.full((LANES,), float("-inf"), tl.float32)  # largest logit that may be chosen
        front = peak  # largest of those before the target
        second = peak  # second largest of the groups' largest
        since = tl.zeros((LANES,), tl.int32)  # start of the block with `peak`
        ahead, nan = since, since
        total = tl.zeros((LANES,), tl.float32)
        first, squares = total, total
        for start in range(0, vocabulary, LANES * GROUP):
            # Reductions over axis 1 stay in a thread.
            at = start + offsets
            values = tl.load(logits + at, mask=at < vocabulary, other=float("-inf")).to(tl.float32)
            allowed = tl.where(at == suppressed, float("-inf"), values) if SUPPRESS else values
            largest = tl.max(allowed, 1)
            if RANKS:
                # Of equal logits, those before the target count.
                limit = tl.where(start + LANES * GROUP <= target, own, above)
                ahead += tl.sum((values >= limit).to(tl.int32), 1)
            if (start <= target) & (target < start + LANES * GROUP):
                front = tl.maximum(peak, tl.max(tl.where(at < target, allowed, float("-inf")), 1))
                ahead += tl.sum(((values == own) & (at < target)).to(tl.int32), 1)
            if NEAR:
                second = tl.maximum(second, tl.minimum(peak, largest))
                since = tl.where(largest > peak, start, since)
            new = tl.maximum(peak, largest)
            if LOGPROBS or MOMENTS:
                base = _finite(new)
                total, first, squares = _added(total, first, squares, peak - base, allowed - base[:, None], MOMENTS)
            else:
                nan += tl.sum((values != values).to(tl.int32), 1)
            peak = new
        best = tl.max(peak, 0)
        held = tl.load(logits + suppressed).to(tl.float32) if SUPPRESS else float("-inf")
        highest = tl.maximum(best, held)
        tl.store(match + row, (own == best) & (target != suppressed) & ((tl.max(front, 0) < own) | (target == 0)))
        if LOGPROBS or MOMENTS:
            base = _finite(highest)
            held_back = tl.where(tl.arange(0, LANES) == 0, held - base, float("-inf"))
            total, first, squares = _added(total, first, squares, peak - base, held_back[:, None], MOMENTS)
            total, first, squares = tl.sum(total, 0), tl.sum(first, 0), tl.sum(squares, 0)
            tl.store(bad + row, (total != total) | (tl.abs(highest) == float("inf")))
            _store_sums(logprobs + row, means + row, variances + row, own - highest, total, first, squares, LOGPROBS, MOMENTS)
        else:
            tl.store(bad + row, (tl.sum(nan, 0) > 0) | (tl.abs(highest) == float("inf")))
        if RANKS:
            tl.store(ranks + row, tl.sum(ahead, 0))
        if NEAR:
            runner_up = _runner_up(logits, vocabulary, suppressed, peak, second, since, LANES, GROUP, ALIGNED)
            tl.store(near + row, best - runner_up <= eps * tl.abs(best))

    @_jit
    def _store_sums(  # type: ignore[no-untyped-def]
        logprob, mean, variance, own, total, first, squares, LOGPROBS: tl.constexpr, MOMENTS: tl.constexpr
    ):
        """The values that come from the sums; `own` is the target's logit minus the largest."""
        if LOGPROBS:
            tl.store(logprob, own - tl.log(total))
        if MOMENTS:
            average = first / total
            tl.store(mean, average - tl.log(total))
            tl.store(variance, tl.maximum(squares / total - average * average, 0.0))

    @_jit
    def _runner_up(  # type: ignore[no-untyped-def]
        logits, vocabulary, suppressed, peak, second, since, LANES: tl.constexpr, GROUP: tl.constexpr, ALIGNED: tl.constexpr
    ):
        """The second largest logit: the largest one's group is read again, the others' largest are known."""
        lanes, places = tl.arange(0, LANES), tl.arange(0, GROUP)
        best = tl.max(peak, 0)
        lane = tl.min(tl.where(peak == best, lanes, LANES), 0)
        at = tl.sum(tl.where(lanes == lane, since, 0), 0) + _offsets(lane, places, LANES, GROUP, ALIGNED)
        values = tl.load(logits + at, mask=(at < vocabulary) & (at != suppressed), other=float("-inf")).to(tl.float32)
        place = tl.min(tl.where(values == best, places, GROUP), 0)
        own = tl.max(tl.where(places == place, float("-inf"), values), 0)
        others = tl.max(tl.maximum(second, tl.where(lanes == lane, float("-inf"), peak)), 0)
        return tl.maximum(own, others)

    @_jit
    def _offsets(lanes, places, LANES: tl.constexpr, GROUP: tl.constexpr, ALIGNED: tl.constexpr):  # type: ignore[no-untyped-def]
        """Places of a group in a block: consecutive if one load reads them, otherwise those of consecutive lanes are."""
        return lanes * GROUP + places if ALIGNED else places * LANES + lanes

    @_jit
    def _next_above(value):  # type: ignore[no-untyped-def]
        """The next larger float32."""
        bits = value.to(tl.int32, bitcast=True)
        bits = tl.where(value == 0, 1, tl.where(value > 0, bits + 1, bits - 1))
        return bits.to(tl.float32, bitcast=True)

    @_jit
    def _finite(peak):  # type: ignore[no-untyped-def]
        """The largest logit, or the lowest float32 while all are -inf."""
        return tl.maximum(peak, -3.4028234663852886e38)

    @_jit
    def _added(total, first, squares, moved, shifted, MOMENTS: tl.constexpr):  # type: ignore[no-untyped-def]
        """Add to the sums of exp(x), x exp(x) and x^2 exp(x) those over `shifted`, after adding `moved` to all former x.

        Both are bounded for the moments: differences of huge logits overflow, and 0 times -inf is NaN.
        """
        if not MOMENTS:
            return tl.exp(moved) * total + tl.sum(tl.exp(shifted), 1), first, squares
        moved = tl.maximum(moved, -1e30)
        shifted = tl.maximum(shifted, -1e30, propagate_nan=tl.PropagateNan.ALL)
        scale, powers = tl.exp(moved), tl.exp(shifted)
        # Products in this order: a power that underflows to 0 stays 0, however large the other factors are.
        squares = scale * squares + 2 * (scale * first) * moved + scale * total * moved * moved
        first = scale * first + scale * total * moved
        weighted = powers * shifted
        squares += tl.sum(weighted * shifted, 1)
        return scale * total + tl.sum(powers, 1), first + tl.sum(weighted, 1), squares
