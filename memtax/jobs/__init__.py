"""The verbs, one file each, with their settings and work. `base` derives everything else."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memtax.jobs.base import Command, Finished

_FIRST = (
    "demo",
    "run",
    "count",
    "score",
    "filter",
    "fit",
    "search",
    "predict",
    "paraphrase",
    "align",
    "mia",
    "influence",
    "counterfactual",
    "audit",
    "verify",
    "report",
    "compare",
    "explore",
    "push",
    "env",
)
"""Order of the help; verbs not listed come after these."""

_SHARED = {"base", "options", "presets", "writing"}
"""Files of this folder that are not verbs."""

_FILES = {module.name for module in pkgutil.iter_modules(__path__)} - _SHARED

VERBS = (*_FIRST, *sorted(_FILES - {*_FIRST}))
"""Names of the verbs, which are also their file names."""


def job_class(verb: str) -> "type[Command]":
    """The class of a verb's settings, such as `Align` for `align`."""
    kind: type[Command] = getattr(importlib.import_module(f"memtax.jobs.{verb}"), verb.capitalize())
    return kind


def function(verb: str) -> "Callable[..., Finished]":
    """A verb as a function of its settings, by name: `memtax.align(pairs=..., model=..., output=...)`."""
    kind = job_class(verb)

    def call(**settings: Any) -> "Finished":
        return kind.begin(kind.expand(settings), f"memtax.{verb}")

    call.__name__, call.__doc__ = verb, inspect.cleandoc(kind.__doc__ or "")
    call.__signature__ = inspect.signature(kind)  # type: ignore[attr-defined]
    return call


__all__ = ["VERBS", "function", "job_class"]
