"""The metrics as plain functions: `memtax.metrics.k_extractability(predictions, references)`.

Each takes columns (lists, arrays, columns of a `Dataset`) with one entry per row and returns a dictionary of numbers. The
`evaluate` modules of the same names, in `metrics/` and on the Hub, call these functions.
"""

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memtax.metrics.calibration import calibration_error as calibration_error
    from memtax.metrics.extraction import k_extractability as k_extractability
    from memtax.metrics.extraction import probabilistic_extraction as probabilistic_extraction
    from memtax.metrics.gradients import gradient_alignment as gradient_alignment
    from memtax.metrics.membership import membership_inference as membership_inference
    from memtax.metrics.membership import membership_scores as membership_scores
    from memtax.metrics.texts import coding_length as coding_length
    from memtax.metrics.texts import memorization_taxonomy as memorization_taxonomy
    from memtax.metrics.texts import templating as templating

_FILES = {
    "calibration_error": "calibration",
    "coding_length": "texts",
    "gradient_alignment": "gradients",
    "k_extractability": "extraction",
    "membership_inference": "membership",
    "membership_scores": "membership",
    "memorization_taxonomy": "texts",
    "probabilistic_extraction": "extraction",
    "templating": "texts",
}

__all__ = [
    "calibration_error",
    "coding_length",
    "gradient_alignment",
    "k_extractability",
    "membership_inference",
    "membership_scores",
    "memorization_taxonomy",
    "probabilistic_extraction",
    "templating",
]


def __getattr__(name: str) -> Callable[..., dict[str, Any]]:
    # Imported on first use: templates need a compiler, membership scores scipy.
    if name not in _FILES:
        raise AttributeError(f"module 'memtax.metrics' has no attribute {name!r}; it has {', '.join(_FILES)}")
    function: Callable[..., dict[str, Any]] = getattr(importlib.import_module(f"memtax.metrics.{_FILES[name]}"), name)
    return function


def __dir__() -> list[str]:
    return list(__all__)
