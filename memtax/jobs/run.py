"""`memtax run`: all stages on the user's model and corpus."""

from dataclasses import dataclass
from typing import ClassVar

from memtax.jobs.base import Job, Result, Work
from memtax.pipeline.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Run(RunConfig, Job):
    """Run all stages on your own model and dataset.

    CONFIG is a YAML file with the options below as keys, or the `run.yaml` of a finished run. Required are `model`, `corpus`
    and `output`.

    Example: `memtax run config.yaml --output runs/mine`
    """

    needs: ClassVar[tuple[str, ...]] = ("lm", "report", "stats")

    config_is_positional: ClassVar[bool] = True

    def make(self, work: Work) -> Result:
        """See `memtax.pipeline.run`."""
        from memtax import report
        from memtax.pipeline.run import run
        from memtax.pipeline.summary import summary_lines

        found = run(self)
        if found is None:
            return Result("", [], {})
        return Result(
            title=f"{found.metrics['run']['title']}: memorized sequences",
            tables=found.configs,
            figures=found.metrics,
            lines=summary_lines(found.metrics),
            facts=found.facts,
            page=report.write,
            inputs=found.inputs,
            license_id=self.license,
            recitation_threshold=self.recitation_threshold,
        )
