"""The command itself: options shared by all verbs, and error handling."""

import atexit
import contextlib
import logging
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

import memtax
from memtax.cli import outcome

Number = TypeVar("Number", int, float)


class _Readable:
    """Leaves out Python's types where they say nothing in the help: beside switches, and beside the names of arguments."""

    def get_params(self, ctx: Any) -> Any:
        """The command's parameters."""
        found = super().get_params(ctx)  # type: ignore[misc]
        for parameter in found:
            if parameter.param_type_name == "argument":
                parameter.display_type_rich = _nothing
            elif parameter.is_flag and parameter.metavar is None:
                parameter.metavar = ""
        return found


def _nothing(ctx: Any) -> None:
    """The type of an argument in the help."""


class _Group(_Readable, TyperGroup):
    """The command with its verbs."""


class Verb(_Readable, TyperCommand):
    """A verb: it prints its result, and a signal ends it with one line."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb and print its result."""
        try:
            found = super().invoke(ctx)
            if isinstance(found, outcome.Outcome):
                found.tell(outcome.mode.json, outcome.mode.quiet)
                if found.code:
                    raise SystemExit(found.code)
            return found
        except KeyboardInterrupt:
            # Caught here because Click would exit silently.
            _stop()
        except Exception:
            # Compilers and other libraries turn the interruption into their own errors.
            if _signal is None:
                raise
            _stop()


def _stop() -> NoReturn:
    signal.setitimer(signal.ITIMER_REAL, 0)
    typer.echo("\nmemtax: interrupted; finished parts are kept. Run the same command again to resume.", err=True)
    raise SystemExit(143 if _signal == signal.SIGTERM else 130) from None


def _leave(code: int) -> NoReturn:
    """Exit after an interruption without destructors of running threads, which would abort the process."""
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


class _Interruption(KeyboardInterrupt):
    """A signal, which libraries treat as Ctrl-C.

    A subclass of `KeyboardInterrupt`, because when the class itself passes through code executed from a string (dataclasses,
    numba), Python considers it uncaught, and `python -m` would die from the signal instead of printing one line.
    """


_signal: int | None = None
"""The signal that was received."""

PATIENCE = 10.0
"""Seconds after which a signal is raised again, because libraries swallow exceptions in callbacks and during import."""


def _interrupted(number: int, frame: FrameType | None) -> None:
    # A second signal exits immediately.
    signal.signal(number, signal.SIG_DFL)
    global _signal
    _signal = number
    end = time.monotonic() + PATIENCE

    def interrupt(number: int, frame: FrameType | None) -> None:
        if _importing(frame) and time.monotonic() < end:
            signal.setitimer(signal.ITIMER_REAL, 0.02, PATIENCE)
            return
        signal.setitimer(signal.ITIMER_REAL, PATIENCE, PATIENCE)
        raise _Interruption

    sys.unraisablehook = _swallowed
    signal.signal(signal.SIGALRM, interrupt)
    interrupt(number, frame)


def _importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported. Torch aborts the process if its registrations of operators are interrupted."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _swallowed(what: "sys.UnraisableHookArgs") -> None:
    """Raise an interruption again immediately if Python drops it in a callback; do not print its traceback."""
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
    cls=_Group,
    help="Measure, explain and predict what a causal language model memorized from its training data.",
    epilog="Each verb has an example that uses the output of `memtax demo --output runs/demo` or two files from the README.",
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
    strict: Annotated[bool, typer.Option("--strict", help="Fail if any row would be skipped.")] = False,
    memory: Annotated[
        float | None,
        typer.Option(metavar="GIB", help="Memory limit in GiB for threads, batches and caches; a run that needs more ends."),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait if another run uses the output, instead of failing.")] = False,
) -> None:
    """Options shared by all verbs."""
    from memtax.outputs import set_wait
    from memtax.progress import limit_threads, set_memory, set_notes_to_errors, set_quiet, set_strict

    # Use memtax's progress bars everywhere. Read when `datasets` is imported.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    # Messages of readers are part of memtax's own error line.
    os.environ.setdefault("DATASETS_VERBOSITY", "critical")
    global _debug
    _debug = debug
    set_wait(wait)

    def forget() -> None:
        # One process may run several commands, as tests do: settings end with each command.
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
    """Reject a Hub address that would make the Hub client fail on import with a traceback.

    Raises:
        MemtaxError: HF_ENDPOINT is not an address.
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
"""Exceptions of Typer for command lines: `UsageError` of Click, or of Typer's copy of Click."""
_GLOBAL = ("--debug", "--wait", "--strict", "--memory", "--version")
_MEMORY = "out of memory; choose smaller batches or shards, or a machine with more (or a larger --memory)"


def main() -> None:
    """Entry point: an error that the user can fix is one line and exit status 2."""
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
        if said is None or _debug:
            # Typer replaces `sys.excepthook` when it is called.
            sys.excepthook = _show
            raise
        _fail(said)
    if _signal is not None:  # during parsing, Click silently converts it to an exit code
        _stop()
    # A number is the exit code of `typer.Exit`; anything else is what the verb returned.
    sys.exit(status if isinstance(status, int) else 0)


def _hide_secrets() -> None:
    """Keep secrets from the environment out of library logs and tracebacks."""
    from memtax.credentials import hide

    make = logging.getLogRecordFactory()

    def record(*given: Any, **named: Any) -> logging.LogRecord:
        made = make(*given, **named)
        made.msg, made.args = hide(made.getMessage()), None
        return made

    logging.setLogRecordFactory(record)
    sys.excepthook = _show


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    from memtax.credentials import hide

    sys.stderr.write(hide("".join(traceback.format_exception(kind, error, trace))))


def _mendable(error: Exception) -> str | None:
    """The message for an error that the user can fix; None for a defect."""
    from memtax.errors import MemtaxError
    from memtax.extras import explain
    from memtax.files import system_error

    error = explain(error) or error
    if isinstance(error, MemtaxError):
        return str(error)
    if isinstance(error, _USAGE):
        said: str = error.format_message().rstrip(".")
        option = getattr(error, "option_name", None)
        if option in _GLOBAL and error.ctx is not None and error.ctx.parent is not None:
            return f"{option} goes before the verb: memtax {option} ... {error.ctx.info_name} ..."
        return f"{said[:1].lower()}{said[1:]} (see {error.ctx.command_path if error.ctx else 'memtax'} --help)"
    if isinstance(error, OSError):
        # Disk full, read-only output, no permission: the system's own message is the clearest.
        return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    if isinstance(error, UnicodeError):
        # Tables written by other programs may contain invalid text.
        return f"a text of the input is not UTF-8 ({error}); convert it, or drop that row"
    # Out-of-memory error of torch.
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error)):
        return _MEMORY
    # Proxy error of the Hub client, whose library changes its name.
    if (isinstance(error, ImportError) and "SOCKS" in str(error)) or type(error).__name__ == "InvalidURL":
        return f"the proxy in the environment cannot be used: {str(error).splitlines()[0]}"
    # System error for a library that does not fit into memory.
    if isinstance(error, ImportError) and re.search("failed to map segment|[Cc]annot allocate memory", str(error)):
        return _MEMORY
    # Weights written by the libraries themselves.
    number = system_error(error)
    return os.strerror(number) if number else None


def _fail(message: str) -> None:
    from memtax.progress import printable

    typer.echo(f"memtax: {printable(' '.join(message.split()))}", err=True)
    sys.exit(2)
