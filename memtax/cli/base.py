"""The command itself: options of every verb, and how errors end it."""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand


class Verb(TyperCommand):
    """A verb: its output directory is its own while it runs, and a signal ends it with a line that says how to go on."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        from memtax.engine.lock import hold

        output = ctx.params.get("output")
        try:
            if output is None:
                return super().invoke(ctx)
            with hold(output, f"memtax {self.name}"):
                return super().invoke(ctx)
        except KeyboardInterrupt as stopped:
            typer.echo("memtax: stopped; run the same command again to go on", err=True)
            raise SystemExit(stopped.args[0] if stopped.args else 130) from None


class _Typer(typer.Typer):
    def command(self, *arguments: Any, **options: Any) -> Any:
        return super().command(*arguments, cls=Verb, **options)


def _terminated(number: int, _frame: object) -> None:
    # As Ctrl-C ends a program: what is half-written is removed on the way out.
    raise KeyboardInterrupt(128 + number)


app = _Typer(
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

    signal.signal(signal.SIGTERM, _terminated)
    try:
        app()
    except MemtaxError as error:
        _fail(" ".join(str(error).split()))
    except OSError as error:
        # Disk full, read-only output, no permission: the file system's own words say it best.
        where = f": {error.filename}" if error.filename else ""
        _fail(f"{error.strerror or error}{where}")


def _fail(message: str) -> None:
    if _debug:
        raise
    printable = "".join(character if character.isprintable() else "?" for character in message)
    typer.echo(f"memtax: {printable}", err=True)
    sys.exit(2)
