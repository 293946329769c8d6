"""Membership scores of many texts at once, from columns of log-probabilities and without a model."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from memtax.errors import MemtaxError
from memtax.membership import attacks

Column = Sequence[Sequence[float] | None]


def score_rows(
    predictions: Column,
    *,
    texts: Sequence[str | None] | None = None,
    means: Column | None = None,
    variances: Column | None = None,
    reference_predictions: Column | None = None,
    matches: Column | None = None,
    k: Sequence[float] = (0.1, 0.2, 0.5),
) -> dict[str, list[float | None]]:
    """All scores that the given columns allow, from the attacks of memtax and of installed packages.

    Args:
        predictions: log-probability in nats of each scored token, one list per text; None or an empty list gives no score.
        texts: the texts; adds `zlib`.
        means: mean over the vocabulary of log p under p, at each token.
        variances: variance of log p under p; together with `means` adds `min_k_plus_plus_{k}`.
        reference_predictions: log-probabilities of the same tokens under a reference model; adds `reference` and `wbc`.
        matches: whether each token is the model's argmax (1 or 0); with `reference_predictions` adds `ez`.
        k: shares of tokens for Min-K% and Min-K%++.

    Returns:
        Score name to one value per text; None where no token is scored.

    Raises:
        MemtaxError: lengths differ, a value is NaN, a log-probability is above 0, a variance is below 0, a share is outside
            (0, 1], or only one of means and variances is given.
    """
    if not all(0 < share <= 1 for share in k):
        raise MemtaxError(f"k={list(k)} must be shares above 0 and at most 1")
    if (means is None) != (variances is None):
        raise MemtaxError("Min-K%++ needs both means and variances; only one was given")
    logprobs = _arrays("predictions", predictions, predictions)
    evidence: dict[str, Sequence[Any]] = {"logprobs": logprobs}
    if texts is not None:
        evidence["text"] = texts
    if means is not None and variances is not None:
        moments = zip(_arrays("means", means, predictions), _arrays("variances", variances, predictions), strict=True)
        evidence["moments"] = list(moments)
    if reference_predictions is not None:
        theirs = _arrays("reference_predictions", reference_predictions, predictions)
        evidence["rates"] = [(attacks.loss(own), attacks.loss(other)) for own, other in zip(logprobs, theirs, strict=True)]
        with np.errstate(invalid="ignore"):  # a token that both models exclude has no difference
            evidence["deltas"] = [own - other for own, other in zip(logprobs, theirs, strict=True)]
    if matches is not None:
        evidence["errors"] = [row == 0 for row in _arrays("matches", matches, predictions)]
    rows = [dict(zip(evidence, values, strict=True)) for values in zip(*evidence.values(), strict=True)]
    scores: dict[str, list[float | None]] = {}
    for attack in attacks.registered().values():
        if evidence.keys() >= set(attack.needs):
            sized = replace(attack, grid=tuple(k)) if attack.grid else attack
            each = [sized.scores(row) for row in rows]
            columns = {name: [row[name] for row in each] for name in sized.columns}
            over_set = attack.over_set or list
            scores |= {name.removeprefix("attack_"): over_set(values) for name, values in columns.items()}
    return scores


def _arrays(name: str, column: Column, predictions: Column) -> list[Any]:
    """Rows as float64, after checking their lengths against the predictions."""
    arrays = []
    for row, (values, other) in enumerate(zip(column, predictions, strict=True)):
        array = np.asarray([] if values is None else values, np.float64)
        if len(array) != len(other or []):
            raise MemtaxError(f"{name} have {len(array)} tokens in row {row}, predictions {len(other or [])}")
        if np.isnan(array).any():
            raise MemtaxError(f"{name} contain NaN in row {row}; drop tokens that were not scored")
        if name.endswith("predictions") and (array > 0).any():
            raise MemtaxError(f"{name} contain {array.max()} in row {row}; log-probabilities are at most 0")
        if name == "matches" and not np.isin(array, (0, 1)).all():
            raise MemtaxError(f"matches contain a value other than 0 and 1 in row {row}")
        if name == "variances" and (array < 0).any():
            raise MemtaxError(f"variances contain {array.min()} in row {row}; a variance is at least 0")
        arrays.append(array)
    return arrays
