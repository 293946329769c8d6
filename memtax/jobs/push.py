"""`memtax push`: datasets, models and metric Spaces to the Hub."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from memtax.jobs.base import Command, Finished
from memtax.settings import argument, option


@dataclass(frozen=True, kw_only=True)
class Push(Command):
    """Publish a run on the Hugging Face Hub: dataset, models and, if requested, the metric Spaces, with cards.

    Paths below your folders, and the names of user and host, are replaced in uploaded files; credentials are rejected.
    Files that are already on the Hub are not sent again, and an interrupted upload resumes. The token comes from
    `hf auth login` or HF_TOKEN.

    Example: `memtax push runs/demo --repo-id my-org/stdlib-memorization --dry-run`
    """

    directory: Path = argument("Output of a verb, or the folder of one dataset or model.")
    repo_id: str = option("org/name of the dataset; models are named org/name-MODEL.")
    part: tuple[Literal["dataset", "models", "metrics", "explorer"], ...] = option(
        "dataset, models, metrics or explorer.", ("dataset", "models")
    )
    private: bool = option("Create private repositories; public ones are rejected.", False)
    published: str | None = option(
        "SCHEME_MODEL: use the layout of usvsnsp/semantic-filters, with these names in the splits.", None
    )
    records: bool = option("Send training_rows.json and the record of canaries with a trained model.", False)
    dry_run: bool = option("Show every file and card, what was rewritten and what stays; send nothing.", False)

    def run(self) -> Finished:
        """See `memtax.hub.publish`."""
        repositories: list[dict[str, Any]] = []
        figures = {"repo_id": self.repo_id, "dry_run": self.dry_run, "repositories": repositories}
        return Finished(None, figures, self._lines(repositories))

    def _lines(self, repositories: list[dict[str, Any]]) -> Iterator[str]:
        """Push one repository after the other and report what was done for each."""
        from memtax import outputs
        from memtax.hub.publish import publish
        from memtax.published.writing import published_files

        layout = None if self.published is None else functools.partial(published_files, self.published)
        options: dict[str, Any] = {"dry_run": self.dry_run, "published": layout, "records": self.records}
        with outputs.read_job(self.directory):
            for done in publish(self.directory, self.repo_id, self.part, private=self.private or None, **options):
                repositories.append(done.facts())
                yield from done.lines()
