"""The `memtax` command: one verb per job, with options made from the job's settings."""

from memtax.cli import results as results
from memtax.cli.base import app, main
from memtax.cli.derive import register
from memtax.jobs import VERBS

_ORDER = (
    *("demo", "run", "count", "score", "filter", "fit", "search", "predict", "paraphrase", "align", "mia", "influence"),
    *("counterfactual", "audit", "report", "compare", "explore", "push", "env"),
)
"""Of the verbs in the help."""

for verb in VERBS:
    register(app, verb)
app.registered_commands.sort(key=lambda command: _ORDER.index(command.name or getattr(command.callback, "__name__", "")))

__all__ = ["app", "main"]
