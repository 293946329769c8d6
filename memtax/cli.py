"""The `memtax` command: one short function per verb, which calls one library function and prints where the result is."""

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="memtax",
    help="Measure, explain and predict what a causal language model memorized from its training data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_debug = False

Output = Annotated[Path, typer.Option("--output", "-o", help="Run directory.")]


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")] = False,
) -> None:
    """Options of every verb."""
    from memtax.progress import set_quiet

    global _debug
    _debug = debug
    set_quiet(quiet)


@app.command()
def demo(output: Output = Path("memtax-demo")) -> None:
    """Train a small model on the Python standard library and run everything on it: offline, about four minutes.

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


@app.command()
def report(run: Annotated[Path, typer.Argument(help="Run directory.")]) -> None:
    """Write the report of a run again.

    Example: `memtax report runs/demo`
    """
    from memtax.report import write

    typer.echo(write(run))


@app.command()
def env() -> None:
    """Print what a bug report needs: versions, platform, processors, memory, accelerators.

    Example: `memtax env`
    """
    import yaml

    from memtax.provenance import environment

    typer.echo(yaml.safe_dump(environment(), sort_keys=False).rstrip())


def main() -> None:
    """Entry point: an error the user can mend is one line and exit status 2."""
    from memtax.errors import MemtaxError

    try:
        app()
    except MemtaxError as error:
        _fail(" ".join(str(error).split()))
    except OSError as error:
        # Disk full, read-only output, no permission: the file system's own words say it best.
        where = f": {error.filename}" if error.filename else ""
        _fail(f"{error.strerror or error}{where}")
    except KeyboardInterrupt:
        typer.echo("memtax: stopped; run the same command again to go on", err=True)
        raise SystemExit(130) from None


def _fail(message: str) -> None:
    if _debug:
        raise
    printable = "".join(character if character.isprintable() else "?" for character in message)
    typer.echo(f"memtax: {printable}", err=True)
    sys.exit(2)
