"""Shared parts of all searches: rows prepared once, and a model for any group of them, fitted once."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memtax import statistics
from memtax.predictor import factors as declared
from memtax.predictor import newton
from memtax.predictor.copies import split_groups
from memtax.predictor.logistic import Array, Scaler, TooFewRowsError, too_few
from memtax.predictor.partitions import Codes, Group, encode, members, thresholds
from memtax.predictor.split import stratified_split
from memtax.predictor.usable_rows import usable

PARTS = ("train", "validation", "test")


def workers() -> int:
    """Threads to use: the processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of training, validation or test.

    Attributes:
        values: (rows, factors) standardized factors.
        labels: (rows,) the target.
        codes: (factors, rows) codes of the rules.
        units: of resampling.
    """

    values: Array
    labels: NDArray[np.uint8]
    codes: Codes
    units: statistics.Units


@dataclass(frozen=True, eq=False)
class GroupFit:
    """The model of a group, and what it is worth on the group's validation rows.

    Attributes:
        fit: the group's own model, or the baseline's where `reason` says that the group has too few rows.
        log_loss: sum over the group's validation rows.
        brier: sum over the group's validation rows.
        rows: training rows.
        reason: why the group has no model of its own.
    """

    fit: newton.Fit
    log_loss: float
    brier: float
    rows: int
    reason: str | None


@dataclass(frozen=True, eq=False)
class Problem:
    """The prepared search: scaler and thresholds come from training rows alone.

    Attributes:
        parts: train, validation, test.
        factors: names of the models' factors.
        split_on: names of the factors that rules ask about.
        quantiles: of the memorized training rows.
        bounds: (split factors, quantiles) thresholds on the factors' own scale.
        scaler: of the models' factors.
        baseline: the model of all training rows.
        dropped: rows left out, by reason.
        seed: of split and resamples.
        described: what the split kept together (`memtax.predictor.copies.Groups.described`), and units of each part.
    """

    parts: dict[str, Part]
    factors: tuple[str, ...]
    split_on: tuple[str, ...]
    quantiles: tuple[float, ...]
    bounds: Array
    scaler: Scaler
    baseline: newton.Fit
    dropped: dict[str, int]
    seed: int
    described: dict[str, Any]
    known: dict[Group, GroupFit] = field(default_factory=dict)

    @classmethod
    def prepare(
        cls,
        table: pa.Table,
        *,
        factors: Sequence[str],
        split_on: Sequence[str],
        quantiles: Sequence[float],
        target: str,
        validation: float,
        test: float,
        seed: int,
        category: str | None = None,
    ) -> "Problem":
        """Read, split, standardize and encode.

        With a category, the categories are one more row of codes behind those of the rules: see `taxonomy`.

        Raises:
            MemtaxError: a column or an argument does not fit.
            TooFewRowsError: too few training rows are memorized (or are not).
        """
        models, rules = declared.resolve(factors, target), declared.resolve(split_on, target)
        read = tuple(dict.fromkeys((*models, *rules)))
        rows = usable(table, read, target, category)
        groups = split_groups(table)[rows.kept]
        split = stratified_split(rows.categories * 2 + rows.labels, validation, test, seed, groups.codes)
        if not len(split.validation) or not len(split.test):
            raise TooFewRowsError(
                f"{len(rows.labels):,} rows cannot be split: documents and near-copies join them into too few groups "
                f"({len(np.unique(groups.codes)):,}); give rows of more documents"
            )
        few = too_few(rows.labels[split.train], "training")
        if few is not None:
            raise TooFewRowsError(f"no partition of {target!r} can be searched: {few} (rows left out: {rows.lost})")
        chosen = np.array([read.index(one) for one in models])
        scaler = Scaler.fit(rows.values[np.ix_(split.train, chosen)])
        # Rules speak of the factors' own scale: an interpolated quantile of logarithms is another number.
        asked = np.stack([declared.read(table, rule)[rows.kept] for rule in rules], axis=1)
        bounds = thresholds(asked[split.train], rows.labels[split.train], quantiles)
        parts = {}
        for name in PARTS:
            own = getattr(split, name)
            parts[name] = Part(
                np.ascontiguousarray(scaler(rows.values[np.ix_(own, chosen)])),
                rows.labels[own].astype(np.uint8),
                np.concatenate([encode(asked[own], bounds), rows.categories[None, own].astype(np.uint8)]),
                groups.units[own],
            )
        train = parts["train"]
        baseline = newton.fit(train.values, train.labels, np.arange(len(train.labels)))
        names, splits = (tuple(factor.name for factor in some) for some in (models, rules))
        described = {**groups.described, "units": {name: part.units.count for name, part in parts.items()}}
        return cls(parts, names, splits, tuple(quantiles), bounds, scaler, baseline, rows.dropped, seed, described)

    @property
    def taxonomy(self) -> list[Group]:
        """The categories as groups, in the order of `memtax.schema.CATEGORIES`."""
        place = len(self.split_on)
        return [((place, 0, False),), ((place, 0, True), (place, 1, False)), ((place, 1, True),)]

    def fit_groups(self, groups: Iterable[Group], threads: int | None = None) -> dict[Group, GroupFit]:
        """Models of the groups; those fitted before are reused."""
        wanted = list(dict.fromkeys(groups))
        missing = [group for group in wanted if group not in self.known]
        with ThreadPoolExecutor(threads or workers()) as pool:
            self.known.update(zip(missing, pool.map(self._fit_group, missing), strict=True))
        return {group: self.known[group] for group in wanted}

    def log_odds(self, part: str, groups: Sequence[Group]) -> Array:
        """Log odds (rows,) of a part's rows by the models of groups that cover them."""
        own = self.parts[part]
        result = np.full(len(own.labels), np.nan)
        for group, one in self.fit_groups(groups).items():
            rows = members(own.codes, group)
            result[rows] = newton.logits(own.values, rows, one.fit)
        return result

    def _fit_group(self, group: Group) -> GroupFit:
        train, validation = self.parts["train"], self.parts["validation"]
        rows = members(train.codes, group)
        reason = too_few(train.labels[rows].astype(bool), "training")
        fitted = self.baseline
        if reason is None and len(rows) < len(train.labels):
            fitted = newton.fit(train.values, train.labels, rows, self.baseline)
        judged = members(validation.codes, group)
        loss, brier = losses(newton.logits(validation.values, judged, fitted), validation.labels[judged])
        return GroupFit(fitted, float(loss.sum()), float(brier.sum()), len(rows), reason)


def losses(log_odds: Array, labels: NDArray[np.uint8]) -> tuple[Array, Array]:
    """Log loss in nats and squared error (rows,) of log odds (rows,)."""
    from scipy.special import expit

    # log(1 + exp(x)) - y x, without overflow.
    return np.logaddexp(0.0, log_odds) - labels * log_odds, (expit(log_odds) - labels) ** 2
