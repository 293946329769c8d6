"""The main job: demo and run."""

from pathlib import Path
from typing import Annotated

import typer

from memtax.cli.base import Output, app


@app.command()
def demo(output: Output = Path("memtax-demo")) -> None:
    """Train a small model on the Python standard library and run everything on it: offline, in about three minutes.

    Example: `memtax demo --output runs/demo`
    """
    from memtax.demo import demo as run_demo
    from memtax.pipeline.summary import print_summary

    print_summary(run_demo(output))


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="YAML file, or the run.yaml of a finished run.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Run directory, instead of the file's.")] = None,
) -> None:
    """Run all stages on your own model and dataset.

    The file needs three keys: `model`, `corpus` and `output`; the README lists the others.

    Example: `memtax run config.yaml --output runs/mine`
    """
    from memtax.pipeline import RunConfig
    from memtax.pipeline import run as run_pipeline
    from memtax.pipeline.summary import print_summary

    print_summary(run_pipeline(RunConfig.load(config, output=None if output is None else str(output))))
