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
        scaled, least, mass = self._kept(logits)
        own = scaled.gather(-1, targets[:, None])
        return torch.where(own < least, -torch.inf, own - mass).squeeze(-1)

    def distribution(self, logits: torch.Tensor) -> torch.Tensor:
        """Log-probability that each token is drawn, -inf if the scheme excludes it.

        Args:
            logits: (rows, vocabulary), float32.

        Returns:
            (rows, vocabulary), the values of `logprobs` for every target.
        """
        scaled, least, mass = self._kept(logits)
        return torch.where(scaled < least, -torch.inf, scaled - mass)

    def _kept(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Scaled logits, the least of those that can be drawn, and the log of their summed exponentials: both (rows, 1)."""
        scaled = logits if self.temperature == 1 else logits / self.temperature
        kept, least = scaled, torch.full_like(scaled[:, :1], -torch.inf)
        if self.top_k is not None:
            vocabulary = scaled.shape[-1]
            # The (k + 1)-th logit shows whether others tie with the k-th; ties are kept too.
            top = scaled.topk(min(self.top_k + 1, vocabulary), -1).values
            least = top[:, min(self.top_k, vocabulary) - 1, None]
            if top.shape[-1] > self.top_k and bool((top[:, self.top_k, None] == least).any()):
                top = scaled
            kept = top.masked_fill(top < least, -torch.inf)
        if self.top_p in (None, 1):
            return scaled, least, kept.logsumexp(-1, keepdim=True)
        assert self.top_p is not None
        last, mass = _nucleus(kept, self.top_p)
        return scaled, torch.maximum(least, last), mass


def _nucleus(logits: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The smallest set of largest logits that reaches `top_p`: its least, and the log of its summed exponentials.

    A few tokens usually hold most of the probability, so the largest few are examined first, and more only for rows whose
    nucleus extends beyond them.

    Args:
        logits: (rows, tokens), float32.
        top_p: below 1.

    Returns:
        Both (rows, 1).
    """
    # Apple's MPS has no float64.
    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    total = logits.logsumexp(-1, keepdim=True)
    least, masses = torch.empty_like(total), torch.empty_like(total)
    left = torch.arange(len(logits), device=logits.device)
    for size in (*(size for size in _LOOKS if size < logits.shape[-1]), logits.shape[-1]):
        rest = logits if len(left) == len(logits) else logits[left]
        top = rest.topk(size, -1).values if size < logits.shape[-1] else rest.sort(-1, descending=True).values
        shares = (top.to(wide) - total[left].to(wide)).exp()
        # A token is kept if the tokens before it hold less than top_p, so the first always is.
        kept = (shares.cumsum(-1) - shares) < top_p
        last = top.gather(-1, kept.sum(-1, keepdim=True) - 1)
        mass = top.masked_fill(~kept, -torch.inf).logsumexp(-1, keepdim=True)
        done = ~kept[:, -1] if size < logits.shape[-1] else torch.ones_like(kept[:, -1])
        least[left[done]], masses[left[done]] = last[done], mass[done]
        left = left[~done]
        if not len(left):
            break
    return least, masses
