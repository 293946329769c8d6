"""The `memtax` command: one verb per job, with options made from the job's settings."""

from memtax.cli.base import app, main
from memtax.cli.derive import command
from memtax.jobs import VERBS

for verb in VERBS:
    app.command(name=verb)(command(verb))

__all__ = ["app", "main"]
