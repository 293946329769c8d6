"""Reduction of logits to a few numbers per token, in blocks of rows so that passes over the vocabulary stay in the cache."""

from dataclasses import dataclass

import torch

from memtax.lm import fused
from memtax.lm.decoding import Decoding

_ROWS_ON_ACCELERATOR = 4096
_FEWEST_ROWS, _MOST_ROWS, _LOGITS_IN_CACHE = 16, 2048, 2**18
"""On a CPU, as many rows are reduced at once as fit into the cache; one thread processes each row, so that values are the
same for any number of rows."""


@dataclass(frozen=True)
class Wanted:
    """Values to compute from the logits in addition to the argmax match.

    Attributes:
        logprobs: log-probability of the token.
        moments: mean and variance over the vocabulary of log p under p.
        ranks: number of logits that rank before the token's.
        decoding: log-probability of the token under a sampling scheme.
        suppressed: a token id that greedy decoding must not choose (its probability is kept), or None.
        near: whether the two largest logits differ by no more than the rounding of their dtype.
    """

    logprobs: bool = True
    moments: bool = False
    ranks: bool = False
    decoding: Decoding | None = None
    suppressed: int | None = None
    near: bool = False

    @property
    def columns(self) -> dict[str, torch.dtype]:
        """Names and dtypes of the values that `reduce` returns."""
        floats = [
            *(("logprobs",) if self.logprobs else ()),
            *(("means", "variances") if self.moments else ()),
            *(("decoded",) if self.decoding else ()),
        ]
        flags = ("match", "bad", *(("near",) if self.near else ()))
        found = {**dict.fromkeys(flags, torch.bool), **dict.fromkeys(floats, torch.float32)}
        return {**found, **({"ranks": torch.int32} if self.ranks else {})}


def reduce(logits: torch.Tensor, targets: torch.Tensor, wanted: Wanted, plain: bool = False) -> dict[str, torch.Tensor]:
    """Compute the requested values from the logits, on an accelerator with the kernel of `memtax.lm.fused` if it is usable.

    Args:
        logits: (rows, vocabulary), in any floating dtype; reduced in float32.
        targets: (rows,), the tokens that the logits predict.
        wanted: values to compute.
        plain: do not use the kernel.

    Returns:
        Name to (rows,), with the names of `wanted.columns`. `bad` marks rows whose logits are NaN or infinite.
    """
    if not plain and logits.dtype != torch.float64 and fused.usable(logits.device):
        found = fused.reduce_rows(logits, targets, wanted)
        if wanted.decoding is None:
            return found
        return found | _in_blocks(logits, targets, Wanted(logprobs=False, decoding=wanted.decoding), {"decoded"})
    return _in_blocks(logits, targets, wanted, set(wanted.columns))


def _in_blocks(logits: torch.Tensor, targets: torch.Tensor, wanted: Wanted, names: set[str]) -> dict[str, torch.Tensor]:
    """The plain reduction: values of these names."""
    size = _rows_at_once(logits)
    columns = {name: dtype for name, dtype in wanted.columns.items() if name in names}
    out = {name: torch.empty(len(targets), dtype=dtype, device=logits.device) for name, dtype in columns.items()}
    # Two buffers are reused throughout: allocating new ones costs more than the arithmetic.
    work = [torch.empty((min(size, len(targets)), logits.shape[-1]), device=logits.device) for _ in range(2)]
    for start in range(0, len(targets), size):
        rows = slice(start, start + size)
        block = logits[rows].float()
        if names == {"decoded"}:
            assert wanted.decoding is not None
            out["decoded"][rows] = wanted.decoding.logprobs(block, targets[rows])
            continue
        found = _block(block, targets[rows, None], wanted, *(buffer[: len(block)] for buffer in work))
        for name, values in found.items():
            out[name][rows] = values
        if wanted.near:
            out["near"][rows] = _near(block, torch.finfo(logits.dtype).eps, wanted.suppressed)
    return out


def _rows_at_once(logits: torch.Tensor) -> int:
    if logits.device.type != "cpu":
        return _ROWS_ON_ACCELERATOR
    return max(min(_LOGITS_IN_CACHE // logits.shape[-1], _MOST_ROWS), _FEWEST_ROWS)


def _block(
    logits: torch.Tensor, targets: torch.Tensor, wanted: Wanted, shifted: torch.Tensor, powers: torch.Tensor
) -> dict[str, torch.Tensor]:
    """One block: logits (rows, vocabulary), targets (rows, 1), and two buffers of the logits' shape."""
    own = logits.gather(-1, targets)
    peak = logits.amax(-1, keepdim=True)
    found = {"match": _match(logits, targets, own, peak, wanted.suppressed), "bad": ~peak.isfinite().squeeze(-1)}
    if wanted.logprobs or wanted.moments:
        torch.sub(logits, peak, out=shifted)
        torch.exp(shifted, out=powers)
        total = powers.sum(-1)
        if wanted.logprobs:
            found["logprobs"] = (own - peak).squeeze(-1) - total.log()
        if wanted.moments:
            # Excluded tokens have logit -inf and p = 0: they add nothing, but 0 times -inf would be NaN. On an accelerator,
            # finding out whether there are any would wait for it.
            certain = logits.device.type != "cpu"
            if certain:
                shifted.clamp_(min=torch.finfo(shifted.dtype).min / 4)
            first = powers.mul_(shifted).sum(-1) / total
            second = powers.mul_(shifted).sum(-1) / total
            if not certain and bool(first.isnan().any()):
                torch.exp(shifted, out=powers)
                shifted.clamp_(min=torch.finfo(shifted.dtype).min / 4)
                first = powers.mul_(shifted).sum(-1) / total
                second = powers.mul_(shifted).sum(-1) / total
            found["means"] = first - total.log()
            found["variances"] = (second - first.square()).clamp_(min=0)
    if wanted.ranks:
        ahead = torch.arange(logits.shape[-1], device=logits.device) < targets
        found["ranks"] = ((logits > own) | ((logits == own) & ahead)).sum(-1)
    if wanted.decoding is not None:
        found["decoded"] = wanted.decoding.logprobs(logits, targets.squeeze(-1))
    return found


def _match(
    logits: torch.Tensor, targets: torch.Tensor, own: torch.Tensor, peak: torch.Tensor, suppressed: int | None
) -> torch.Tensor:
    """Whether the target is the argmax (the first of equal logits). The argmax is computed only where it may be the target."""
    if suppressed is not None:
        logits = logits.clone()
        logits[:, suppressed] = -torch.inf
        own, peak = logits.gather(-1, targets), logits.amax(-1, keepdim=True)
    match = (own == peak).squeeze(-1)
    if match.device.type != "cpu":
        # Selecting rows would wait for the accelerator.
        return match & (logits.argmax(-1) == targets[:, 0])
    candidates = match.nonzero().squeeze(-1)
    if len(candidates):
        match[candidates] = logits[candidates].argmax(-1) == targets[candidates, 0]
    return match


def _near(logits: torch.Tensor, eps: float, suppressed: int | None) -> torch.Tensor:
    """Whether the two largest logits differ by no more than the spacing of a dtype with this `eps`."""
    if suppressed is not None:
        logits = logits.clone()
        logits[:, suppressed] = -torch.inf
    peak = logits.amax(-1, keepdim=True)
    return (logits >= peak - eps * peak.abs()).sum(-1) > 1
