"""Sampling the next token from logits: temperature, then top-k, then top-p, in the order of `transformers`."""

from dataclasses import dataclass

import torch

from memtax.errors import MemtaxError

_LOOKS = (128, 2048)
"""Number of largest logits examined for top-p before all are sorted."""


@dataclass(frozen=True)
class Decoding:
    """A sampling scheme. The defaults sample from the model's own distribution.

    Args:
        temperature: divides the logits, above 0.
        top_k: only the k largest logits (and ties with the smallest of them) can be drawn; None: all.
        top_p: of these, only the smallest set of largest ones whose probabilities sum to at least this; None: all.

    Raises:
        MemtaxError: a number is out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise MemtaxError(f"temperature={self.temperature} must be above 0; is_memorized covers greedy decoding")
        if self.top_k is not None and self.top_k < 1:
            raise MemtaxError(f"top_k={self.top_k} must be at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise MemtaxError(f"top_p={self.top_p} must be above 0 and at most 1")

    def logprobs(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Log-probability that each target is drawn, -inf if the scheme excludes it.

        Args:
            logits: (rows, vocabulary), float32.
            targets: (rows,).

        Returns:
            (rows,). The remaining probabilities are renormalized, as in sampling (Hayes et al. 2024, section 3).
        """
        scaled = logits if self.temperature == 1 else logits / self.temperature
        own = scaled.gather(-1, targets[:, None])
        if self.top_k is not None:
            vocabulary = scaled.shape[-1]
            # The (k + 1)-th logit shows whether others tie with the k-th; ties are kept too.
            top = scaled.topk(min(self.top_k + 1, vocabulary), -1).values
            last = top[:, min(self.top_k, vocabulary) - 1, None]
            if top.shape[-1] > self.top_k and bool((top[:, self.top_k, None] == last).any()):
                top = scaled
            scaled = top.masked_fill(top < last, -torch.inf)
            own = own.masked_fill(own < last, -torch.inf)
        if self.top_p not in (None, 1):
            assert self.top_p is not None
            return _nucleus(scaled, own, self.top_p)
        return (own - scaled.logsumexp(-1, keepdim=True)).squeeze(-1)


def _nucleus(logits: torch.Tensor, own: torch.Tensor, top_p: float) -> torch.Tensor:
    """Log-probability of each token in the smallest set of largest ones that reaches `top_p`, -inf outside.

    A few tokens usually hold most of the probability, so the largest few are examined first, and more only for rows whose
    nucleus extends beyond them.

    Args:
        logits: (rows, tokens), float32.
        own: (rows, 1), the target logits.
        top_p: below 1.
    """
    # Apple's MPS has no float64.
    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    total = logits.logsumexp(-1, keepdim=True)
    found = torch.empty_like(own[:, 0])
    left = torch.arange(len(logits), device=logits.device)
    for size in (*(size for size in _LOOKS if size < logits.shape[-1]), logits.shape[-1]):
        rest = logits if len(left) == len(logits) else logits[left]
        top = rest.topk(size, -1).values if size < logits.shape[-1] else rest.sort(-1, descending=True).values
        shares = (top.to(wide) - total[left].to(wide)).exp()
        # A token is kept if the tokens before it hold less than top_p, so the first always is.
        kept = (shares.cumsum(-1) - shares) < top_p
        last = top.gather(-1, kept.sum(-1, keepdim=True) - 1)
        mass = top.masked_fill(~kept, -torch.inf).logsumexp(-1, keepdim=True)
        drawn = torch.where(own[left] < last, -torch.inf, own[left] - mass).squeeze(-1)
        done = ~kept[:, -1] if size < logits.shape[-1] else torch.ones_like(kept[:, -1])
        found[left[done]] = drawn[done]
        left = left[~done]
        if not len(left):
            break
    return found
