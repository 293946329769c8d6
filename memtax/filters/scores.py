"""What a language model says about a sequence: perplexities, and whether it continues the prompt as in training."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from memtax.errors import MemtaxError
from memtax.filters.base import Batch, Filter
from memtax.lm import extraction
from memtax.lm.loading import DTYPES, load_model, model_files


@dataclass(frozen=True)
class LanguageModelFilter(Filter):
    """Perplexities and extraction of each sequence under a causal language model, from one forward pass.

    The first `prompt` tokens are the prompt and the next `continuation` tokens what the model should reproduce; 32 and 32
    are the lengths of Pythia's evaluation (Biderman et al. 2023) and of Prashanth et al. 2024.

    Args:
        model: a model's folder, or its name on the Hub.
        revision: branch, tag or commit of a Hub name.
        prompt: tokens of the prompt.
        continuation: tokens of the continuation.
        dtype: type of the weights while scoring, one of `memtax.lm.loading.DTYPES`.
        token_logprobs: whether to add the log-probability of every token as well.
    """

    model: str
    revision: str | None = None
    prompt: int = 32
    continuation: int = 32
    dtype: str = "float32"
    token_logprobs: bool = False

    name: ClassVar[str] = "scores"
    requires: ClassVar[tuple[str, ...]] = ("tokens",)
    columns: ClassVar[tuple[str, ...]] = extraction.COLUMNS
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name in ("prompt", "continuation"):
            if getattr(self, name) < 1:
                raise MemtaxError(f"{name} must be at least 1 token, not {getattr(self, name)}")
        if self.dtype not in DTYPES:
            raise MemtaxError(f"unknown dtype {self.dtype!r}; choose one of {', '.join(DTYPES)}")
        if self.token_logprobs:
            # The class names the columns that are always there; this one is there for those who ask.
            object.__setattr__(self, "columns", (*type(self).columns, "token_logprobs"))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__post_init__()

    def inputs(self) -> Iterable[str]:
        """The model's configuration and weights: the rest of a checkpoint folder does not change a score."""
        return model_files(self.model)

    @functools.cached_property
    def fingerprint(self) -> str:
        """As for every filter, but read once: the weights may be many gigabytes."""
        return super().fingerprint

    def compute(self, batch: Batch) -> Batch:
        """Score a batch of token sequences."""
        from memtax.lm.scores import score

        _spare_threads()
        scores = score(_load(self.model, self.revision, self.dtype, self.fingerprint), batch["tokens"])
        added = extraction.columns(scores, self.prompt, self.continuation)
        if self.token_logprobs:
            added["token_logprobs"] = [scores.row(index)[0].tolist() for index in range(len(scores))]
        return added


@functools.lru_cache(maxsize=1)
def _load(path: str, revision: str | None, dtype: str, fingerprint: str) -> Any:
    """The model, once per process and as long as its files stay the same."""
    return load_model(path, revision, dtype)


def _spare_threads() -> None:
    """One thread in the worker processes of `Dataset.map(num_proc=...)`.

    A forked worker would wait forever for the thread pool of its parent; and there is a worker for each core already.
    """
    import multiprocess  # type: ignore[import-untyped]
    import torch

    if multiprocess.parent_process() is not None and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
