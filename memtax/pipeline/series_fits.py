"""A predictor for each model or checkpoint of a series, to see how weights and AUC change with training time and size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from memtax import schema
from memtax.engine import once
from memtax.errors import MemtaxError
from memtax.files import read_json, write_json
from memtax.pipeline.series import each_member
from memtax.predictor import factors as declared
from memtax.predictor.predictor import Predictor
from memtax.provenance import fingerprint_dataset

FILE = "fit.json"


def fit_series(
    series: pa.Table | None, table: pa.Table, output: Path, seed: int, further: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Fit one predictor for each member of a series, on the factors that are known before training.

    The members are scored only for their verdicts, so their own perplexities are not among the factors. Finished fits in
    `output` are reused.

    Args:
        series: from `memtax.pipeline.series.score_series`, each member's rows in the order of `table`.
        table: the sequences with their factors, `taxonomy`, and the columns needed for a split.
        output: folder of the fits, one per member.
        seed: random seed of the splits.
        further: further columns; those that are known before training are factors too.

    Returns:
        For each member `model`, `checkpoint`, `step`, `parameters`, and either `reason` (why nothing was fitted) or `rows`
        (number in each part of the split), `coefficients` (`model`, `factor`, `coefficient`: log-odds per standard deviation)
        and `auc` (group to `n`, `positives`, `units`, `value`, `low`, `high`, `reason`, for the taxonomic predictor on test
        sequences).
    """
    if series is None:
        return []
    usual = declared.available(table.column_names, declared.BEFORE_TRAINING)
    factors = (*usual, *(name for name in further if schema.column(name).before_training))
    fits = []
    for number, (facts, member) in enumerate(each_member(series)):
        own = table.set_column(table.column_names.index("is_memorized"), "is_memorized", member.column("is_memorized"))
        fits.append({**facts, **_fit(own, factors, output / f"{number:03d}", seed)})
    return fits


def _fit(table: pa.Table, factors: tuple[str, ...], folder: Path, seed: int) -> dict[str, Any]:
    sources = [source for factor in declared.resolve(factors, "is_memorized") for source in factor.sources]
    names = dict.fromkeys([*sources, "is_memorized", "taxonomy", "document", "tokens"])
    columns = [name for name in names if name in table.column_names]
    identity = {"stage": "series fit", "version": 1, "seed": seed, "factors": list(factors)}
    identity["table"] = fingerprint_dataset(table, columns)

    def make(temporary: Path) -> None:
        write_json(temporary / FILE, _measure(table, factors, seed))

    once(folder, identity, make)
    fit: dict[str, Any] = read_json(folder / FILE)
    return fit


def _measure(table: pa.Table, factors: tuple[str, ...], seed: int) -> dict[str, Any]:
    try:
        # The interval of the AUC needs no resamples.
        metrics = Predictor.fit(table, factors=factors, seed=seed, resamples=1).metrics
    except MemtaxError as error:
        # A member that cannot be fitted is reported, and does not stop the others or the run.
        return {"reason": str(error)}
    auc = {}
    for group, cell in metrics["models"]["taxonomic"].items():
        values = cell["roc_auc"] or dict.fromkeys(("value", "low", "high"))
        few = cell["interval_reason"] or "the two classes are in too few units for an interval"
        reason = cell["reason"] or (few if values["low"] is None else None)
        auc[group] = {**{name: cell[name] for name in ("n", "positives", "units")}, **values, "reason": reason}
    return {"rows": metrics["rows"], "coefficients": metrics["coefficients"], "auc": auc}
