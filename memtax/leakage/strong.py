"""Attacks with reference models that were trained with and without the text: LiRA and RMIA."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from memtax.errors import MemtaxError

Values = npt.NDArray[np.float64]

POOLED, PER_TEXT = "pooled", "per_text"
VARIANCES = (POOLED, PER_TEXT)
"""Where LiRA's standard deviations come from: the mean variance over all texts, or each text's own."""

_LEAST_DEVIATION = 1e-3
"""Nats per token: models that agree exactly must not make a negligible difference infinitely certain."""

References = tuple[Sequence[float], Sequence[float]]
"""LL of a text under the models trained with it, and under those trained without it."""
Deviations = tuple[float | None, float | None]
"""Standard deviations of LL of a text among models trained with it (None: the test is offline), and without it."""


def deviations(references: Sequence[References | None], variances: str = POOLED) -> list[Deviations]:
    """The standard deviations that LiRA takes for each text of a table.

    Pooled: the root of the mean over texts of the variances (n - 1 degrees of freedom) of each text's scores, models with
    the text and models without it apart. With few models the variance of a single text is mostly noise (Carlini et al. 2022,
    section VI.A, recommend a global variance there); in simulations the pooled one is better up to 64 models. One formula
    serves all texts, as scores of two formulas cannot be ranked together: if any text lacks models trained with it, the test
    is offline for all.

    Args:
        references: for each text LL under the models with it and without it; None: the text is not in the table.
        variances: `pooled` or `per_text`.

    Returns:
        For each text the deviation with it (None: offline) and without it (None: it cannot be estimated).

    Raises:
        MemtaxError: `variances` is neither.
    """
    if variances not in VARIANCES:
        raise MemtaxError(f"variances={variances!r} must be one of {', '.join(VARIANCES)}")
    sides = [[_finite(pair[side]) if pair else np.empty(0) for pair in references] for side in (0, 1)]
    # A text without any score under a reference model has no LiRA score, whatever the formula.
    scored = [len(inside) + len(outside) > 0 for inside, outside in zip(*sides, strict=True)]
    needed = 1 if variances == POOLED else 2
    online = all(len(inside) >= needed for inside, known in zip(sides[0], scored, strict=True) if known)
    own = [[float(row.var(ddof=1)) if len(row) > 1 else None for row in side] for side in sides]
    if variances == POOLED:
        means = [_mean([value for value in side if value is not None]) for side in own]
        own = [[mean] * len(references) for mean, side in zip(means, own, strict=True)]
    return [(_deviation(inside) if online else None, _deviation(outside)) for inside, outside in zip(*own, strict=True)]


def lira(score: float, with_it: Sequence[float], without: Sequence[float], spread: Deviations | None = None) -> float | None:
    """The log-likelihood ratio of a score under Gaussians (Carlini et al. 2022, algorithm 1).

    Args:
        score: LL of the text under the model that is attacked.
        with_it: LL under reference models trained on it.
        without: LL under reference models that were not.
        spread: this text's entry of `deviations`; None: the deviations of this text alone.

    Returns:
        log N(score; with) - log N(score; without); offline the z-value of the score among the models without it. None where
        a mean or a deviation that is needed is missing.
    """
    inside, outside = _finite(with_it), _finite(without)
    spread_in, spread_out = deviations([(inside.tolist(), outside.tolist())], PER_TEXT)[0] if spread is None else spread
    if not len(outside) or spread_out is None or not np.isfinite(score):
        return None
    if spread_in is None:
        return float((score - outside.mean()) / spread_out)
    if not len(inside):
        return None
    return _log_density(score, inside.mean(), spread_in) - _log_density(score, outside.mean(), spread_out)


def rmia(
    score: float,
    with_it: Sequence[float],
    without: Sequence[float],
    population: Values,
    population_reference: Values,
    gamma: float = 1.0,
    prior: float = 0.5,
    a: float = 1.0,
) -> float | None:
    """Share of the population z with LR(x, z) >= gamma (Zarifzadeh et al. 2024, arXiv 2312.03262, equations 2 to 4).

    LR(x, z) = (P(x) / Pr(x)) / (P(z) / Pr(z)), with P the model's probability and Pr its mean over reference models. The
    probability of a text is taken per token (exp of LL), so that texts of different lengths can be compared.

    Online, Pr(x) is the mean over models with and without x, weighted by `prior`. Offline, models with x are missing and
    Pr(x) is approximated by ((1 + a) Pr_out(x) + (1 - a)) / 2 (appendix B.2.2): a model trained on x is taken to have
    a Pr_out(x) + (1 - a). a = 1 is Pr_out(x) itself; a = 0 takes models with x to be certain of it. The authors choose a on
    a reference model of which the members are known, and report that results vary little with it.

    Args:
        score: LL of x under the model that is attacked.
        with_it: LL of x under reference models trained on it. None of them: offline.
        without: LL of x under reference models that were not; at least 1.
        population: (z,) LL of texts that the model was not trained on.
        population_reference: (z,) log of their mean probability under the reference models, see `log_mean_probability`.
        gamma: the ratio from which x counts as gained on.
        prior: weight of the models trained on x.
        a: of the offline approximation, from 0 to 1.

    Returns:
        A share; ties of a finite population are broken by the margin, which adds less than one text's share.

    Raises:
        MemtaxError: the population is empty, or `a` lies outside [0, 1].
    """
    if not len(population):
        raise MemtaxError("RMIA needs a population of texts; none is given")
    if not 0 <= a <= 1:
        raise MemtaxError(f"RMIA's a lies between 0 and 1, not at {a}")
    out = _finite(without)
    if not len(out) or not np.isfinite(score):
        return None
    expected = log_mean_probability(out)
    inside = _finite(with_it)
    if len(inside):
        expected = float(logsumexp([np.log(prior) + log_mean_probability(inside), np.log1p(-prior) + expected]))
    elif a < 1:
        expected = float(logsumexp([np.log((1 + a) / 2) + expected, np.log((1 - a) / 2)]))
    margin = (score - expected) - (population - population_reference) - np.log(gamma)
    share = float(np.mean(margin >= 0))
    # A population of n gives n + 1 values only; how far x is above or below it orders texts with the same share.
    return share + float(np.tanh(margin.mean())) / (2 * len(margin) + 2)


def log_mean_probability(scores: Sequence[float] | Values) -> float:
    """Log of the mean over models of exp(LL)."""
    values = np.asarray(scores, np.float64)
    return float(logsumexp(values) - np.log(len(values)))


def _finite(scores: Sequence[float]) -> Values:
    values = np.asarray(scores, np.float64)
    return values[np.isfinite(values)]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _deviation(variance: float | None) -> float | None:
    return None if variance is None else max(float(np.sqrt(variance)), _LEAST_DEVIATION)


def _log_density(score: float, mean: float, deviation: float) -> float:
    """Log of the normal density, up to a constant."""
    return float(-0.5 * ((score - mean) / deviation) ** 2 - np.log(deviation))
