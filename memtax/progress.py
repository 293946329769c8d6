"""One look for every progress bar."""

import os
from typing import Any

from memtax.errors import MemtaxError

_quiet = False
_strict = False


def set_quiet(quiet: bool) -> None:
    """Turn all of memtax's progress bars off (`--quiet`) or on again."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Whether the bars are off."""
    return _quiet


def set_strict(strict: bool) -> None:
    """Make rows that cannot be used an error (`--strict`), instead of counting and showing them."""
    global _strict
    _strict = strict


def skipped(rows: int, reason: str) -> None:
    """Say that rows are left out, or that their values will be null.

    Raises:
        MemtaxError: there are such rows, and `--strict` is on.
    """
    if not rows:
        return
    if _strict:
        raise MemtaxError(f"{rows:,} rows are left out ({reason}), and --strict allows none; repair or drop them")
    say(f"{rows:,} rows are left out: {reason}")


def progress_bar(description: str, total: int | None, unit: str = "rows", **options: Any) -> Any:
    """A tqdm bar that only the main process shows. `unit_scale` is on: totals reach billions of tokens."""
    from tqdm.auto import tqdm

    options.setdefault("unit_scale", True)
    options.setdefault("dynamic_ncols", True)
    # What is done in a blink needs no bar.
    options.setdefault("delay", 0.5)
    return tqdm(total=total, desc=f"{description:<28}", unit=f" {unit}", disable=_quiet or not _is_main(), **options)


def say(line: str) -> None:
    """A line beside the bars, on the main process only; quiet mode drops it."""
    from tqdm.auto import tqdm

    if not _quiet and _is_main():
        tqdm.write(line)


def _is_main() -> bool:
    """Whether this is the main process, or a child that it started."""
    return os.environ.get("RANK", os.environ.get("MEMTAX_RANK", "0")) == "0"


def silence_libraries() -> None:
    """Turn off the bars and notices that datasets and transformers print of their own: ours say it once."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
