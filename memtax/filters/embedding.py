"""Sentence embeddings as a column, computed once for any number of comparisons."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from memtax.engine.world import spare_threads
from memtax.filters.base import Batch, Columns, Filter, list_array
from memtax.lm.encoder import DEFAULT_MODEL, embed, resolve_model
from memtax.lm.loading import model_files


@dataclass(frozen=True)
class EmbeddingFilter(Filter):
    """Adds `embedding`, the text's sentence embedding normalized to unit length (float32); None if there is no text.

    Attributes:
        model: folder or Hub name of any sentence-transformers model.
        revision: branch, tag or commit on the Hub.
    """

    name: ClassVar[str] = "embeddings"
    requires: ClassVar[tuple[str, ...]] = ("text",)
    columns: ClassVar[tuple[str, ...]] = ("embedding",)
    needs: ClassVar[tuple[str, ...]] = ("demo",)

    model: str = DEFAULT_MODEL
    revision: str | None = None

    def inputs(self) -> Iterable[str]:
        """The model's configuration and weights, or its name."""
        return model_files(resolve_model(self.model))

    @functools.cached_property
    def fingerprint(self) -> str:
        """Same as for every filter, but cached."""
        return super().fingerprint

    def compute(self, batch: Batch) -> Columns:
        """Embed all texts that are not missing."""
        spare_threads()
        texts = [text for text in batch["text"] if text is not None]
        if not texts:
            return {"embedding": [None] * len(batch["text"])}
        vectors = embed(texts, self.model, self.revision)
        missing = [text is None for text in batch["text"]]
        return {"embedding": list_array(np.where(missing, 0, vectors.shape[1]), vectors.reshape(-1), missing)}
