"""The main job: demo and run."""

from pathlib import Path
from typing import Annotated

import typer

from memtax.cli.base import Output, app
from memtax.cli.outcome import Outcome


@app.command()
def demo(output: Output = Path("memtax-demo")) -> Outcome:
    """Train a small model on the Python standard library and run everything on it: offline, in about three minutes.

    Example: `memtax demo --output runs/demo`
    """
    from memtax.demo import demo as run_demo
    from memtax.pipeline.summary import summary, summary_lines

    found = run_demo(output)
    return Outcome(summary(found), summary_lines(found))


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="YAML file, or the run.yaml of a finished run.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Run directory, instead of the file's.")] = None,
) -> Outcome:
    """Run all stages on your own model and dataset.

    The file needs three keys: `model`, `corpus` and `output`; the README lists the others.

    Example: `memtax run config.yaml --output runs/mine`
    """
    from memtax.pipeline import RunConfig
    from memtax.pipeline import run as run_pipeline
    from memtax.pipeline.summary import summary, summary_lines

    found = run_pipeline(RunConfig.load(config, output=None if output is None else str(output)))
    return Outcome(summary(found), summary_lines(found))
