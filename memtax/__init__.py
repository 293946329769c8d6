"""memtax measures, explains and predicts what a causal language model memorized from its training data."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memtax.callback import MemorizationCallback as MemorizationCallback
    from memtax.taxonomy.predictor import Predictor as Predictor

__version__ = "0.1.0"

_LAZY = {
    "MemorizationCallback": "memtax.callback",
    "Predictor": "memtax.taxonomy.predictor",
}

__all__ = ["MemorizationCallback", "Predictor", "__version__", "metric_path"]


def metric_path(name: str) -> str:
    """Path of one of memtax's `evaluate` modules, for `evaluate.load`; the same in a checkout and in an installed wheel.

    Raises:
        MemtaxError: there is no such module.
    """
    from memtax.errors import MemtaxError
    from memtax.files import asset

    names = sorted(folder.name for folder in asset("metrics").iterdir() if (folder / f"{folder.name}.py").is_file())
    if name not in names:
        raise MemtaxError(f"no metric {name!r}; there are {', '.join(names)}")
    return str(asset("metrics") / name)


def __getattr__(name: str) -> Any:
    # Imported on first use: `import memtax` must stay free of torch.
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'memtax' has no attribute {name!r}")
