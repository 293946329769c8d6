"""`memtax compare`: two runs over the same sequences, before and after."""

from dataclasses import dataclass
from typing import ClassVar

from memtax.jobs.base import Job, Result, Rows, Work
from memtax.jobs.options import QuoteOption
from memtax.settings import argument


@dataclass(frozen=True, kw_only=True)
class Compare(QuoteOption, Job):
    """Compare two runs: paired differences, sign-flip tests, and what was newly memorized or forgotten.

    Example: `memtax compare runs/before runs/after --output runs/comparison`
    """

    needs: ClassVar[tuple[str, ...]] = ("report",)

    first: str = argument("Before: output of run, audit or score, or a Parquet file of scores.")
    second: str = argument("After: another one, over all or some of the same sequences.")

    def make(self, work: Work) -> Result:
        """See `memtax.report.comparison`."""
        from memtax.report import comparison as compare

        found = compare.compare(self.first, self.second, show_personal_data=self.show_personal_data)
        row = "One row per sequence that is memorized in only one of the two runs."
        return Result(
            title="What changed between two runs",
            tables=[
                Rows("groups", "One row per category: rates before and after, and their difference.", found.groups()),
                Rows("changes", row, found.changed),
            ],
            figures=found.summary,
            lines=found.lines(),
            page=compare.write,
            is_private=bool(found.summary["personal_data_shown"]),
        )
