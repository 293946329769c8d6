"""Attacks with reference models that were trained with and without the text: LiRA and RMIA."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp
from scipy.stats import norm

from memtax.errors import MemtaxError

Values = npt.NDArray[np.float64]

_LEAST_DEVIATION = 1e-3
"""Nats a token: models that agree exactly must not make a difference of nothing infinitely sure."""


def lira(score: float, with_it: Sequence[float], without: Sequence[float]) -> float | None:
    """The log-likelihood ratio of a score (Carlini et al. 2022, algorithm 1), Gaussian fit for this text alone.

    Args:
        score: LL of the text under the model that is attacked.
        with_it: LL under reference models trained on it; fewer than 2 make the test offline.
        without: LL under reference models that were not.

    Returns:
        log N(score; with) - log N(score; without); offline the z-value of the score among the models without it. None with
        fewer than 2 models without it.
    """
    out = _finite(without)
    if len(out) < 2 or not np.isfinite(score):
        return None
    center, deviation = out.mean(), max(out.std(ddof=1), _LEAST_DEVIATION)
    inside = _finite(with_it)
    if len(inside) < 2:
        return float((score - center) / deviation)
    trained = norm.logpdf(score, inside.mean(), max(inside.std(ddof=1), _LEAST_DEVIATION))
    return float(trained - norm.logpdf(score, center, deviation))


def rmia(
    score: float,
    with_it: Sequence[float],
    without: Sequence[float],
    population: Values,
    population_reference: Values,
    gamma: float = 1.0,
    prior: float = 0.5,
) -> float | None:
    """Share of the population z with LR(x, z) >= gamma (Zarifzadeh et al. 2024, equations 2 to 4).

    LR(x, z) = (P(x) / Pr(x)) / (P(z) / Pr(z)), with P the model's probability and Pr its mean over reference models. The
    probability of a text is taken a token (exp of LL), so that texts of different lengths can be compared.

    Args:
        score: LL of x under the model that is attacked.
        with_it: LL of x under reference models trained on it. None: Pr(x) is that of the models without it.
        without: LL of x under reference models that were not; at least 1.
        population: (z,) LL of texts that the model was not trained on.
        population_reference: (z,) log of their mean probability under the reference models, see `log_mean_probability`.
        gamma: the ratio from which x counts as gained on.
        prior: weight of the models trained on x.

    Returns:
        A share; ties of a finite population are broken by the margin, which adds less than one text's share.

    Raises:
        MemtaxError: the population is empty.
    """
    if not len(population):
        raise MemtaxError("RMIA needs a population of texts; none is given")
    out = _finite(without)
    if not len(out) or not np.isfinite(score):
        return None
    expected = log_mean_probability(out)
    inside = _finite(with_it)
    if len(inside):
        expected = float(logsumexp([np.log(prior) + log_mean_probability(inside), np.log1p(-prior) + expected]))
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
