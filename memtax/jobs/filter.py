"""`memtax filter`: filters of the catalogue applied to a dataset, locally or on Spark."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from memtax.errors import MemtaxError
from memtax.extras import require
from memtax.jobs.base import Job, Result, Rows, Work
from memtax.jobs.options import BatchOption, PlacementOptions
from memtax.settings import argument, option


@dataclass(frozen=True, kw_only=True)
class Filter(PlacementOptions, BatchOption, Job):
    """Add the columns of filters to a dataset.

    Example: `memtax filter duplicates templates runs/demo/dataset:features --counts counts --output filtered`
    """

    names: tuple[str, ...] = argument(
        "Filters of the catalogue, in execution order, then the dataset as path[:config[:split]].", source=False
    )
    counts: str | None = option("For duplicates: output of memtax count, or org/name::split.", None)
    frequencies: str | None = option("For token_frequencies; default: --counts.", None)
    model: str | None = option("For scores and other filters with a model.", None, short="-m")
    set: tuple[str, ...] = option("Another parameter of a filter, as NAME=VALUE.", ())
    engine: Literal["local", "spark"] = option("Where the filters run.", "local")
    master: str | None = option("Spark master, such as spark://host:7077 or local[4].", None)

    def make(self, work: Work) -> Result:
        """See `memtax.pipeline.filtering`."""
        from memtax.corpus.sources import Source, split_name
        from memtax.pipeline.filtering import apply_filters
        from memtax.provenance import fingerprint_path

        if self.engine == "spark":
            require("--engine spark", "spark")
        if len(self.names) < 2:
            raise MemtaxError("give at least one filter and then the dataset: memtax filter NAME... DATASET --output DIR")
        *names, data = self.names

        def stage(rows: Any, function: Any, folder: str, rows_per_batch: int) -> Any:
            if self.engine == "local":
                return work.stage(rows, function, folder, rows_per_batch)
            from memtax.engine.spark import run_on_spark

            return run_on_spark(rows, function, work.output / folder, rows_per_batch, self.master)

        parameters = self._parameters(names)
        table, nulls = apply_filters(names, Source.parse(data), stage, parameters)
        missing = ", ".join(f"{name} {count:,}" for name, count in nulls.items() if count)
        return Result(
            title=f"{Path(split_name(data)[0]).name} with {', '.join(names)}",
            tables=[Rows("features", "One row per sequence, with the columns of the filters.", table)],
            figures={"filters": names, "rows": table.num_rows, "nulls": nulls},
            lines=[
                f"{table.num_rows:,} rows, columns added: {', '.join(nulls)}",
                *([f"nulls    {missing}"] if missing else []),
            ],
            inputs={"data": fingerprint_path(split_name(data)[0])},
        )

    def _parameters(self, names: list[str]) -> dict[str, Any]:
        """Parameters of the filters by field name."""
        from memtax.filters import parse_parameters

        given = {"counts": self.counts, "frequencies": self.frequencies or self.counts, "model": self.model}
        given |= {name: getattr(self, name) for name in ("device_map", "quantization", "batch_size")}
        parameters: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if self.frequencies is None and "token_frequencies" not in names:
            parameters.pop("frequencies", None)
        if "duplicates" not in names and self.frequencies is None:
            parameters.pop("counts", None)
        return parameters | parse_parameters(self.set)
