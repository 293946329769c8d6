"""Number of corpus sequences with nearly the same meaning: neighbors in the space of sentence embeddings."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from memtax.counting.count_tables import location, stamp
from memtax.engine.world import spare_threads
from memtax.filters.base import Batch, Filter
from memtax.filters.embedding import EmbeddingFilter
from memtax.lm.encoder import DEFAULT_MODEL, resolve_model
from memtax.lm.loading import model_files
from memtax.published.lookup import look_up

THRESHOLDS = (0.8, 0.9)


@dataclass(frozen=True)
class SemanticMatchFilter(Filter):
    """Adds `semantic_matches_0_8` and `semantic_matches_0_9` ("snowclones", Prashanth et al. 2024).

    They count the sequences in a sample of the corpus whose embedding has cosine >= 0.8 (0.9) with this sequence's, except
    rows with this sequence's own id. The counts are exact for the stored float32 vectors. None without a text.

    Attributes:
        sample: dataset as `path:config:split` with `sequence_id` and `embedding` (from `EmbeddingFilter`, best saved with
            `save_to_disk`, which is memory-mapped), or with `text`, which each process then embeds itself. It can also be a
            table of finished counts: memtax's columns, or a published `usvsnsp/semantic-duplicates::deduped_snowclones`.
        model: folder or Hub name of the sentence-transformers model.
        revision: branch, tag or commit on the Hub.
        embedded: whether the batch has a column `embedding`, so that texts are not embedded again.

    Example:
        >>> import tempfile
        >>> import datasets
        >>> from memtax.filters import SemanticMatchFilter
        >>> rows = {"sequence_id": [0, 1, 2], "embedding": [[1.0, 0.0], [0.9, 0.4], [0.0, 1.0]]}
        >>> sample = tempfile.mkdtemp()
        >>> datasets.Dataset.from_dict(rows).save_to_disk(sample)
        >>> SemanticMatchFilter(sample, embedded=True)(rows)
        {'semantic_matches_0_8': [1, 1, 0], 'semantic_matches_0_9': [1, 1, 0]}
    """

    name: ClassVar[str] = "semantic_matches"
    requires: ClassVar[tuple[str, ...]] = ("sequence_id", "text")
    columns: ClassVar[tuple[str, ...]] = ("semantic_matches_0_8", "semantic_matches_0_9")

    sample: str
    model: str = DEFAULT_MODEL
    revision: str | None = None
    embedded: bool = False

    def __post_init__(self) -> None:
        if self.embedded:
            self._with_parameters(requires=("sequence_id", "embedding"))

    def inputs(self) -> Iterable[str]:
        """The sample, and the encoder's configuration and weights."""
        return (location(self.sample), *model_files(resolve_model(self.model)))

    def compute(self, batch: Batch) -> Batch:
        """Count the neighbors.

        Raises:
            MemtaxError: the sample cannot be read or was embedded with another model.
        """
        from memtax.filters.sample_matches import load_sample, matches

        spare_threads()
        published = look_up(self.sample, self.columns, batch["sequence_id"], stamp(self.sample))
        if published is not None:
            return published
        vectors = batch["embedding"] if self.embedded else EmbeddingFilter(self.model, self.revision)(batch)["embedding"]
        sample = load_sample(self.sample, self.model, self.revision, stamp(self.sample))
        known, found = matches(sample, batch["sequence_id"], vectors, THRESHOLDS)
        ids = np.asarray(batch["sequence_id"], np.int64)[known]
        counts = sum((sample.counts(part, ids, 2) for part in found), np.zeros((len(known), 2), np.int64))
        return _columns(self.columns, counts, known, len(vectors))


def _columns(names: tuple[str, ...], counts: Any, known: Any, rows: int) -> Batch:
    """Counts of the known rows by column name; other rows are None."""
    added: Batch = {name: [None] * rows for name in names}
    for name, values in zip(names, counts.T.tolist(), strict=True):
        for row, value in zip(known.tolist(), values, strict=True):
            added[name][row] = value
    return added
