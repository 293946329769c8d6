"""The `memtax` command: one short function per verb, which calls one library function and prints where the result is."""

from memtax.cli.base import app, main

# The order of imports is the order of the verbs in the help.
# isort: off
from memtax.cli import job as job
from memtax.cli import measure as measure
from memtax.cli import explain as explain
from memtax.cli import leakage as leakage
from memtax.cli import results as results
# isort: on

__all__ = ["app", "main"]
