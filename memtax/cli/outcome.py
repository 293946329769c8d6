"""Result of a verb: lines for people, one JSON object for scripts (`--json`), or nothing (`--quiet`)."""

import functools
import inspect
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from memtax import progress


@dataclass(frozen=True)
class Outcome:
    """Output of a verb, returned instead of printed.

    Attributes:
        found: figures and paths, for scripts; complete once `lines` have been read.
        lines: the same in a few lines, for people.
        then: called after the lines are printed, for example to serve a page.
        code: exit code.
    """

    found: Mapping[str, Any]
    lines: Iterable[str]
    then: Callable[[], None] | None = None
    code: int = 0

    def tell(self, as_json: bool, quiet: bool) -> None:
        """Print the result, on the main process."""
        shown = os.environ.get("RANK", "0") == "0"
        for line in self.lines:
            if shown and not (as_json or quiet):
                # Names may come from the data.
                typer.echo(progress.printable(line))
        if shown and as_json:
            typer.echo(json.dumps(plain(self.found), allow_nan=False))
        if self.then is not None:
            self.then()


def plain(value: Any) -> Any:
    """A value for JSON: paths become strings, arrays become lists, values that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, str | int | bool) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    return plain(value.tolist()) if hasattr(value, "tolist") else str(value)


@dataclass
class Mode:
    """Output mode, from the options before or after the verb.

    Attributes:
        json: print one JSON object.
        quiet: print only errors and what is left out.
    """

    json: bool = False
    quiet: bool = False

    def set_json(self, given: bool) -> None:
        """Print JSON, and keep standard output free for it."""
        if given:
            self.json = True
            progress.set_notes_to_errors()

    def set_quiet(self, given: bool) -> None:
        """No progress bars and no summary: only errors and what is left out."""
        if given:
            self.quiet = True
            progress.set_quiet(True)


mode = Mode()
HELP = {
    "json": "Print the result as one JSON object; progress bars and notes go to standard error.",
    "quiet": "Print only errors and what is left out.",
}


def answering(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json` and `--quiet` to the verb; they can also be given before it."""

    @functools.wraps(verb)
    def answered(*given: Any, as_json: bool, quiet: bool, **named: Any) -> Any:
        mode.set_json(as_json)
        mode.set_quiet(quiet)
        return verb(*given, **named)

    # Typer reads a command's options from the signature and annotations of its function.
    kinds = {
        "as_json": Annotated[bool, typer.Option("--json", help=HELP["json"])],
        "quiet": Annotated[bool, typer.Option("--quiet", "-q", help=HELP["quiet"])],
    }
    own = inspect.signature(verb)
    added = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kinds[name]) for name in kinds]
    answered.__signature__ = own.replace(parameters=[*own.parameters.values(), *added])  # type: ignore[attr-defined]
    answered.__annotations__ = {**verb.__annotations__, **kinds}
    return answered
