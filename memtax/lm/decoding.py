"""How a next token is drawn from the logits: temperature, then top-k, then top-p, in the order of `transformers`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memtax.errors import MemtaxError

if TYPE_CHECKING:
    import torch

_HEAD = 256
"""Largest logits looked at before all of them are sorted: top-p seldom needs more."""


@dataclass(frozen=True)
class Decoding:
    """A sampling scheme. The defaults sample from the model's own distribution.

    Args:
        temperature: divides the logits, above 0.
        top_k: only the k largest logits may be drawn (and those that tie with the last of them); None: all.
        top_p: of these, only the fewest largest ones whose probabilities sum to at least this; None: all.

    Raises:
        MemtaxError: a number is out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise MemtaxError(f"temperature={self.temperature} must be above 0; greedy decoding is what is_memorized tells")
        if self.top_k is not None and self.top_k < 1:
            raise MemtaxError(f"top_k={self.top_k} must be at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise MemtaxError(f"top_p={self.top_p} must be above 0 and at most 1")

    @property
    def is_plain(self) -> bool:
        """Whether it draws from the model's own distribution, so that its log-probabilities are the usual ones."""
        return self.temperature == 1 and self.top_k is None and self.top_p in (None, 1)

    def logprobs(self, logits: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
        """Log-probability that each target is drawn, -inf where the scheme excludes it.

        Args:
            logits: (rows, vocabulary), float32.
            targets: (rows,).

        Returns:
            (rows,). What survives is renormalised, as sampling does (Hayes et al. 2024, section 3).
        """
        import torch

        scaled = logits if self.temperature == 1 else logits / self.temperature
        own = scaled.gather(-1, targets[:, None])
        if self.top_k is None and self.top_p in (None, 1):
            return (own - scaled.logsumexp(-1, keepdim=True)).squeeze(-1)
        vocabulary = scaled.shape[-1]
        if self.top_k is None:
            total = scaled.logsumexp(-1, keepdim=True)
            top = scaled.topk(min(_HEAD, vocabulary), -1).values
            assert self.top_p is not None
            if bool(((top - total).exp().sum(-1) < self.top_p).any()):
                top = scaled.sort(-1, descending=True).values
        else:
            # One more than k shows whether others tie with the last that is kept: those are kept as well.
            top = scaled.topk(min(self.top_k + 1, vocabulary), -1).values
            last = top[:, min(self.top_k, vocabulary) - 1 :][:, :1]
            if top.shape[-1] > self.top_k and bool((top[:, self.top_k] == last[:, 0]).any()):
                top = scaled.sort(-1, descending=True).values
            top = top.masked_fill(top < last, -torch.inf)
            own = own.masked_fill(own < last, -torch.inf)
            total = top.logsumexp(-1, keepdim=True)
        if self.top_p not in (None, 1):
            # A token stays if those before it hold less than top_p: the first always does.
            shares = (top.double() - total.double()).exp()
            kept = (shares.cumsum(-1) - shares) < self.top_p
            last = top.gather(-1, kept.sum(-1, keepdim=True) - 1)
            own = own.masked_fill(own < last, -torch.inf)
            total = top.masked_fill(~kept, -torch.inf).logsumexp(-1, keepdim=True)
        return (own - total).squeeze(-1)
