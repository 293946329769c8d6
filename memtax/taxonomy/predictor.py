"""The predictor: which sequences a model memorizes, from their factors, with one model for all and one a category."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from memtax import statistics
from memtax.errors import MemtaxError
from memtax.schema import CATEGORIES
from memtax.taxonomy import factors as declared
from memtax.taxonomy import storage
from memtax.taxonomy.evaluation import Prediction, evaluate
from memtax.taxonomy.factors import FACTORS
from memtax.taxonomy.logistic import Array, LogisticModel, Scaler, TooFewRowsError, fit_logistic, too_few
from memtax.taxonomy.split import Split, stratified_split

if TYPE_CHECKING:
    import pyarrow as pa

BASELINE = "baseline"


@dataclass(frozen=True, eq=False)
class Predictor:
    """Fitted models and what they were found to be worth.

    Two predictors in one: *baseline* is one logistic regression for all sequences; *taxonomic* asks the model of the
    sequence's category (Prashanth et al. 2024, section 5). Counts and perplexities enter as log(1 + x), and every factor
    is standardised with the mean and standard deviation of all training rows, so that coefficients are per standard
    deviation and compare across models. The fits weight the classes equally; that shifts the log odds, and the shift
    is subtracted again, so that probabilities are those of the data and calibration is judged honestly.

    Attributes:
        factors: names of the factors, in the order of the coefficients.
        target: the boolean column that is predicted.
        category: the column of categories.
        scaler: statistics of the training rows.
        models: `baseline`, and each category that had enough training rows.
        silent: categories without a model, with the reason; the baseline answers for their sequences.
        metrics: JSON-ready figures on the test rows: see `fit`.
    """

    factors: tuple[str, ...]
    target: str
    category: str
    scaler: Scaler
    models: dict[str, LogisticModel]
    silent: dict[str, str]
    metrics: dict[str, Any]

    @classmethod
    def fit(
        cls,
        table: "pa.Table",
        *,
        target: str = "is_memorized",
        factors: Sequence[str] = FACTORS,
        category: str = "taxonomy",
        validation: float = 0.2,
        test: float = 0.2,
        seed: int = 1024,
        resamples: int = 1000,
    ) -> "Predictor":
        """Fit on training rows, choose thresholds on validation rows, judge once on test rows.

        Rows with a null or non-finite value that is needed are left out and counted by the first reason. Parts are
        stratified by target and category. The threshold of F1 is the best on validation rows, one for the baseline and
        one a category (on training rows where validation lacks a class).

        Args:
            table: rows with the target, the category and the factors' columns.
            target: boolean column.
            factors: columns, or `is_templating` (incrementing or repeating).
            category: column of indices into `memtax.schema.CATEGORIES`.
            validation: share of the rows.
            test: share of the rows.
            seed: seed of the split and of the bootstrap.
            resamples: bootstrap resamples of each interval.

        Returns:
            The predictor. Its `metrics` hold `target`, `factors`, `rows` and `dropped` (counts), `seed`, `models`
            (baseline and taxonomic, each with ROC-AUC, PR-AUC, ECE, Brier and F1 in aggregate and by category, as value
            and 95% interval, or a reason), `differences`, `coefficients`, `constant` (factors that a model left out
            because they were constant), `thresholds` and `curves`.

        Raises:
            MemtaxError: a column is missing or of the wrong type, or a factor gives the target away.
            TooFewRowsError: fewer than 10 training rows are memorized (or are not).
        """
        chosen = declared.resolve(factors, target)
        values, labels, categories, dropped = _usable(table, chosen, target, category)
        split = stratified_split(categories * 2 + labels, validation, test, seed)
        few = too_few(labels[split.train], "training")
        if few is not None:
            lost = ", ".join(f"{count} rows because {reason}" for reason, count in dropped.items()) or "none"
            raise TooFewRowsError(f"no predictor of {target!r} can be fitted: {few} (rows left out: {lost})")

        names = tuple(factor.name for factor in chosen)
        scaler = Scaler.fit(values[split.train])
        standardised = scaler(values)
        models, silent = _fit_models(standardised, labels, categories, split, names)
        predictor = cls(names, target, category, scaler, models, silent, {})
        rows = split.test
        predictions = {
            name: predictor._prediction(standardised[rows], categories[rows], name) for name in ("baseline", "taxonomic")
        }
        parts = {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)}
        metrics = {
            "target": target,
            "factors": list(names),
            "rows": parts,
            "dropped": dropped,
            "seed": seed,
            **evaluate(labels[rows], categories[rows], predictions, resamples, seed),
            "coefficients": _coefficients(models, names),
            "constant": {name: list(model.constant) for name, model in models.items()},
            "thresholds": {name: model.threshold for name, model in models.items()},
        }
        return replace(predictor, metrics=metrics)

    def predict(self, table: "pa.Table", model: Literal["taxonomic", "baseline"] = "taxonomic") -> "pa.Array":
        """Probability that each sequence is memorized.

        Args:
            table: rows with the factors' columns, and the category for the taxonomic model.
            model: `taxonomic` or `baseline`.

        Returns:
            (rows,) float64; null where a factor (or the category) is null or not finite.

        Raises:
            MemtaxError: a column is missing or of the wrong type, or the model has another name.
        """
        import pyarrow as pa

        if model not in ("taxonomic", "baseline"):
            raise MemtaxError(f"model is 'taxonomic' or 'baseline', not {model!r}")
        values = declared.matrix(table, declared.resolve(self.factors, self.target))
        known = np.isfinite(values).all(axis=1)
        categories = np.zeros(len(values), np.int64)
        if model == "taxonomic":
            categories, given = declared.read_category(table, self.category)
            known &= given
        probabilities = np.zeros(len(values))
        probabilities[known] = self._prediction(self.scaler(values[known]), categories[known], model).probabilities
        return pa.array(probabilities, mask=~known)

    def save_pretrained(self, directory: Path | str) -> None:
        """Write `predictor.json`, `model.safetensors` and a card; `from_pretrained` reads them back equal to the bit."""
        storage.save(self, Path(directory))

    @classmethod
    def from_pretrained(cls, directory: Path | str) -> "Predictor":
        """Read a predictor that `save_pretrained` wrote.

        Raises:
            MemtaxError: the folder holds no predictor, or its files do not belong together.
        """
        return cls(**storage.load(Path(directory)))

    def _prediction(self, standardised: Array, categories: NDArray[np.int64], model: str) -> Prediction:
        """Probabilities and decisions of rows with known factors and category."""
        baseline = self.models[BASELINE]
        probabilities = baseline.probability(standardised)
        thresholds = np.full(len(standardised), baseline.threshold)
        if model == BASELINE:
            return Prediction(probabilities, probabilities >= thresholds, {})
        for code, name in enumerate(CATEGORIES):
            own = categories == code
            if name in self.models and own.any():
                probabilities[own] = self.models[name].probability(standardised[own])
                thresholds[own] = self.models[name].threshold
        return Prediction(probabilities, probabilities >= thresholds, self.silent)


def _usable(
    table: "pa.Table", chosen: Sequence[declared.Factor], target: str, category: str
) -> tuple[Array, NDArray[np.bool_], NDArray[np.int64], dict[str, int]]:
    """Factors, labels and categories of the rows that have them all, and how many rows lack what."""
    labels, labelled = declared.read_target(table, target)
    categories, categorised = declared.read_category(table, category)
    values = declared.matrix(table, chosen)
    missing = {f"{target} is null": ~labelled, f"{category} is null": ~categorised}
    for column, factor in zip(values.T, chosen, strict=True):
        missing[f"{factor.name} is null"] = np.isnan(column)
        missing[f"{factor.name} is infinite"] = np.isinf(column)
    keep, dropped = np.ones(len(labels), bool), {}
    for reason, rows in missing.items():
        if (keep & rows).any():
            dropped[reason] = int((keep & rows).sum())
            keep &= ~rows
    return values[keep], labels[keep], categories[keep], dropped


def _fit_models(
    standardised: Array, labels: NDArray[np.bool_], categories: NDArray[np.int64], split: Split, names: Sequence[str]
) -> tuple[dict[str, LogisticModel], dict[str, str]]:
    """The baseline and the categories' models, and why a category has none."""
    models = {BASELINE: _fit_one(standardised, labels, split.train, split.validation, names)}
    silent = {}
    for code, name in enumerate(CATEGORIES):
        train, validation = (rows[categories[rows] == code] for rows in (split.train, split.validation))
        few = too_few(labels[train], "training")
        if few is None:
            models[name] = _fit_one(standardised, labels, train, validation, names)
        else:
            silent[name] = f"{few}; the baseline model answers for {name}"
    return models, silent


def _fit_one(
    standardised: Array,
    labels: NDArray[np.bool_],
    train: NDArray[np.int64],
    validation: NDArray[np.int64],
    names: Sequence[str],
) -> LogisticModel:
    model = fit_logistic(standardised[train], labels[train], names)
    rows = validation if 0 < labels[validation].sum() < len(validation) else train
    return replace(model, threshold=statistics.best_threshold(labels[rows], model.probability(standardised[rows])))


def _coefficients(models: dict[str, LogisticModel], names: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"model": model, "factor": name, "coefficient": float(coefficient)}
        for model, fitted in models.items()
        for name, coefficient in zip(names, fitted.coefficients, strict=True)
        if name not in fitted.constant
    ]
