"""`memtax report`: rewrite the page of a run from its tables."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from memtax.jobs.base import Command, Finished
from memtax.settings import argument, option


@dataclass(frozen=True, kw_only=True)
class Report(Command):
    """Rewrite the report of a run.

    Example: `memtax report runs/demo`
    """

    needs: ClassVar[tuple[str, ...]] = ("report",)

    directory: Path = argument("Output of run or audit, or of another verb with a table of sequences.")
    latex: bool = option("Also write every table of the page as report/tables/*.tex.", False)

    def run(self) -> Finished:
        """See `memtax.report.write`."""
        from memtax import outputs, report
        from memtax.results import is_output

        # A directory that is not memtax's is rejected without writing a lock into it.
        held = outputs.hold_job(self.directory, "memtax report") if is_output(self.directory) else contextlib.nullcontext()
        with held:
            page = report.write(self.directory, latex=self.latex)
        figures = {"figures": str(page.parent / "figures")}
        lines = [str(page)]
        if self.latex:
            figures["tables"] = str(page.parent / "tables")
            lines.append(figures["tables"])
        return Finished(self.directory, figures, lines, page)
