"""`memtax demo`: the main job with built-in data."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from memtax.jobs.base import Finished, Job
from memtax.settings import option


@dataclass(frozen=True, kw_only=True)
class Demo(Job):
    """Train a small model on the Python standard library and run everything on it: offline, in a few minutes.

    Example: `memtax demo --output runs/demo`
    """

    needs: ClassVar[tuple[str, ...]] = ("lm", "report", "stats")

    output: Path = option("Run directory.", Path("memtax-demo"), short="-o")

    def run(self) -> Finished:
        """Prepare corpus, tokenizer and model, then run all stages; the record is that of the run."""
        from memtax import demo, outputs
        from memtax.jobs.run import Run
        from memtax.settings import from_values

        with outputs.hold_job(self.output, "memtax demo"):
            return from_values(Run, demo.prepare(self.output).to_dict()).run()
