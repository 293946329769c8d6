"""Number of a sequence's semantic neighbors whose prompts are nearly the same characters."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from memtax.counting.count_tables import stamp
from memtax.engine.world import spare_threads
from memtax.errors import MemtaxError
from memtax.filters.base import Batch
from memtax.filters.embedding import EmbeddingFilter
from memtax.filters.semantic_matches import THRESHOLDS, SemanticMatchFilter, _columns
from memtax.published.lookup import look_up

PIECE = 16_384
"""Pairs that a thread compares at once."""


@dataclass(frozen=True)
class TextualMatchFilter(SemanticMatchFilter):
    """Adds `textual_matches_0_8` and `textual_matches_0_9` ("templates", Prashanth et al. 2024).

    Among the sequences in the sample at cosine >= 0.8 (0.9), they count those whose prompt has a Levenshtein distance above 0
    and below 20 characters from this sequence's prompt. None without an embedding or a prompt.

    Attributes:
        sample: as for `SemanticMatchFilter`, with an additional column `prompt_text` (the decoded first 32 tokens); or a table
            of finished counts, such as `usvsnsp/semantic-duplicates::deduped_templates`.
        model: folder or Hub name of the sentence-transformers model.
        revision: branch, tag or commit on the Hub.
        embedded: whether the batch has a column `embedding`.
        below: distances of at least this do not count.
        ascii_only: whether prompts with non-ASCII characters get 0, as in the reference.

    Example:
        >>> import tempfile
        >>> import datasets
        >>> from memtax.filters import TextualMatchFilter
        >>> prompts = ["Dear Anna, thank you", "Dear Otto, thank you"]
        >>> rows = {"sequence_id": [0, 1], "embedding": [[1.0, 0.0], [1.0, 0.0]], "prompt_text": prompts}
        >>> sample = tempfile.mkdtemp()
        >>> datasets.Dataset.from_dict(rows).save_to_disk(sample)
        >>> TextualMatchFilter(sample, embedded=True)(rows)
        {'textual_matches_0_8': [1, 1], 'textual_matches_0_9': [1, 1]}
    """

    name: ClassVar[str] = "textual_matches"
    requires: ClassVar[tuple[str, ...]] = ("sequence_id", "text", "prompt_text")
    columns: ClassVar[tuple[str, ...]] = ("textual_matches_0_8", "textual_matches_0_9")

    below: int = 20
    ascii_only: bool = False

    def __post_init__(self) -> None:
        if self.below < 2:
            raise MemtaxError(f"below is {self.below}; no distance above 0 is below that, give at least 2")
        if self.embedded:
            self._with_parameters(requires=("sequence_id", "embedding", "prompt_text"))

    def compute(self, batch: Batch) -> Batch:
        """Count the neighbors with a similar prompt.

        Raises:
            MemtaxError: the sample cannot be read or has no prompts.
        """
        from memtax.filters.sample_matches import load_sample, matches

        spare_threads()
        published = look_up(self.sample, self.columns, batch["sequence_id"], stamp(self.sample))
        if published is not None:
            return published
        vectors = batch["embedding"] if self.embedded else EmbeddingFilter(self.model, self.revision)(batch)["embedding"]
        vectors = [None if prompt is None else v for v, prompt in zip(vectors, batch["prompt_text"], strict=True)]
        sample = load_sample(self.sample, self.model, self.revision, stamp(self.sample))
        if sample.prompts is None:
            raise MemtaxError(f"{self.sample} has no column 'prompt_text'; add the decoded first tokens of each sequence")
        known, found = matches(sample, batch["sequence_id"], vectors, THRESHOLDS)
        ids = np.asarray(batch["sequence_id"], np.int64)[known]
        counts = np.zeros((len(known), 2), np.int64)
        for part in found:
            other = sample.ids[part.columns] != ids[part.rows]
            rows, columns, level = part.rows[other], part.columns[other], part.level[other]
            near = similar(
                [batch["prompt_text"][known[row]] for row in rows],
                [sample.prompts[column] for column in columns],
                self.below,
                self.ascii_only,
            )
            for threshold in range(2):
                counts[:, threshold] += np.bincount(rows[near & (level > threshold)], minlength=len(known))
        return _columns(self.columns, counts, known, len(vectors))


def similar(left: Sequence[str | None], right: Sequence[str | None], below: int = 20, ascii_only: bool = False) -> Any:
    """Whether 0 < Levenshtein distance < `below`, pair by pair.

    Args:
        left: prompts, (pairs,).
        right: prompts, (pairs,); a missing one is not similar to any.
        below: distances of at least this are too far; rapidfuzz stops counting there.
        ascii_only: whether a pair with a non-ASCII character is never similar.

    Returns:
        (pairs,) bool.
    """
    if not len(left):
        return np.zeros(0, bool)
    if not ascii_only:
        try:
            return _near(left, right, below)
        except ValueError:  # a missing prompt, which is rare: checking for it first costs a fifth of the time.
            pass
    usable = np.array([_usable(a, ascii_only) and _usable(b, ascii_only) for a, b in zip(left, right, strict=True)], bool)
    return usable & _near([text or "" for text in left], [text or "" for text in right], below)


def _near(left: Sequence[str | None], right: Sequence[str | None], below: int) -> Any:
    """Compare in threads: rapidfuzz reads one piece's strings under the GIL while another piece is compared without it."""
    from concurrent.futures import ThreadPoolExecutor

    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import cpdist

    def near(start: int) -> Any:
        piece = slice(start, start + PIECE)
        distances = cpdist(left[piece], right[piece], scorer=Levenshtein.distance, score_cutoff=below - 1, workers=1)
        return (distances > 0) & (distances < below)

    starts = range(0, len(left), PIECE)
    if len(starts) == 1:
        return near(0)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.concatenate(list(pool.map(near, starts)))


def _usable(text: str | None, ascii_only: bool) -> bool:
    return text is not None and (not ascii_only or text.isascii())
