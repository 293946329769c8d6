"""`memtax env`: information for a bug report."""

from dataclasses import dataclass

from memtax.jobs.base import Command, Finished


@dataclass(frozen=True, kw_only=True)
class Env(Command):
    """Print information for a bug report: versions, platform, processors, memory, accelerators.

    Example: `memtax env`
    """

    def run(self) -> Finished:
        """See `memtax.provenance.environment`."""
        import yaml

        from memtax.provenance import environment

        facts = environment()
        return Finished(None, facts, [yaml.safe_dump(facts, sort_keys=False).rstrip()])
