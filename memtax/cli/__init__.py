"""The `memtax` command: one verb per job, with options generated from the job's settings."""

import sys
from collections.abc import Sequence
from typing import Any

from memtax.cli import base
from memtax.cli.derive import command
from memtax.jobs import VERBS


def main() -> None:
    """Entry point: only the verb that comes first on the command line is built."""
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    _make((first,) if first in VERBS else VERBS)
    base.main()


def _make(verbs: Sequence[str]) -> None:
    made = {each.name for each in base.app.registered_commands}
    for verb in verbs:
        if verb not in made:
            base.app.command(name=verb)(command(verb))
    order = {verb: place for place, verb in enumerate(VERBS)}
    base.app.registered_commands.sort(key=lambda each: order.get(each.name or "", len(order)))


def __getattr__(name: str) -> Any:
    if name == "app":
        _make(VERBS)
        return base.app
    raise AttributeError(f"module 'memtax.cli' has no attribute {name!r}")


__all__ = ["app", "main"]
