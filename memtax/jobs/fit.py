"""`memtax fit`: the predictor of memorization, with tests, intervals and figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from memtax.jobs.base import Job, Result, Rows, Work
from memtax.jobs.options import DTYPE, BatchOption, PlacementOptions
from memtax.settings import Bos, Dtype, argument, option

FOLDER = "models/predictor"
"""Folder of the predictor in the output."""


@dataclass(frozen=True, kw_only=True)
class Fit(PlacementOptions, BatchOption, Job):
    """Fit the predictor: one model for all sequences and one for each category, with tests, intervals and figures.

    Example: `memtax fit runs/demo/dataset:features --output runs/demo/predictor`
    """

    needs: ClassVar[tuple[str, ...]] = ("report", "stats")

    data: str = argument("Dataset of sequences with their factors: path[:config[:split]].")
    factors: tuple[str, ...] = option("Columns; NAME:linear or NAME:log for your own. Default: the published ones.", ())
    before_training: bool = option("Use only factors that are known before a model exists.", False)
    target: str = option("Boolean column to predict.", "is_memorized")
    category: str = option("Column of categories.", "taxonomy")
    memorized_only: str | None = option("Additional memorized sequences, for training only.", None, source=True)
    calibration: Literal["prior", "recalibration", "none"] = option("How probabilities are calibrated.", "prior")
    seed: int = option("Random seed of split and bootstrap.", 1024, least=0, most=2**32 - 1)
    resamples: int = option("Bootstrap resamples per interval.", 1000, least=1)
    explain: bool = option("Also test coefficients and compute correlations.", True)
    probe: str | None = option("Language model whose layers are probed; requires tokens in the data.", None, source=True)
    bos: Bos = option(
        "Beginning-of-sequence token before each row, never scored: auto (if the tokenizer adds it), always or never.", "auto"
    )
    dtype: Dtype = option(DTYPE, "auto")

    def make(self, work: Work) -> Result:
        """See `memtax.predictor.predictor` and `memtax.pipeline.fitting`."""
        import pyarrow as pa

        from memtax.lm.resident import Placement
        from memtax.pipeline import fitting

        folder = work.output / FOLDER
        predictor = fitting.fit(
            self.data,
            folder,
            factors=self.factors or None,
            before_training=self.before_training,
            target=self.target,
            category=self.category,
            memorized_only=self.memorized_only,
            calibration=self.calibration,
            seed=self.seed,
            resamples=self.resamples,
            explain=self.explain,
        )
        if self.probe is not None:
            placement = Placement(self.dtype, self.device_map, self.quantization)
            size = self.batch_size
            fitting.probe_layers(self.data, self.probe, predictor, folder, bos=self.bos, placement=placement, batch_size=size)
        names = ("target", "factors", "rows", "dropped", "models")
        figures = {name: predictor.metrics.get(name) for name in names}
        rows = evaluation_rows(figures["models"] or {})
        return Result(
            title="Predictor of memorization",
            tables=[Rows("evaluation", "One row per model, group of test rows and metric.", pa.Table.from_pylist(rows))],
            figures=figures,
            lines=[*auroc_lines(figures["models"] or {}), f"predictor {folder}"],
            files=["models"],
        )


def evaluation_rows(models: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Metrics of each model on each group of the test rows, one row per metric.

    Args:
        models: model to group to its metrics, as returned by `memtax.predictor.evaluation.evaluate`.
    """
    return [
        {"model": model, "group": group, "metric": metric, **{key: value.get(key) for key in ("value", "low", "high")}}
        for model, groups in models.items()
        for group, metrics in groups.items()
        for metric, value in metrics.items()
        if isinstance(value, Mapping) and "value" in value
    ]


def auroc_lines(models: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """ROC-AUC on the test rows, one line per model and group."""
    from memtax.report.words import estimate, label

    lines = []
    for model, groups in models.items():
        for group, metrics in groups.items():
            area = metrics.get("roc_auc")
            shown = estimate(area).replace("\u00a0", " ") if area else f"withheld: {metrics.get('reason')}"
            lines.append(f"{model:<11}{label(group):<15}ROC-AUC {shown}")
    return lines
