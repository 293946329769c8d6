"""The command itself: options of every verb, and how errors end it."""

import os
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

    # One look for every bar: ours. Read when `datasets` is imported.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    global _debug
    _debug = debug
    set_quiet(quiet)


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
