"""Membership scores as pure functions of what is known of one text, and the registry of them.

Every score: larger means more likely a member. `LL` is the mean log-likelihood of the scored tokens, in nats. A text without
a scored token has no score. To add an attack, write a function of pieces of evidence (`EVIDENCE`) and list it in `ATTACKS`;
in a package of your own, name an `Attack` in an entry point of the group `memtax.attacks`.
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
from memtax.membership import strong

Values = npt.NDArray[np.float64]

EVIDENCE = {
    "logprobs": "log-probability of each scored token, in nats",
    "moments": "mean and variance over the vocabulary of log p under p, at each scored token",
    "text": "the text itself",
    "rates": "log-likelihood of the text under the model and under the reference model, a token or a byte for both",
    "lowercase": "LL of the text in lower case",
    "neighbours": "LL of each neighbour: the text with some tokens replaced by a masked language model",
    "prefixed": "LL of the text's first tokens after non-member texts, and without them",
    "frequencies": "first occurrences of a token among the scored ones, and the corpus probability of each scored token",
    "score": "LL of the text",
    "references": "LL of the text under models trained with it, and under models trained without it",
    "deviations": "standard deviations of LL among models trained with the text (None: offline) and without it",
    "rmia_a": "the constant a of RMIA's offline approximation",
    "population": "LL of each text of some non-members, and the log of their mean probability under the reference models",
    "column:NAME": "the value in a column of the input: gradients are measured by another command",
}
"""Evidence that an attack can request: name to what it receives."""

LATE = ("score", "references", "deviations", "rmia_a", "population")
"""Evidence that comes from finished tables."""

GRID = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Shares k of Min-K% and Min-K%++."""
CAP = 0.01
"""DC-PDD's bound a on one token (Zhang et al. 2024, section 4)."""
_LEAST_VARIANCE = 1e-9
"""Squared nats below which a distribution is uniform up to float32 rounding."""


def loss(logprobs: Values) -> float | None:
    """LL: minus the loss (Yeom et al. 2018)."""
    return float(np.mean(logprobs)) if len(logprobs) else None


def zlib(logprobs: Values, text: str) -> float | None:
    """LL over the bytes of the text compressed by zlib (Carlini et al. 2021)."""
    return (
        float(np.mean(logprobs)) / len(compression.compress(text.encode("utf-8", "surrogatepass"))) if len(logprobs) else None
    )


def min_k(logprobs: Values, k: float) -> float | None:
    """Mean of the lowest share k of the token log-probabilities (Shi et al. 2024, Min-K%)."""
    return _lowest(logprobs, k)


def min_k_plus_plus(logprobs: Values, moments: tuple[Values, Values], k: float) -> float | None:
    """Mean of the lowest share k of (log p - mean) / deviation over the vocabulary (Zhang et al. 2025, Min-K%++).

    Tokens at which the model's distribution is uniform (or certain) say nothing and are left out.
    """
    means, variances = moments
    told = variances > _LEAST_VARIANCE
    return _lowest((logprobs[told] - means[told]) / np.sqrt(variances[told]), k)


def reference(rates: tuple[float | None, float | None]) -> float | None:
    """Log-likelihood beyond that of a reference model (Carlini et al. 2021)."""
    ours, theirs = rates
    return None if ours is None or theirs is None else ours - theirs


def lowercase(logprobs: Values, lowercase: float | None) -> float | None:
    """LL(lower case) / LL, both negative: what lower case costs (Carlini et al. 2021). None if LL is 0."""
    ours = loss(logprobs)
    return lowercase / ours if ours and lowercase is not None else None


def neighbour(logprobs: Values, neighbours: Sequence[float]) -> float | None:
    """LL beyond the mean LL of the neighbors (Mattern et al. 2023)."""
    ours = loss(logprobs)
    return None if ours is None or not len(neighbours) else ours - float(np.mean(neighbours))


def recall(prefixed: tuple[float | None, float | None]) -> float | None:
    """LL after a non-member prefix over LL without, over the same tokens (Xie et al. 2024, ReCaLL). None if LL is 0."""
    after, alone = prefixed
    return after / alone if alone and after is not None else None


def dc_pdd(logprobs: Values, frequencies: tuple[npt.NDArray[np.bool_], Values]) -> float | None:
    """Mean over first occurrences of min(-p log q, a), q the token's corpus probability (Zhang et al. 2024, DC-PDD)."""
    first, expected = frequencies
    values = np.minimum(-np.exp(logprobs[first]) * np.log(expected[first]), CAP)
    return float(values.mean()) if len(values) else None


def gradient_norm(value: float) -> float:
    """Minus the norm of the gradient at the text: what was trained on is near a minimum."""
    return -value


def gradient_alignment(value: float) -> float:
    """Mean cosine of the text's gradient with those of its paraphrases."""
    return value


def lira(score: float, references: strong.References, deviations: strong.Deviations) -> float | None:
    """How much likelier the score is under models trained with the text: see `memtax.membership.strong.lira`."""
    return strong.lira(score, *references, deviations)


def rmia(score: float, references: strong.References, population: tuple[Values, Values], a: float) -> float | None:
    """Share of the population that the text is gained on at least as much as: see `memtax.membership.strong.rmia`."""
    return strong.rmia(score, *references, *population, a=a)


def _lowest(values: Values, k: float) -> float | None:
    """Mean of the lowest max(1, floor(k T)) values."""
    if not len(values):
        return None
    # 0.3 * 10 is 3.0000000000000004 or 2.9999999999999996, by the factors: the share is meant exactly.
    count = max(1, math.floor(k * len(values) + 1e-9))
    return float(np.partition(values, count - 1)[:count].mean())


@dataclass(frozen=True)
class Attack:
    """A registered attack.

    Attributes:
        name: as `--attack` takes it, and the start of its columns' names.
        function: from evidence to a score, larger for members; None where the evidence does not suffice.
        needs: names in `EVIDENCE`; the function gets them as arguments in this order, and k after them if there is a grid.
        grid: values of k; each gives a column.
        gather: for evidence of its own, whose names are in `needs` too: gets the `memtax.membership.evidence.Gatherer` of
            a batch (model, texts, tokens) and one dictionary of evidence per row, and adds to those.
    """

    name: str
    function: Callable[..., float | None]
    needs: tuple[str, ...]
    grid: tuple[float, ...] = ()
    gather: Callable[[Any, list[dict[str, Any]]], None] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of its scores."""
        return tuple(f"attack_{self.name}_{k:g}" for k in self.grid) or (f"attack_{self.name}",)

    @property
    def late(self) -> bool:
        """Whether it reads columns that are there after the model has run, and nothing of a forward pass."""
        return all(name in LATE or name.startswith("column:") for name in self.needs)

    def scores(self, evidence: Mapping[str, Any]) -> dict[str, float | None]:
        """The score in each column: None where evidence is missing or the score is not a number."""
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
"""Group of entry points by which other packages add attacks: `NAME = "module:attack"`, an `Attack` of that name."""


def registered() -> dict[str, Attack]:
    """Name to attack: memtax's own, then those of installed packages.

    Raises:
        MemtaxError: an attack of another package cannot be imported, or is not an `Attack` of its entry point's name.
    """
    others = extensions.entry_points(ENTRY_POINTS)
    return {**ATTACKS, **{name: _load(point) for name, point in others.items() if name not in ATTACKS}}


def choose(names: Sequence[str]) -> list[Attack]:
    """The attacks of these names.

    Raises:
        MemtaxError: no such attack is registered, or it cannot be imported.
    """
    others = extensions.entry_points(ENTRY_POINTS)
    unknown = [name for name in names if name not in {*ATTACKS, *others}]
    if unknown:
        raise MemtaxError(f"unknown attack {unknown[0]!r}; choose among {', '.join((*ATTACKS, *others))}")
    return [ATTACKS[name] if name in ATTACKS else _load(others[name]) for name in dict.fromkeys(names)]


def _load(point: importlib.metadata.EntryPoint) -> Attack:
    attack = extensions.load(point)
    if not isinstance(attack, Attack) or attack.name != point.name:
        raise MemtaxError(f"{point.value} is not an Attack named {point.name!r}; mend or uninstall that package")
    unknown = [need for need in attack.needs if need not in EVIDENCE and not need.startswith("column:")]
    if unknown and attack.gather is None:
        raise MemtaxError(f"attack {point.name!r} needs {unknown[0]!r}; evidence is one of {', '.join(EVIDENCE)}")
    return attack
