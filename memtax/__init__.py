"""memtax measures, explains and predicts what a causal language model memorized from its training data."""

import importlib
from typing import TYPE_CHECKING, Any

from memtax.processors import ask_for_reproducible_products

if TYPE_CHECKING:
    from memtax import canaries as canaries
    from memtax import metrics as metrics
    from memtax.callback import MemorizationCallback as MemorizationCallback
    from memtax.files import metric_path as metric_path
    from memtax.jobs.writing import write as write
    from memtax.pipeline.evaluate import evaluate_model as evaluate_model
    from memtax.predictor.predictor import Predictor as Predictor

__version__ = "0.2.0"

ask_for_reproducible_products()

_LAZY = {
    "MemorizationCallback": "memtax.callback",
    "Predictor": "memtax.predictor.predictor",
    "evaluate_model": "memtax.pipeline.evaluate",
    "metric_path": "memtax.files",
    "write": "memtax.jobs.writing",
}

_MODULES = ("demo", "report")
"""Verbs whose names are used by modules; all others are functions: `memtax.score(sequences=..., model=..., output=...)`."""

__all__ = ["MemorizationCallback", "Predictor", "__version__", "evaluate_model", "metric_path", "write"]


def __getattr__(name: str) -> Any:
    # Imported on first use, so that `import memtax` does not import torch.
    if name in _LAZY:
        from memtax.extras import explained

        with explained():
            return getattr(importlib.import_module(_LAZY[name]), name)
    if name in ("canaries", "metrics"):
        return importlib.import_module(f"memtax.{name}")
    from memtax.jobs import VERBS, function

    if name in VERBS and name not in _MODULES:
        return function(name)
    raise AttributeError(f"module 'memtax' has no attribute {name!r}")


def __dir__() -> list[str]:
    from memtax.jobs import VERBS

    return sorted({*__all__, "canaries", "metrics", *VERBS})
