"""The command itself: options of every verb, and how errors end it."""

import atexit
import contextlib
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from typer.core import TyperCommand

import memtax
from memtax.cli import outcome

Number = TypeVar("Number", int, float)


class Verb(TyperCommand):
    """A verb: it prints what it found, and a signal ends it in one line."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb and print what it found."""
        try:
            found = super().invoke(ctx)
            if isinstance(found, outcome.Outcome):
                found.tell(outcome.mode.json, outcome.mode.quiet)
            return found
        except KeyboardInterrupt:
            # Here, because Click would end it without a word.
            _stop()
        except Exception:
            # Compilers and other libraries turn the interruption into errors of their own.
            if _signal is None:
                raise
            _stop()


def _stop() -> NoReturn:
    signal.setitimer(signal.ITIMER_REAL, 0)
    typer.echo("\nmemtax: interrupted; finished parts are kept. Run the same command again to resume.", err=True)
    raise SystemExit(143 if _signal == signal.SIGTERM else 130) from None


def _leave(code: int) -> NoReturn:
    """End the process after an interruption, without the destructors of threads that still run: those abort it."""
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


class _Interruption(KeyboardInterrupt):
    """A signal: libraries treat it as Ctrl-C.

    Not `KeyboardInterrupt` itself: where that passes through code that is executed from a string (dataclasses, numba), Python
    takes it for one that nobody caught, and `python -m` would end by the signal instead of in one line.
    """


_signal: int | None = None
"""The signal that came."""

PATIENCE = 10.0
"""Seconds after which a signal is raised again: libraries swallow exceptions in callbacks and while they are imported."""


def _interrupted(number: int, frame: FrameType | None) -> None:
    # A second signal ends at once.
    signal.signal(number, signal.SIG_DFL)
    global _signal
    _signal = number

    def again(number: int, frame: FrameType | None) -> None:
        raise _Interruption

    sys.unraisablehook = _swallowed
    signal.signal(signal.SIGALRM, again)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE, PATIENCE)
    raise _Interruption


def _swallowed(what: "sys.UnraisableHookArgs") -> None:
    """An interruption that came in a callback, where Python drops it, comes again at once; its traceback is no news."""
    if isinstance(what.exc_value, KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, 0.01, PATIENCE)
    else:
        sys.__unraisablehook__(what)


class _App(typer.Typer):
    """Makes every command a `Verb` with `--json` and `--quiet`."""

    def command(
        self, name: str | None = None, *, cls: type[TyperCommand] | None = None, **options: Any
    ) -> Callable[[Any], Any]:
        """See `typer.Typer.command`."""
        register = super().command(name, cls=cls or Verb, **options)

        def registered(verb: Callable[..., Any]) -> Callable[..., Any]:
            register(outcome.answering(verb))
            return verb

        return registered


app = _App(
    name="memtax",
    help="Measure, explain and predict what a causal language model memorized from its training data.",
    epilog="Each verb has an example: on what `memtax demo --output runs/demo` makes, or on two files that the README makes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_debug = False


def _version(given: bool) -> None:
    if given:
        typer.echo(f"memtax {memtax.__version__}")
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help=outcome.HELP["quiet"])] = False,
    as_json: Annotated[bool, typer.Option("--json", help=outcome.HELP["json"])] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Rows that would be skipped are an error.")] = False,
    memory: Annotated[
        float | None, typer.Option(help="GiB at most: threads, batches and what is kept follow it; a run that needs more ends.")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait where another run holds the output, instead of refusing.")] = False,
) -> None:
    """Options of every verb."""
    from memtax.outputs import set_wait
    from memtax.progress import limit_threads, set_memory, set_notes_to_errors, set_quiet, set_strict

    # One look for every bar: ours. Read when `datasets` is imported.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    # What a reader has to say is in our own line.
    os.environ.setdefault("DATASETS_VERBOSITY", "critical")
    global _debug
    _debug = debug
    set_wait(wait)

    def forget() -> None:
        # One process may run several commands, as tests do: what one was told ends with it.
        outcome.mode.json = outcome.mode.quiet = False
        set_quiet(False)
        set_notes_to_errors(False)
        set_strict(False)

    ctx.call_on_close(forget)
    if ctx.invoked_subcommand != "env":
        _check_endpoint()
    outcome.mode.set_json(as_json)
    outcome.mode.set_quiet(quiet)
    set_strict(strict)
    if memory is not None:
        set_memory(memory)
    else:
        limit_threads()


def _check_endpoint() -> None:
    """Refuse a Hub address that the Hub's client would fail on when it is imported, with the address in a traceback.

    Raises:
        MemtaxError: HF_ENDPOINT is no address.
    """
    from urllib.parse import urlsplit

    from memtax.errors import MemtaxError

    endpoint = os.environ.get("HF_ENDPOINT", "")
    try:
        parts = urlsplit(endpoint)
        is_address = not endpoint or (parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0)
    except ValueError:
        is_address = False
    if not is_address:
        raise MemtaxError(
            "HF_ENDPOINT is not an address such as https://huggingface.co; correct it, or remove it from the environment"
        )


_USAGE: Any = typer.BadParameter.__bases__[0]
"""What Typer raises for the words of a command line: `UsageError` of Click, or of the copy of Click that Typer has."""
_GLOBAL = ("--debug", "--wait", "--strict", "--memory", "--version")
_MEMORY = "out of memory; choose smaller batches or shards, or a machine with more (or a larger --memory)"


def main() -> None:
    """Entry point: an error the user can mend is one line and exit status 2."""
    from memtax.cli import cut_off

    cut_off.answer()
    _hide_secrets()
    signal.signal(signal.SIGTERM, _interrupted)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupted)
    try:
        status = app(standalone_mode=False)
    except KeyboardInterrupt:  # outside the verb
        _stop()
    except SystemExit as ended:
        if _signal is not None:
            _leave(ended.code if isinstance(ended.code, int) else 1)
        raise
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # type: ignore[attr-defined]
            sys.exit(2)
        said = _mendable(error)
        if said is None:
            raise
        _fail(said)
    if _signal is not None:  # while words are parsed Click makes a number of it, without a word
        _stop()
    # A number is that of `typer.Exit`, anything else what the verb returned.
    sys.exit(status if isinstance(status, int) else 0)


def _hide_secrets() -> None:
    """Keep secrets of the environment out of what libraries log, and out of tracebacks."""
    from memtax.credentials import hide

    make = logging.getLogRecordFactory()

    def record(*given: Any, **named: Any) -> logging.LogRecord:
        made = make(*given, **named)
        made.msg, made.args = hide(made.getMessage()), None
        return made

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.stderr.write(hide("".join(traceback.format_exception(kind, error, trace))))

    logging.setLogRecordFactory(record)
    sys.excepthook = show


def _mendable(error: Exception) -> str | None:
    """What to say of an error that the user can mend; None for a defect."""
    from memtax.errors import MemtaxError
    from memtax.files import system_error

    if isinstance(error, MemtaxError):
        return str(error)
    if isinstance(error, _USAGE):
        said: str = error.format_message().rstrip(".")
        option = getattr(error, "option_name", None)
        if option in _GLOBAL and error.ctx is not None and error.ctx.parent is not None:
            return f"{option} goes before the verb: memtax {option} ... {error.ctx.info_name} ..."
        return f"{said[:1].lower()}{said[1:]} (see {error.ctx.command_path if error.ctx else 'memtax'} --help)"
    if isinstance(error, OSError):
        # Disk full, read-only output, no permission: the file system's own words say it best.
        return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    if isinstance(error, UnicodeError):
        # Tables written by others may hold anything where text should be.
        return f"a text of the input is not UTF-8 ({error}); convert it, or drop that row"
    # How torch says it.
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error)):
        return _MEMORY
    # How the Hub's client says that it cannot use the proxy of the environment; its library changes its name.
    if (isinstance(error, ImportError) and "SOCKS" in str(error)) or type(error).__name__ == "InvalidURL":
        return f"the proxy that the environment names cannot be used: {str(error).splitlines()[0]}"
    # How the system says it of a library that does not fit.
    if isinstance(error, ImportError) and re.search("failed to map segment|[Cc]annot allocate memory", str(error)):
        return _MEMORY
    # Weights that the libraries write themselves.
    number = system_error(error)
    return os.strerror(number) if number else None


def _fail(message: str) -> None:
    if _debug:
        raise
    from memtax.progress import printable

    typer.echo(f"memtax: {printable(' '.join(message.split()))}", err=True)
    sys.exit(2)
