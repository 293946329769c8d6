"""The predictor: which sequences a model memorizes, from their factors, with one model for all and one per category."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memtax import statistics
from memtax.errors import MemtaxError
from memtax.predictor import factors as declared
from memtax.predictor import storage
from memtax.predictor.copies import Groups, held_by, split_groups
from memtax.predictor.evaluation import Prediction, evaluate
from memtax.predictor.factors import FACTORS
from memtax.predictor.logistic import Array, LogisticModel, Scaler, TooFewRowsError, fit_logistic, recalibrate, too_few
from memtax.predictor.split import Split, stratified_split
from memtax.predictor.usable_rows import Usable, read_ids, usable
from memtax.schema import CATEGORIES

if TYPE_CHECKING:
    import datasets

BASELINE = "baseline"
CALIBRATIONS = ("prior", "recalibration", "none")


@dataclass(frozen=True, eq=False)
class Predictor:
    """Fitted models and what they were found to be worth.

    Two predictors in one: *baseline* is one logistic regression for all sequences; *taxonomic* asks the model of the
    sequence's category (Prashanth et al. 2024, section 5). Counts and perplexities enter as log(1 + x), and every factor
    is standardized with the mean and standard deviation of all training rows, so that coefficients are per standard
    deviation and compare across models. The fits weight the classes equally; that shifts the log odds, and unless told
    otherwise the shift is subtracted again, so that probabilities are those of the data and calibration is judged honestly.

    Attributes:
        factors: names of the factors, in the order of the coefficients.
        target: the boolean column that is predicted.
        category: the column of categories.
        scaler: statistics of the training rows.
        models: `baseline`, and each category that had enough training rows.
        silent: categories without a model, with the reason; the baseline answers for their sequences.
        metrics: JSON-ready figures on the test rows: see `fit`.

    Example:
        >>> import numpy as np
        >>> import pyarrow as pa
        >>> from memtax import Predictor
        >>> duplicates = np.arange(600) % 50
        >>> noise = np.random.default_rng(0).normal(0, 10, 600)
        >>> memorized = duplicates + noise > 25
        >>> columns = {"sequence_duplicates": duplicates, "is_memorized": memorized, "taxonomy": np.arange(600) % 3}
        >>> table = pa.table(columns)
        >>> predictor = Predictor.fit(table, factors=["sequence_duplicates"], resamples=50)
        >>> sorted(predictor.models)
        ['baseline', 'recitation', 'recollection', 'reconstruction']
        >>> len(predictor.predict(table))
        600
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
        table: "pa.Table | datasets.Dataset",
        *,
        target: str = "is_memorized",
        factors: Sequence[str] = FACTORS,
        category: str = "taxonomy",
        validation: float = 0.2,
        test: float = 0.2,
        seed: int = 1024,
        resamples: int = 1000,
        memorized_only: pa.Table | None = None,
        calibration: Literal["prior", "recalibration", "none"] = "prior",
    ) -> "Predictor":
        """Fit on training rows, choose thresholds on validation rows, judge once on test rows.

        Rows with a null or non-finite value in a required column are left out, each counted under its first reason. Documents,
        and documents that hold copies or near-copies of each other, stay together (`memtax.predictor.copies`; columns
        `document`, `text` and `tokens`, if present); as far as they allow, parts are stratified by target and category. The
        threshold of F1 is the best on validation rows, one for the baseline and
        one per category (on training rows where validation lacks a class).

        Args:
            table: rows with the target, the category and the factors' columns.
            target: boolean column.
            factors: columns, or `is_templating` (incrementing or repeating).
            category: column of indices into `memtax.schema.CATEGORIES`.
            validation: share of the rows.
            test: share of the rows.
            seed: seed of the split and of the bootstrap.
            resamples: bootstrap resamples of each interval.
            memorized_only: more memorized sequences, for training alone (the published protocol: a representative sample,
                and all memorized sequences besides). Rows whose `sequence_id` is in `table` are left out, and so are
                copies of validation and test rows, and rows of their documents; those rows come from `table`, the
                representative sample.
            calibration: `prior` undoes, model by model, what balanced weights and memorized-only rows do to the log odds;
                `recalibration` fits slope and offset to each model's log odds on validation rows instead; `none` does
                neither.

        Returns:
            The predictor. Its `metrics` hold `target`, `factors`, `rows` and `dropped` (counts), `split` (its unit,
            groups and units of each part), `seed`, `models`
            (baseline and taxonomic, each with ROC-AUC, PR-AUC, ECE (15 bins of equal width), Brier score, log loss, F1,
            precision and recall in aggregate and by category, as value and 95% interval, or a reason), `differences`,
            `coefficients`, `constant` (factors that a model left out because they were constant), `thresholds` and `curves`.

        Raises:
            MemtaxError: a column is missing or of the wrong type, or a factor gives the target away.
            TooFewRowsError: fewer than 10 training rows are memorized (or are not).
        """
        if calibration not in CALIBRATIONS:
            raise MemtaxError(f"calibration is one of {', '.join(CALIBRATIONS)}, not {calibration!r}")
        table, chosen = _arrow(table), declared.resolve(factors, target)
        sample = usable(table, chosen, target, category)
        groups = split_groups(table)[sample.kept]
        split = stratified_split(sample.categories * 2 + sample.labels, validation, test, seed, groups.codes)
        few = too_few(sample.labels[split.train], "training")
        if few is not None:
            raise TooFewRowsError(f"no predictor of {target!r} can be fitted: {few} (rows left out: {sample.lost})")
        judged = np.flatnonzero(sample.kept)[np.concatenate([split.validation, split.test])]
        added, how = (
            (None, None)
            if memorized_only is None
            else _memorized_only(_arrow(memorized_only), table, judged, chosen, target, category)
        )
        names = tuple(factor.name for factor in chosen)
        raw = sample.values[split.train]
        scaler = Scaler.fit(raw if added is None else np.concatenate([raw, added.values]))
        del raw
        models, silent = _Fitting(scaler, sample, split, added, names, calibration).models()
        predictor = cls(names, target, category, scaler, models, silent, {})
        metrics = predictor._judge(sample, split, groups, resamples, seed)
        return replace(predictor, metrics={**metrics, "memorized_only": how, "calibration": calibration})

    def _judge(self, sample: Usable, split: Split, groups: Groups, resamples: int, seed: int) -> dict[str, Any]:
        """The figures on the test rows, and what they rest on."""
        values, categories = sample.values[split.test], sample.categories[split.test]
        predictions = {name: self._prediction(self.scaler(values), categories, name) for name in (BASELINE, "taxonomic")}
        parts = {"train": split.train, "validation": split.validation, "test": split.test}
        return {
            "target": self.target,
            "factors": list(self.factors),
            "rows": {name: len(rows) for name, rows in parts.items()},
            "split": {**groups.described, "units": {name: groups.units[rows].count for name, rows in parts.items()}},
            "dropped": sample.dropped,
            "seed": seed,
            **evaluate(sample.labels[split.test], categories, predictions, resamples, seed, units=groups.units[split.test]),
            "coefficients": _coefficients(self.models, self.factors),
            "constant": {name: list(model.constant) for name, model in self.models.items()},
            "thresholds": {name: model.threshold for name, model in self.models.items()},
        }

    def predict(self, table: "pa.Table | datasets.Dataset", model: Literal["taxonomic", "baseline"] = "taxonomic") -> pa.Array:
        """Probability that each sequence is memorized.

        Args:
            table: rows with the factors' columns, and the category for the taxonomic model; a pyarrow table or a
                `datasets.Dataset`.
            model: `taxonomic` or `baseline`.

        Returns:
            (rows,) float64; null where a factor (or the category) is null or not finite.

        Raises:
            MemtaxError: a column is missing or of the wrong type, or the model has another name.
        """
        if model not in ("taxonomic", "baseline"):
            raise MemtaxError(f"model is 'taxonomic' or 'baseline', not {model!r}")
        table = _arrow(table)
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

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, token: str | None = None, message: str | None = None
    ) -> str:
        """Save to a model repository on the Hub, which is made if it is not there.

        Args:
            repo_id: `organization/name`.
            private: whether a new repository is private; None takes the organization's default.
            token: of the Hub; None takes the one that is logged in.
            message: of the commit.

        Returns:
            Address of the commit.

        Raises:
            MemtaxError: the Hub refuses or cannot be reached.
        """
        return storage.push(self, repo_id, private, token, message)

    @classmethod
    def from_pretrained(cls, directory: Path | str, revision: str | None = None, token: str | None = None) -> "Predictor":
        """Read a predictor that `save_pretrained` wrote.

        Args:
            directory: a folder, or else a model repository on the Hub.
            revision: branch, tag or commit on the Hub.
            token: of the Hub; None takes the one that is logged in.

        Raises:
            MemtaxError: there is no predictor, or its files do not belong together.
        """
        return cls(**storage.load(storage.fetch(directory, revision, token)))

    def _prediction(self, standardized: Array, categories: NDArray[np.int64], model: str) -> Prediction:
        """Probabilities and decisions of rows with known factors and category."""
        baseline = self.models[BASELINE]
        probabilities = baseline.probability(standardized)
        thresholds = np.full(len(standardized), baseline.threshold)
        if model == BASELINE:
            return Prediction(probabilities, probabilities >= thresholds, {})
        for code, name in enumerate(CATEGORIES):
            own = categories == code
            if name in self.models and own.any():
                probabilities[own] = self.models[name].probability(standardized[own])
                thresholds[own] = self.models[name].threshold
        return Prediction(probabilities, probabilities >= thresholds, self.silent)


@dataclass(frozen=True, eq=False)
class _Fitting:
    """Data that the models are fitted on.

    Attributes:
        scaler: of the factors, from training rows.
        sample: the rows of the dataset that are complete.
        split: which of them train, validate and test.
        added: further memorized rows, for training alone; None for none.
        names: of the factors.
        calibration: what is done about the shift that weights and added rows make.
    """

    scaler: Scaler
    sample: Usable
    split: Split
    added: Usable | None
    names: tuple[str, ...]
    calibration: str

    def models(self) -> tuple[dict[str, LogisticModel], dict[str, str]]:
        """The baseline and the categories' models, and why a category has none."""
        found = self._fit(None)
        if isinstance(found, str):
            raise TooFewRowsError(f"no predictor can be fitted: {found}")
        models, silent = {BASELINE: found}, {}
        for code, name in enumerate(CATEGORIES):
            found = self._fit(code)
            if isinstance(found, str):
                silent[name] = f"{found}; the baseline model answers for {name}"
            else:
                models[name] = found
        return models, silent

    def _fit(self, code: int | None) -> LogisticModel | str:
        """The model of a category (None: of all rows), or why there is none."""
        train, validation = (self._rows(rows, code) for rows in (self.split.train, self.split.validation))
        sampled = self.sample.labels[train]
        values, labels = self.sample.values[train], sampled
        few = too_few(sampled, "training")
        if few is None and self.calibration == "recalibration":
            few = too_few(self.sample.labels[validation], "validation")
        if few is not None:
            return few
        if self.added is not None:
            own = slice(None) if code is None else self.added.categories == code
            values = np.concatenate([values, self.added.values[own]])
            labels = np.concatenate([labels, self.added.labels[own]])
        # The sample is representative: of its positives all the others are extra.
        ratio = float(labels.sum() / sampled.sum()) if self.calibration == "prior" else None
        model = fit_logistic(self.scaler(values), labels, self.names, ratio)
        del values
        judged = self.scaler(self.sample.values[validation])
        if self.calibration == "recalibration":
            try:
                model = replace(model, recalibration=recalibrate(model.log_odds(judged), self.sample.labels[validation]))
            except MemtaxError as error:
                if code is None:
                    raise
                return str(error)
        truth = self.sample.labels[validation]
        if not 0 < truth.sum() < len(truth):
            judged, truth = self.scaler(self.sample.values[train]), sampled
        return replace(model, threshold=statistics.best_threshold(truth, model.probability(judged)))

    def _rows(self, rows: NDArray[np.int64], code: int | None) -> NDArray[np.int64]:
        return rows if code is None else rows[self.sample.categories[rows] == code]


def _arrow(table: Any) -> pa.Table:
    """The rows as a pyarrow table.

    Raises:
        MemtaxError: it is neither that nor a `datasets.Dataset`.
    """
    if isinstance(table, pa.Table):
        return table
    if hasattr(table, "with_format") and hasattr(table, "column_names"):
        # Through the dataset, so that a selection of rows counts.
        return table.with_format("arrow")[:]
    raise MemtaxError(f"a pyarrow.Table or a datasets.Dataset is needed, not {type(table).__name__}")


def _memorized_only(
    extra: pa.Table,
    table: pa.Table,
    judged_rows: NDArray[np.int64],
    chosen: Sequence[declared.Factor],
    target: str,
    category: str,
) -> tuple[Usable, dict[str, Any]]:
    """Usable rows of the extra table that are memorized and not in the sample, and what became of the others."""
    what = "the memorized-only table"
    ids, known = read_ids(extra, what), read_ids(table, "the table")
    _, first = np.unique(ids, return_index=True)
    once = np.zeros(len(ids), bool)
    once[first] = True
    new = ~np.isin(ids, known)
    copies = held_by(extra, table, judged_rows)
    found = usable(extra.filter(new & once & ~copies), chosen, target, category, what)
    rows = found.labels
    how = {
        "rows": int(rows.sum()),
        "in_the_sample": int((~new).sum()),
        "repeated": int((new & ~once).sum()),
        "copies_of_judged": int((new & once & copies).sum()),
        "not_memorized": int((~rows).sum()),
        "dropped": found.dropped,
    }
    return replace(found, values=found.values[rows], labels=rows[rows], categories=found.categories[rows]), how


def _coefficients(models: dict[str, LogisticModel], names: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"model": model, "factor": name, "coefficient": float(coefficient)}
        for model, fitted in models.items()
        for name, coefficient in zip(names, fitted.coefficients, strict=True)
        if name not in fitted.constant
    ]
