"""Compiled loops (numba) whose cache on disk many processes may fill at once.

Numba names the cached machine code of a function's first signature `….1.nbc`, of its second `….2.nbc`, and keeps in an
index which is whose. Two processes that compile different signatures at the same moment, as the first run after an
installation does under torchrun, Spark or `num_proc`, both take number 1: the index then leads one signature to the code of
the other, and that crashes or computes nonsense, now and in every later run (numba issues 4807 and 10128). Here a file's
name is a digest of what it holds the code for, so that no two are ever confused; the worst that a race costs is compiling
once more.

Numba also notices changes only of the file that a function stands in. Here the functions that it calls count as well.
"""

import contextlib
import functools
import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.dispatcher import Dispatcher


class _CacheFile(IndexDataCacheFile):
    """The cached code of one function: a file for each signature, machine and version of the source."""

    def save(self, key: Any, data: Any) -> None:
        """Keep the code for a key: first the file, then the index that leads to it."""
        name = self._name_of(key)
        self._save_data(name, (key, data))
        self._save_index({**self._load_index(), key: name})

    def load(self, key: Any) -> Any:
        """The code for a key; None, so that it is compiled again, where there is none, another's, or none that can be read."""
        try:
            found = super().load(key)
        except (OSError, pickle.UnpicklingError, EOFError, ValueError, AttributeError, ImportError, IndexError):
            return None
        return found[1] if found is not None and found[0] == key else None

    def _name_of(self, key: Any) -> str:
        digest = hashlib.sha256(repr((self._version, self._source_stamp, key)).encode()).hexdigest()[:24]
        return str(self._data_name_pattern.replace("{number:d}", digest))


class _Cache(FunctionCache):
    """Numba's cache of a function with files of the kind above."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        stamp = (self._impl.locator.get_source_stamp(), _stamp(function))
        self._cache_file = _CacheFile(self._cache_path, self._impl.filename_base, stamp)

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the code if there is room for it; a full disk must not end a run that only wanted to be faster."""
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)


def kernel(allocates: bool = True, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function on its first call without the interpreter (`numba.njit(nogil=True)`), and keep the code on disk.

    Where no directory can be written to (an installation and a home that are read-only), the code is compiled in each
    process. `NUMBA_CACHE_DIR` names another place for it.

    Args:
        allocates: False for a function that makes no array. It then does not count the references to the arrays it is
            given; a count is an atomic operation, which waits for every read of memory that is under way.
        options: more of numba's options, such as `fastmath`.

    Returns:
        The decorator.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(nogil=True, _nrt=allocates, **options)(function)
        try:
            dispatcher._cache = _Cache(function)  # numba has no public way to give a cache of one's own
        except RuntimeError:  # no place to keep it
            return dispatcher
        return dispatcher

    return decorate


def _stamp(function: Callable[..., Any]) -> str:
    """A digest of the source files of a function and of all that it calls by a global name."""
    files: set[Path] = set()
    _collect(function, files, set())
    return hashlib.sha256("".join(_digest(file) for file in sorted(files)).encode()).hexdigest()


@functools.cache
def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else file.name


def _collect(function: Callable[..., Any], files: set[Path], seen: set[int]) -> None:
    if id(function) in seen:
        return
    seen.add(id(function))
    code = function.__code__
    files.add(Path(code.co_filename))
    for name in code.co_names:
        called = function.__globals__.get(name)
        called = called.py_func if isinstance(called, Dispatcher) else getattr(called, "_defn", None)  # an intrinsic's
        if called is not None and hasattr(called, "__code__"):
            _collect(called, files, seen)
