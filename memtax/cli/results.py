"""What is done with results: report, compare, explore, push, env."""

from pathlib import Path
from typing import Annotated

import typer

from memtax.cli.base import app


@app.command()
def report(run: Annotated[Path, typer.Argument(help="Run directory.")]) -> None:
    """Write the report of a run again.

    Example: `memtax report runs/demo`
    """
    from memtax.report import write

    typer.echo(write(run))
