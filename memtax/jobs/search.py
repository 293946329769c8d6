"""`memtax search`: all two-rule partitions of the sequences, chosen on validation rows, evaluated once on test rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from memtax.jobs.base import Job, Result, Rows, Work
from memtax.settings import argument, option


@dataclass(frozen=True, kw_only=True)
class Search(Job):
    """Search all two-rule partitions: chosen on validation rows, evaluated once on test rows.

    Several machines can each search a slice (`--start`, `--stop`); one of them then merges the others with `--merge`.

    Example: `memtax search runs/demo/dataset:features --output runs/demo/search --greedy`
    """

    needs: ClassVar[tuple[str, ...]] = ("report",)

    data: str = argument("Dataset of sequences with their factors: path[:config[:split]].")
    factors: tuple[str, ...] = option(
        "Columns of the models; NAME:linear or NAME:log for your own. Default: the published ones.", ()
    )
    split_on: tuple[str, ...] = option("Columns that rules test; default: the published ones.", ())
    quantiles: tuple[float, ...] = option("Quantiles of memorized rows that rules compare with.", (0.25, 0.5, 0.75))
    criterion: Literal["log_loss", "brier", "roc_auc", "pr_auc", "f1"] = option(
        "Criterion for the best partition, on validation rows.", "log_loss"
    )
    target: str = option("Boolean column to predict.", "is_memorized")
    seed: int = option("Random seed of split and bootstrap.", 1024, least=0, most=2**32 - 1)
    resamples: int = option("Bootstrap resamples per interval.", 1000, least=1)
    start: int = option("First partition of this slice.", 0, least=0)
    stop: int | None = option("End of this slice (exclusive).", None)
    merge: tuple[Path, ...] = option("Output with another slice.", ())
    greedy: bool = option("Also grow a partition rule by rule.", False)

    def make(self, work: Work) -> Result:
        """See `memtax.predictor.partition_search` and `memtax.pipeline.fitting`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from memtax.pipeline import fitting

        folder = work.output / "parts"
        found = fitting.search(
            self.data,
            folder,
            start=self.start,
            stop=self.stop,
            merged=[path / "parts" if (path / "parts").is_dir() else path for path in self.merge],
            greedy=self.greedy,
            factors=self.factors or None,
            split_on=self.split_on or None,
            quantiles=list(self.quantiles),
            criterion=self.criterion,
            target=self.target,
            seed=self.seed,
            resamples=self.resamples,
        )
        if found is None:
            return Result("Partition search", [], {}, [f"partitions {folder}"])
        table: pa.Table = pq.read_table(folder / "partitions.parquet")
        figures = {name: value for name, value in found.items() if name != "ranked"}
        return Result(
            title="Partition search",
            tables=[Rows("partitions", "One row per partition, best first, with its criterion on validation rows.", table)],
            figures=figures,
            lines=_lines(figures),
        )


def _lines(figures: Mapping[str, Any]) -> list[str]:
    from memtax.jobs.fit import auroc_lines

    rule, models = figures["chosen"], figures["metrics"]["models"]
    return [
        f"A if {rule['factor_1']} >= {rule['threshold_1']:g}, else B if {rule['factor_2']} >= {rule['threshold_2']:g}, else C",
        f"the best of {figures['partitions']:,} partitions by {figures['criterion']} on validation rows; on test rows:",
        *auroc_lines({name: {"aggregate": groups["aggregate"]} for name, groups in models.items()}),
    ]
