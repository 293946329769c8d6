"""Membership scores as pure functions of the evidence about one text, and the registry of attacks.

A larger score always means more likely a member. `LL` is the mean log-likelihood of the scored tokens, in nats. A text with
no scored tokens has no score. To add an attack, write a function of pieces of evidence (`EVIDENCE`) and list it in `ATTACKS`;
in your own package, register an `Attack` as an entry point in the group `memtax.attacks`.
"""

import importlib.metadata
import math
import zlib as compression
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from memtax import extensions
from memtax.errors import MemtaxError
from memtax.membership import paired, strong

Values = npt.NDArray[np.float64]

EVIDENCE = {
    "logprobs": "log-probability of each scored token, in nats",
    "moments": "mean and variance over the vocabulary of log p under p, at each scored token",
    "text": "the text itself",
    "rates": "log-likelihood of the text under the model and under the reference model, both per token or both per byte",
    "deltas": "log-probability of each scored token minus that under a reference model with the same tokenizer, in nats",
    "errors": "whether the model's argmax is another token, at each scored token",
    "lowercase": "LL of the text in lower case",
    "neighbours": "LL of each neighbour: the text with some tokens replaced by a masked language model",
    "prefixed": "LL of the text's first tokens with and without a prefix of non-member texts",
    "frequencies": "first occurrence of each distinct token among the scored ones, and each scored token's corpus probability",
    "score": "LL of the text",
    "references": "LL of the text under models trained with it and under models trained without it",
    "deviations": "standard deviations of LL among models trained with the text (None: offline) and without it",
    "rmia_a": "the constant a of RMIA's offline approximation",
    "population": "LL of each text in a set of non-members, and the log of its mean probability under the reference models",
    "column:NAME": "the value in an input column, for example gradients measured by another command",
}
"""Evidence that an attack can request: its name and what the attack receives."""

LATE = ("score", "references", "deviations", "rmia_a", "population")
"""Evidence read from finished tables."""

GRID = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Values of k for Min-K% and Min-K%++."""
CAP = 0.01
"""DC-PDD's upper bound a on the score of one token (Zhang et al. 2024, section 4)."""
_LEAST_VARIANCE = 1e-9
"""Variance (nats squared) below which a distribution counts as uniform, given float32 rounding."""


def loss(logprobs: Values) -> float | None:
    """LL: minus the loss (Yeom et al. 2018)."""
    return float(np.mean(logprobs)) if len(logprobs) else None


def zlib(logprobs: Values, text: str) -> float | None:
    """LL divided by the number of bytes of the zlib-compressed text (Carlini et al. 2021)."""
    return (
        float(np.mean(logprobs)) / len(compression.compress(text.encode("utf-8", "surrogatepass"))) if len(logprobs) else None
    )


def min_k(logprobs: Values, k: float) -> float | None:
    """Mean of the lowest fraction k of the token log-probabilities (Shi et al. 2024, Min-K%)."""
    return _lowest(logprobs, k)


def min_k_plus_plus(logprobs: Values, moments: tuple[Values, Values], k: float) -> float | None:
    """Mean of the lowest fraction k of (log p - mean) / deviation over the vocabulary (Zhang et al. 2025, Min-K%++).

    Tokens where the model's distribution is uniform or certain carry no information and are skipped.
    """
    means, variances = moments
    told = variances > _LEAST_VARIANCE
    return _lowest((logprobs[told] - means[told]) / np.sqrt(variances[told]), k)


def reference(rates: tuple[float | None, float | None]) -> float | None:
    """Log-likelihood minus the log-likelihood under a reference model (Carlini et al. 2021)."""
    ours, theirs = rates
    return None if ours is None or theirs is None else ours - theirs


def lowercase(logprobs: Values, lowercase: float | None) -> float | None:
    """LL(lower case) / LL, both negative: how much lowercasing lowers the likelihood (Carlini et al. 2021). None if LL is 0."""
    ours = loss(logprobs)
    return lowercase / ours if ours and lowercase is not None else None


def neighbour(logprobs: Values, neighbours: Sequence[float]) -> float | None:
    """LL minus the mean LL of the neighbors (Mattern et al. 2023)."""
    ours = loss(logprobs)
    return None if ours is None or not len(neighbours) else ours - float(np.mean(neighbours))


def recall(prefixed: tuple[float | None, float | None]) -> float | None:
    """LL with a non-member prefix divided by LL without it, over the same tokens (Xie et al. 2024, ReCaLL). None if LL is 0."""
    after, alone = prefixed
    return after / alone if alone and after is not None else None


def dc_pdd(logprobs: Values, frequencies: tuple[npt.NDArray[np.bool_], Values]) -> float | None:
    """Mean over first occurrences of min(-p log q, a), where q is the corpus probability (Zhang et al. 2024, DC-PDD)."""
    first, expected = frequencies
    values = np.minimum(-np.exp(logprobs[first]) * np.log(expected[first]), CAP)
    return float(values.mean()) if len(values) else None


def gradient_norm(value: float) -> float:
    """Minus the gradient norm at the text; training texts lie near a minimum of the loss."""
    return -value


def gradient_alignment(value: float) -> float:
    """Mean cosine similarity between the text's gradient and the gradients of its paraphrases."""
    return value


def lira(score: float, references: strong.References, deviations: strong.Deviations) -> float | None:
    """Likelihood ratio between models trained with and without the text; see `memtax.membership.strong.lira`."""
    return strong.lira(score, *references, deviations)


def rmia(score: float, references: strong.References, population: tuple[Values, Values], a: float) -> float | None:
    """Share of the population whose likelihood ratio the text matches or exceeds; see `memtax.membership.strong.rmia`."""
    return strong.rmia(score, *references, *population, a=a)


def _lowest(values: Values, k: float) -> float | None:
    """Mean of the lowest max(1, floor(k T)) values."""
    if not len(values):
        return None
    # Floating point gives 0.3 * 10 as 3.0000000000000004 or 2.9999999999999996; the share is meant exactly.
    count = max(1, math.floor(k * len(values) + 1e-9))
    return float(np.partition(values, count - 1)[:count].mean())


@dataclass(frozen=True)
class Attack:
    """A registered attack.

    Attributes:
        name: value of `--attack`, and the prefix of the attack's column names.
        function: maps evidence to a score, larger for members; returns None where the evidence is insufficient.
        needs: names in `EVIDENCE`, passed to the function in this order; k follows them if there is a grid.
        grid: values of k; each adds a column.
        over_set: makes the scores of a set of texts from their single scores, where a score depends on the set.
        gather: collects custom evidence whose names also appear in `needs`. It receives the
            `memtax.membership.evidence.Gatherer` of a batch (model, texts, tokens) and one evidence dictionary per row to fill.
    """

    name: str
    function: Callable[..., float | None]
    needs: tuple[str, ...]
    grid: tuple[float, ...] = ()
    over_set: Callable[[Sequence[float | None]], list[float | None]] | None = None
    gather: Callable[[Any, list[dict[str, Any]]], None] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the score columns."""
        return tuple(f"attack_{self.name}_{k:g}" for k in self.grid) or (f"attack_{self.name}",)

    @property
    def late(self) -> bool:
        """Whether the attack reads only columns that exist after the model has run, and nothing from a forward pass."""
        return all(name in LATE or name.startswith("column:") for name in self.needs)

    def scores(self, evidence: Mapping[str, Any]) -> dict[str, float | None]:
        """The score for each column; None where evidence is missing or the score is not finite."""
        found = [evidence.get(name) for name in self.needs]
        if any(value is None for value in found):
            return dict.fromkeys(self.columns)
        values = [self.function(*found, k) for k in self.grid] if self.grid else [self.function(*found)]
        clean = [None if value is None or math.isnan(value) else float(value) for value in values]
        return dict(zip(self.columns, clean, strict=True))


ATTACKS: dict[str, Attack] = {
    attack.name: attack
    for attack in (
        Attack("loss", loss, ("logprobs",)),
        Attack("zlib", zlib, ("logprobs", "text")),
        Attack("min_k", min_k, ("logprobs",), GRID),
        Attack("min_k_plus_plus", min_k_plus_plus, ("logprobs", "moments"), GRID),
        Attack("reference", reference, ("rates",)),
        Attack("ez", paired.ez, ("deltas", "errors"), over_set=paired.raise_forced),
        Attack("wbc", paired.wbc, ("deltas",)),
        Attack("lowercase", lowercase, ("logprobs", "lowercase")),
        Attack("neighbour", neighbour, ("logprobs", "neighbours")),
        Attack("recall", recall, ("prefixed",)),
        Attack("dc_pdd", dc_pdd, ("logprobs", "frequencies")),
        Attack("gradient_norm", gradient_norm, ("column:gradient_norm",)),
        Attack("gradient_alignment", gradient_alignment, ("column:gradient_alignment",)),
        Attack("lira", lira, ("score", "references", "deviations")),
        Attack("rmia", rmia, ("score", "references", "population", "rmia_a")),
    )
}


ENTRY_POINTS = "memtax.attacks"
"""Entry-point group for attacks of other packages: `NAME = "module:attack"`, where the `Attack` has the same name."""


def registered() -> dict[str, Attack]:
    """All attacks by name: memtax's own, then those of installed packages.

    Raises:
        MemtaxError: another package's attack cannot be imported, or is not an `Attack` named like its entry point.
    """
    others = extensions.entry_points(ENTRY_POINTS)
    return {**ATTACKS, **{name: _load(point) for name, point in others.items() if name not in ATTACKS}}


def choose(names: Sequence[str]) -> list[Attack]:
    """The attacks with the given names.

    Raises:
        MemtaxError: an attack is not registered, or cannot be imported.
    """
    others = extensions.entry_points(ENTRY_POINTS)
    unknown = [name for name in names if name not in {*ATTACKS, *others}]
    if unknown:
        raise MemtaxError(f"unknown attack {unknown[0]!r}; choose among {', '.join((*ATTACKS, *others))}")
    return [ATTACKS[name] if name in ATTACKS else _load(others[name]) for name in dict.fromkeys(names)]


def _load(point: importlib.metadata.EntryPoint) -> Attack:
    attack = extensions.load(point)
    if not isinstance(attack, Attack) or attack.name != point.name:
        raise MemtaxError(f"{point.value} is not an Attack named {point.name!r}; fix or uninstall that package")
    unknown = [need for need in attack.needs if need not in EVIDENCE and not need.startswith("column:")]
    if unknown and attack.gather is None:
        raise MemtaxError(f"attack {point.name!r} needs {unknown[0]!r}; evidence is one of {', '.join(EVIDENCE)}")
    return attack
