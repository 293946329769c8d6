"""Attacks with reference models trained with and without the text: LiRA and RMIA."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from memtax.errors import MemtaxError

Values = npt.NDArray[np.float64]

POOLED, SHRUNK, PER_TEXT = "pooled", "shrunk", "per_text"
VARIANCES = (POOLED, SHRUNK, PER_TEXT)
"""Source of LiRA's standard deviations: the mean variance over all texts, each text's own, or a shrinkage of the two."""

_LEAST_DEVIATION = 1e-3
"""Floor in nats per token, so that a tiny difference between models that agree exactly is not infinitely significant."""

_ALIKE = 1e-4
"""If log variances vary less than this between texts (beyond sampling noise), all texts are assumed to share one variance."""

References = tuple[Sequence[float], Sequence[float]]
"""LL of a text under models trained with it, and under models trained without it."""
Deviations = tuple[float | None, float | None]
"""Standard deviations of a text's LL among models trained with it (None: the test is offline) and without it."""


def deviations(references: Sequence[References | None], variances: str = POOLED) -> list[Deviations]:
    """The standard deviations that LiRA uses for each text of a table.

    Pooled: the square root of the mean over texts of each text's variance (n - 1 degrees of freedom), separately for models
    trained with and without the text. With few models, the variance of a single text is mostly noise (Carlini et al. 2022
    recommend a global variance in this case). Shrunk: each text's variance is pulled toward the common one, the more so the
    less the variances differ between texts (`shrink_variances`); this matches pooled where texts share one variance and is
    better where they differ. All texts use the same formula, because scores from two formulas cannot be ranked together: if
    any text lacks models trained with it, the test is offline for all.

    Args:
        references: for each text, LL under models trained with it and without it; None: the text is not in the table.
        variances: one of `VARIANCES`.

    Returns:
        For each text the deviation with it (None: offline) and without it (None: it cannot be estimated).

    Raises:
        MemtaxError: `variances` is not in `VARIANCES`.
    """
    if variances not in VARIANCES:
        raise MemtaxError(f"variances={variances!r} must be one of {', '.join(VARIANCES)}")
    sides = [[_finite(pair[side]) if pair else np.empty(0) for pair in references] for side in (0, 1)]
    # A text with no score under any reference model has no LiRA score under either formula.
    scored = [len(inside) + len(outside) > 0 for inside, outside in zip(*sides, strict=True)]
    needed = 2 if variances == PER_TEXT else 1
    online = all(len(inside) >= needed for inside, known in zip(sides[0], scored, strict=True) if known)
    own = [[float(row.var(ddof=1)) if len(row) > 1 else None for row in side] for side in sides]
    if variances == POOLED:
        means = [_mean([value for value in side if value is not None]) for side in own]
        own = [[mean] * len(references) for mean in means]
    elif variances == SHRUNK:
        own = [shrink_variances(side, [len(row) - 1 for row in rows]) for side, rows in zip(own, sides, strict=True)]
    return [(_deviation(inside) if online else None, _deviation(outside)) for inside, outside in zip(*own, strict=True)]


def shrink_variances(variances: Sequence[float | None], freedom: Sequence[int]) -> list[float | None]:
    """Variances shrunk toward their common value (Smyth 2004, section 6.2, as in limma), without tuning parameters.

    The variances are modeled as scaled chi-squares around values that follow an inverse gamma distribution over texts. With
    e = log s^2 - digamma(d / 2) + log(d / 2), the prior's degrees of freedom d0 solve trigamma(d0 / 2) = var(e) - mean
    trigamma(d / 2), its value is s0^2 = exp(mean(e) + digamma(d0 / 2) - log(d0 / 2)), and each text gets
    (d0 s0^2 + d s^2) / (d0 + d).

    Args:
        variances: variance of each text; None if it has fewer than 2 scores.
        freedom: degrees of freedom of each text, its number of scores minus 1.

    Returns:
        The shrunk variances; s0^2 for texts without a variance. Where e varies no more than expected by chance, all equal the
        mean variance. None for all texts if no text has a variance.
    """
    from scipy.optimize import brentq
    from scipy.special import digamma, polygamma

    known = [place for place, value in enumerate(variances) if value is not None]
    if not known:
        return [None] * len(variances)
    own = np.array([max(variances[place] or 0.0, _LEAST_DEVIATION**2) for place in known])
    degrees = np.array([freedom[place] for place in known], np.float64)
    logs = np.log(own) - digamma(degrees / 2) + np.log(degrees / 2)
    excess = float(logs.var(ddof=1) - polygamma(1, degrees / 2).mean()) if len(own) > 1 else 0.0
    if excess <= _ALIKE:
        return [float((degrees * own).sum() / degrees.sum())] * len(variances)
    half = float(brentq(lambda value: float(polygamma(1, value)) - excess, 1e-6, 2 / _ALIKE))
    prior = float(np.exp(logs.mean() + digamma(half) - np.log(half)))
    shrunk: list[float | None] = [prior] * len(variances)
    for place, value, number in zip(known, own, degrees, strict=True):
        shrunk[place] = float((2 * half * prior + number * value) / (2 * half + number))
    return shrunk


def lira(score: float, with_it: Sequence[float], without: Sequence[float], spread: Deviations | None = None) -> float | None:
    """The log-likelihood ratio of a score under two Gaussians (Carlini et al. 2022, algorithm 1).

    Args:
        score: LL of the text under the attacked model.
        with_it: LL under reference models trained with it.
        without: LL under reference models trained without it.
        spread: this text's entry of `deviations`; None: the deviations of this text alone.

    Returns:
        log N(score; with) - log N(score; without); offline, the z-value of the score among the models without it. None if a
        required mean or deviation is missing.
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
    per-token probability of a text (exp of LL) is used, so that texts of different lengths can be compared.

    Online, Pr(x) is the mean over models with and without x, weighted by `prior`. Offline, models with x are missing and
    Pr(x) is approximated by ((1 + a) Pr_out(x) + (1 - a)) / 2 (appendix B.2.2), which assumes that a model trained on x gives
    it a Pr_out(x) + (1 - a). a = 1 uses Pr_out(x) itself; a = 0 assumes that models with x are certain of it. The authors
    choose a on a reference model with known members, and report that results vary little with it.

    Args:
        score: LL of x under the attacked model.
        with_it: LL of x under reference models trained with it; empty for offline.
        without: LL of x under reference models trained without it; at least 1.
        population: (z,) LL of texts that the model was not trained on.
        population_reference: (z,) log of their mean probability under the reference models, see `log_mean_probability`.
        gamma: likelihood-ratio threshold.
        prior: weight of the models trained with x.
        a: constant of the offline approximation, from 0 to 1.

    Returns:
        A share; ties in a finite population are broken by the margin, which adds less than one text's share.

    Raises:
        MemtaxError: the population is empty, or `a` lies outside [0, 1].
    """
    if not len(population):
        raise MemtaxError("RMIA needs a population of texts, but none is given")
    if not 0 <= a <= 1:
        raise MemtaxError(f"RMIA's a must be between 0 and 1, got {a}")
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
    # A population of n gives only n + 1 values; the distance of x from it orders texts with the same share.
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
