"""Progress bars in one style, and settings of a whole run: quiet, strict, memory limit."""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from memtax.credentials import hide
from memtax.errors import MemtaxError

_VERBS = {"is": "are", "has": "have", "was": "were", "does": "do"}

_quiet = False
_strict = False
_memory: int | None = None
_notes_to_errors = False
_advance: Callable[[int], None] | None = None


def set_notes_to_errors(on: bool = True) -> None:
    """Make `say` write to standard error, so that standard output contains only the result (`--json`)."""
    global _notes_to_errors
    _notes_to_errors = on


def set_quiet(quiet: bool) -> None:
    """Turn all of memtax's progress bars off (`--quiet`) or on."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Whether the bars are off."""
    return _quiet


def set_strict(strict: bool) -> None:
    """Make unusable rows an error (`--strict`), instead of reporting them."""
    global _strict
    _strict = strict


def set_memory(gib: float | None) -> None:
    """Set the memory limit of this process (`--memory`), used for planning and enforced by the system.

    The limit covers the process's own data; mapped files, which the system can drop at any time, do not count.

    Raises:
        MemtaxError: the limit is not above 0.
    """
    global _memory
    if gib is not None and not gib > 0:
        raise MemtaxError(f"--memory {gib} must be above 0 (GiB)")
    _memory = None if gib is None else int(gib * 2**30)
    if _memory is not None and sys.platform == "linux":
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (_memory if hard == resource.RLIM_INFINITY else min(_memory, hard), hard))
    limit_threads()


def limit_threads() -> None:
    """Run tokenizers in one thread if the system limits this process's memory.

    Each tokenizer thread takes memory, and the process dies if one cannot start.
    """
    if sys.platform != "linux":
        return
    import resource

    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    if any(limit != resource.RLIM_INFINITY for limit in limits):
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        os.environ["RAYON_NUM_THREADS"] = "1"


def memory() -> int | None:
    """Memory limit in bytes, if one was set."""
    return _memory


def skipped(rows: int, reason: str, noun: str = "row") -> None:
    """Report that rows are left out, or that their values will be null.

    Raises:
        MemtaxError: there are such rows, and `--strict` is on.
    """
    refuse(rows, reason, noun)
    if rows and _is_main():
        from tqdm.auto import tqdm

        # Quiet mode has no progress bars, but missing rows are reported nevertheless.
        tqdm.write(printable(f"{numbered(rows, noun, 'is')} left out: {reason}"), file=sys.stderr)


def refuse(rows: int, reason: str, noun: str = "row") -> None:
    """Raise if `--strict` is on and there are such rows; for work in parts, whose rows are reported at its end.

    Raises:
        MemtaxError: there are such rows, and `--strict` is on.
    """
    if rows and _strict:
        raise MemtaxError(f"{numbered(rows, noun, 'is')} left out ({reason}), and --strict allows none; fix or drop them")


def printable(text: str) -> str:
    """Text that is safe for a terminal: without secrets, and with `?` for control characters, which can move the cursor."""
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in hide(text))


def progress_bar(description: str, total: int | None, unit: str = "rows", **options: Any) -> Any:
    """A tqdm bar on the main process only. `unit_scale` is on, since totals reach billions of tokens."""
    from tqdm.auto import tqdm

    options.setdefault("unit_scale", True)
    options |= _width()
    # In a log, every state of a bar is a line.
    options.setdefault("mininterval", 0.1 if sys.stderr.isatty() else 10)
    # Very short work needs no bar.
    options.setdefault("delay", 0.5)
    return tqdm(total=total, desc=f"{description:<28}", unit=f" {unit}", disable=_quiet or not _is_main(), **options)


@contextlib.contextmanager
def activity(name: str) -> Iterator[None]:
    """On a terminal, a line that says what is going on while no bar does: importing libraries and reading a model take long.

    The line disappears at the end. A job inside another's uses that one's line.

    Args:
        name: of the command, with which the line begins.
    """
    global _activity, _name
    if _activity is not None or _quiet or not _is_main() or not sys.stderr.isatty():
        yield
        return
    from tqdm.auto import tqdm

    with tqdm(bar_format="{desc}", desc=f"{name}: reading libraries and settings", leave=False, **_width()) as line:
        _activity, _name = line, name
        try:
            yield
        finally:
            _activity = None


_activity: Any = None
"""The line of `activity`, if there is one."""
_name = ""


def _width() -> dict[str, Any]:
    """Options of tqdm for the width of bars: the terminal's; where that has none, as in some containers, bars are invisible."""
    try:
        unknown = os.get_terminal_size(sys.stderr.fileno()).columns == 0
    except (OSError, ValueError, AttributeError):
        unknown = False
    return {"ncols": 80} if unknown else {"dynamic_ncols": True}


def doing(what: str) -> None:
    """Say in the line of `activity` what begins now; nothing happens without one."""
    if _activity is not None:
        _activity.set_description_str(printable(f"{_name}: {what.replace('_', ' ')}"))


@contextlib.contextmanager
def batch_of(rows: int, done: Callable[[int], Any] | None) -> Iterator[None]:
    """Let `advance` move a bar within a batch, which for a large model takes minutes; the rest is counted at the end.

    Args:
        rows: rows of the batch; passes over more than these, such as over several versions of a text, do not count.
        done: called with numbers of rows, such as `bar.update`; None counts nothing.
    """
    global _advance
    left, before = rows, _advance

    def advance_by(finished: int) -> None:
        nonlocal left
        counted = min(finished, left)
        left -= counted
        if done is not None and counted:
            done(counted)

    _advance = advance_by
    try:
        yield
    finally:
        _advance = before
    advance_by(left)


def advance(rows: int) -> None:
    """Report finished rows of the batch that `batch_of` has begun; nothing happens outside of one."""
    if _advance is not None:
        _advance(rows)


def say(line: str, is_note: bool = False) -> None:
    """Print a line next to the bars, on the main process only, a note on standard error; quiet mode drops it."""
    from tqdm.auto import tqdm

    if not _quiet and _is_main():
        tqdm.write(printable(line), file=sys.stderr if _notes_to_errors or is_note else sys.stdout)


def report_warning(line: str) -> None:
    """Print a warning on standard error, from any process and in quiet mode too."""
    from tqdm.auto import tqdm

    tqdm.write(printable(f"memtax: {' '.join(line.split())}"), file=sys.stderr)


def _is_main() -> bool:
    """Whether this is the main process, or a child that it started."""
    return os.environ.get("RANK", os.environ.get("MEMTAX_RANK", "0")) == "0"


_silent = False
"""Whether transformers is to be silent once it is imported."""


def silence_libraries() -> None:
    """Turn off the bars and notices of datasets and transformers, which memtax's own output replaces."""
    import importlib.util

    import datasets

    global _silent
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    _silent = importlib.util.find_spec("transformers") is not None
    if _silent and ("transformers" in sys.modules or _is_light()):
        silence_transformers()


def _is_light() -> bool:
    """Whether transformers is imported without PyTorch, which takes seconds that most verbs do not need."""
    import importlib.metadata

    release = importlib.metadata.version("transformers").split(".")
    return [int(part) for part in release[:2] if part.isdigit()] >= [5, 6]


def silence_transformers() -> None:
    """Do what `silence_libraries` left for the time when transformers is in use; nothing if it was not called."""
    import warnings

    if not _silent:
        return
    import transformers

    # Warnings about names inside transformers, which users cannot change.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()


def numbered(number: int, noun: str, verb: str = "") -> str:
    """A number with its noun and verb, in agreement: `1 text is`, `1,200 texts are`, `2 copies hold`.

    Args:
        number: the number.
        noun: the noun in the singular.
        verb: the verb in the singular; omitted if empty.
    """
    if number != 1:
        noun = f"{noun.removesuffix('y')}ies" if re.search(r"[^aeiou]y$", noun) else f"{noun}s"
    return f"{number:,} {noun} {agree(number, verb)}".rstrip()


def agree(number: int, verb: str) -> str:
    """The form of a singular verb that agrees with a number: `is` or `are`."""
    return verb if number == 1 else _VERBS.get(verb, verb.removesuffix("s"))
