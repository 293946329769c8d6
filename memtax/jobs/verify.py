"""`memtax verify`: whether an audit, its model or its data was changed since."""

from dataclasses import dataclass
from pathlib import Path

from memtax.jobs.base import Command, Finished
from memtax.progress import numbered
from memtax.settings import argument


@dataclass(frozen=True, kw_only=True)
class Verify(Command):
    """Check an audit: say which file of it, of its model or of its data was changed since, and exit with 1 if any was.

    Example: `memtax verify runs/audit`
    """

    directory: Path = argument("Output of memtax audit.")

    def run(self) -> Finished:
        """See `memtax.pipeline.audit_record`."""
        from memtax import outputs
        from memtax.pipeline.audit_record import NAME, check

        with outputs.read_job(self.directory):
            found = check(self.directory)
        figures = {"same": found.same, "different": found.different, "not_checked": found.unchecked, "sha256": found.digest}
        verdict = f"{numbered(len(found.different), 'file')} changed or missing" if found.different else "nothing was changed"
        lines = [*found.different, *found.unchecked, f"{numbered(found.same, 'file')} as audited; {verdict}"]
        return Finished(None, figures, [*lines, f"sha256 of {NAME}: {found.digest}"], code=1 if found.different else 0)
