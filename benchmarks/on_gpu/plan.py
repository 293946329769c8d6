"""The rows of `benchmarks/gpu.py`, in order, with their time limits; nothing heavy is imported here."""

from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
ABSENT = "without its package"
"""Outcome of a test that failed because an optional package is not installed."""


@dataclass(frozen=True)
class Size:
    """Sizes of a measurement: those for a card, or tiny ones that check the script."""

    smoke: bool

    def pick(self, full: T, tiny: T) -> T:
        """The first on a card, the second in a check."""
        return tiny if self.smoke else full

    @property
    def device(self) -> str:
        """Where to measure."""
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Row:
    """A function of a module of this folder, and its limit in seconds."""

    name: str
    module: str
    function: str
    seconds: float
    arguments: tuple[str, ...] = ()


ROWS = (
    Row("fused reduction against plain", "exact", "equality", 40),
    Row("out of memory", "exact", "out_of_memory", 30),
    Row("score, 70m", "speed", "score_rows", 30, ("70m",)),
    Row("score, 410m", "speed", "score_rows", 40, ("410m",)),
    Row("memtax score, 70m", "verbs", "score_verb", 60, ("70m",)),
    Row("memtax score, 410m", "verbs", "score_verb", 60, ("410m",)),
    Row("cached generation, 410m", "speed", "cached_generation", 30, ("410m",)),
    Row("alignment, 70m", "grads", "alignment", 40),
    Row("DataInf", "grads", "datainf", 40),
    Row("7B", "verbs", "large", 170),
    Row("near-ties, 410m", "exact", "near_ties", 30, ("410m",)),
    Row("GPU time by kernel, 70m", "speed", "kernel_shares", 30, ("70m",)),
    Row("dtypes, 410m", "speed", "dtypes", 30, ("410m",)),
    Row("semantic matches", "others", "semantic_matches", 30),
    Row("code classifier", "others", "code_classifier", 30),
    Row("paraphrases", "others", "paraphrases", 40),
    Row("demo", "verbs", "demo", 120),
)
"""Checks and rows with a goal come first: if the time is over, those that only inform are left out."""
