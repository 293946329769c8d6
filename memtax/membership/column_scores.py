"""Scores of many texts at once from columns of log-probabilities: the attacks that need no model besides."""

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
    k: Sequence[float] = (0.1, 0.2, 0.5),
) -> dict[str, list[float | None]]:
    """Every score that the given columns allow, of memtax's attacks and those of installed packages.

    Args:
        predictions: log-probability in nats of each scored token, a list per text; None and an empty list score nothing.
        texts: adds `zlib`.
        means: mean over the vocabulary of log p under p, at each token.
        variances: its variance; with `means` adds `min_k_plus_plus_{k}`.
        reference_predictions: of the same tokens under a reference model; adds `reference`.
        k: shares of tokens of Min-K% and Min-K%++.

    Returns:
        Score name to one value per text; None where nothing is scored.

    Raises:
        MemtaxError: lengths differ, NaN, a log-probability above 0, a variance below 0, a share outside (0, 1], or means
            without variances.
    """
    if not all(0 < share <= 1 for share in k):
        raise MemtaxError(f"k={list(k)} must be shares above 0 and at most 1")
    if (means is None) != (variances is None):
        raise MemtaxError("Min-K%++ needs means and variances, not one of them")
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
    rows = [dict(zip(evidence, values, strict=True)) for values in zip(*evidence.values(), strict=True)]
    scores: dict[str, list[float | None]] = {}
    for attack in attacks.registered().values():
        if evidence.keys() >= set(attack.needs):
            sized = replace(attack, grid=tuple(k)) if attack.grid else attack
            each = [sized.scores(row) for row in rows]
            scores |= {name.removeprefix("attack_"): [row[name] for row in each] for name in sized.columns}
    return scores


def _arrays(name: str, column: Column, predictions: Column) -> list[Any]:
    """Rows as float64, checked against the predictions' lengths."""
    arrays = []
    for row, (values, other) in enumerate(zip(column, predictions, strict=True)):
        array = np.asarray([] if values is None else values, np.float64)
        if len(array) != len(other or []):
            raise MemtaxError(f"{name} have {len(array)} tokens in row {row}, predictions {len(other or [])}")
        if np.isnan(array).any():
            raise MemtaxError(f"{name} have NaN in row {row}; leave out tokens that were not scored")
        if name.endswith("predictions") and (array > 0).any():
            raise MemtaxError(f"{name} hold {array.max()} in row {row}; log-probabilities are at most 0")
        if name == "variances" and (array < 0).any():
            raise MemtaxError(f"variances hold {array.min()} in row {row}; a variance is at least 0")
        arrays.append(array)
    return arrays
