"""When a batch does not fit into memory: the next one is half as large, and the size that fits is remembered."""

import traceback
import weakref
from typing import Any

from memtax.errors import MemtaxError, ModelError
from memtax.lm.folders import first_line

_FITTING: "weakref.WeakKeyDictionary[Any, dict[str, int]]" = weakref.WeakKeyDictionary()
"""For each model and kind of work, what was found to fit after more did not."""

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
"""What a forward pass raises that cannot take a batch."""
_SIGNS = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def fitting(model: Any, work: str, most: int) -> int:
    """`most`, or less if that is what was found to fit into memory for this model and work."""
    return min(most, _FITTING.get(model, {}).get(work, most))


def cannot_run(model: Any, shape: tuple[int, int], error: Exception) -> ModelError:
    """The error of a model whose forward pass fails on so many rows of so many tokens."""
    return ModelError(f"{type(model).__name__} cannot run on {shape[0]} texts of {shape[1]} tokens: {first_line(error)}")


def smaller(model: Any, work: str, error: Exception, shape: tuple[int, int], automatic: bool = True) -> int:
    """The next size to try after an error, if that says that the memory is too small.

    To be called while the error is handled. What the failed pass held is freed: without that, a traceback keeps every tensor
    of its frames.

    Args:
        model: whose batch it was.
        work: what kind of work, a key for `fitting`.
        error: what was raised.
        shape: rows and tokens a row of the batch that failed.
        automatic: whether the size is ours to choose.

    Returns:
        Positions (rows times tokens) of a batch of half as many rows.

    Raises:
        ModelError: the batch cannot be made smaller, or the error is of another kind.
    """
    from accelerate.utils.memory import clear_device_cache

    if isinstance(error, MemtaxError):
        raise error
    rows, length = shape
    if not isinstance(error, MemoryError) and not any(sign in str(error) for sign in _SIGNS):
        raise cannot_run(model, shape, error) from error
    if not automatic or rows == 1:
        way = "leave the batch size automatic" if rows > 1 else "use a smaller dtype, or device_map auto"
        texts = f"{rows} sequences" if rows > 1 else "1 sequence"
        raise ModelError(f"{texts} of {length} tokens do not fit into memory; {way}") from error
    traceback.clear_frames(error.__traceback__)
    clear_device_cache(garbage_collection=True)
    found: int = _FITTING.setdefault(model, {}).setdefault(work, rows * length)
    _FITTING[model][work] = min(found, (rows // 2) * length)
    return _FITTING[model][work]
