"""`memtax run`: all stages on the user's model and corpus."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from memtax.jobs.base import Job, Result, Work
from memtax.pipeline.config import RunConfig
from memtax.published.presets import PRESETS, preset_settings
from memtax.settings import option


@dataclass(frozen=True, kw_only=True)
class Run(RunConfig, Job):
    """Run all stages on your own model and dataset.

    CONFIG is a YAML file with the options below as keys, or the `run.yaml` of a finished run. Required are `model`, `corpus`
    and `output`, or `preset`.

    Example: `memtax run config.yaml --output runs/mine`
    """

    preset: str | None = option(
        "Settings for a published model whose training data are known (`pythia:70m-deduped`, `olmo:1b`, "
        "`hubble:1b-100b-wikipedia`); other options come first.",
        None,
        choices=tuple(PRESETS),
    )

    needs: ClassVar[tuple[str, ...]] = ("lm", "report", "stats")

    config_is_positional: ClassVar[bool] = True

    @classmethod
    def expand(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values, after those of the preset that they name."""
        name = values.get("preset")
        return {**(preset_settings(str(name)) if name is not None else {}), **values}

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
