"""Batches that do not fit into memory: the next batch is half as large, and the size that fits is remembered."""

import traceback
import weakref
from typing import Any

from memtax.engine.world import is_together
from memtax.errors import MemtaxError, ModelError
from memtax.lm.folders import first_line

_FITTING: "weakref.WeakKeyDictionary[Any, dict[str, int]]" = weakref.WeakKeyDictionary()
"""For each model and kind of work, the size that fit after a larger one failed."""

FAILURES = (
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""Exceptions of a forward pass that cannot process a batch."""
_SIGNS = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def fitting(model: Any, work: str, most: int) -> int:
    """`most`, or the smaller size known to fit into memory for this model and work."""
    return min(most, _FITTING.get(model, {}).get(work, most))


def cannot_run(model: Any, shape: tuple[int, int], error: Exception) -> ModelError:
    """The error for a model whose forward pass fails on a batch of this shape (rows, tokens)."""
    return ModelError(f"{type(model).__name__} cannot run on {shape[0]} texts of {shape[1]} tokens: {first_line(error)}")


def smaller(model: Any, work: str, error: Exception, shape: tuple[int, int], automatic: bool = True) -> int:
    """The next size to try after an out-of-memory error.

    Must be called while the error is handled. The memory of the failed pass is freed: a traceback would otherwise keep every
    tensor of its frames.

    Args:
        model: the model that ran the batch.
        work: kind of work, a key for `fitting`.
        error: the exception.
        shape: rows and tokens per row of the batch that failed.
        automatic: whether memtax may choose the size.

    Returns:
        Positions (rows times tokens) of a batch of half as many rows.

    Raises:
        ModelError: the batch cannot be made smaller, or the error is not about memory.
    """
    from accelerate.utils.memory import clear_device_cache

    if isinstance(error, MemtaxError):
        raise error
    rows, length = shape
    if not isinstance(error, MemoryError) and not any(sign in str(error) for sign in _SIGNS):
        raise cannot_run(model, shape, error) from error
    if is_together() and rows > 1:
        # The other processes wait for this one with the batch as it was.
        raise ModelError(f"{rows} sequences of {length} tokens do not fit into memory; use a smaller batch size") from error
    if not automatic or rows == 1:
        way = "leave the batch size automatic" if rows > 1 else "use a smaller dtype, or device_map auto"
        texts = f"{rows} sequences" if rows > 1 else "1 sequence"
        raise ModelError(f"{texts} of {length} tokens do not fit into memory; {way}") from error
    failed: BaseException | None = error
    while failed is not None:  # An error while another one was handled keeps the other's frames too.
        traceback.clear_frames(failed.__traceback__)
        failed = failed.__context__
    clear_device_cache(garbage_collection=True)
    found: int = _FITTING.setdefault(model, {}).setdefault(work, rows * length)
    _FITTING[model][work] = min(found, (rows // 2) * length)
    return _FITTING[model][work]
