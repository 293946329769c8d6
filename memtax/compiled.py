"""Compiled loops (numba) with a disk cache that many processes may fill at once.

Numba stores the machine code of a function's first signature as `….1.nbc` and of its second as `….2.nbc`, and maps signatures
to files in an index. Two processes that compile different signatures at the same time, as in the first run after an
installation under torchrun, Spark or `num_proc`, both use number 1: the index then maps one signature to the code of the
other, which crashes or gives wrong results, in this and every later run (numba issues 4807 and 10128). Here a file is named by
a digest of its key, so files are never confused; a race can only cause an additional compilation.

Numba also detects changes only in a function's own file. Here the functions that it calls count as well.
"""

import contextlib
import functools
import hashlib
import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.dispatcher import Dispatcher

from memtax.progress import say


class _CacheFile(IndexDataCacheFile):
    """The cached code of one function: one file per signature, machine and version of the source."""

    def save(self, key: Any, data: Any) -> None:
        """Store the code for a key: first the file, then the index that refers to it."""
        name = self._name_of(key)
        self._save_data(name, (key, data))
        self._save_index({**self._load_index(), key: name})

    def load(self, key: Any) -> Any:
        """The code for a key; None, which triggers compilation, if it is missing, for another key, or unreadable."""
        try:
            found = super().load(key)
        except (OSError, pickle.UnpicklingError, EOFError, ValueError, AttributeError, ImportError, IndexError):
            return None
        return found[1] if found is not None and found[0] == key else None

    def _name_of(self, key: Any) -> str:
        digest = hashlib.sha256(repr((self._version, self._source_stamp, key)).encode()).hexdigest()[:24]
        return str(self._data_name_pattern.replace("{number:d}", digest))


class _Cache(FunctionCache):
    """Numba's function cache with files named as described above."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        stamp = (self._impl.locator.get_source_stamp(), _stamp(function))
        self._cache_file = _CacheFile(self._cache_path, self._impl.filename_base, stamp)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The stored code of a signature; None, after a line about the wait, if it has to be compiled first."""
        found = super().load_overload(sig, target_context)
        if found is None:
            _announce()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Store the code if possible; a full disk must not end a run, since the cache only saves time."""
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)


@functools.cache
def _announce() -> None:
    """Say once per process why nothing moves: the first use after an installation takes up to a minute."""
    if multiprocessing.parent_process() is None:
        say("compiling loops for this machine; later runs reuse them", is_note=True)


def kernel(allocates: bool = True, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function on its first call without the interpreter (`numba.njit(nogil=True)`), and cache the code on disk.

    If no directory is writable (a read-only installation and home), each process compiles the code. `NUMBA_CACHE_DIR` sets
    another location.

    Args:
        allocates: False for a function that creates no arrays. It then does not count references to its array arguments, an
            atomic operation that waits for all pending memory reads.
        options: more numba options, such as `fastmath`.

    Returns:
        The decorator.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(nogil=True, _nrt=allocates, **options)(function)
        try:
            dispatcher._cache = _Cache(function)  # numba has no public way to set a custom cache
        except RuntimeError:  # no writable cache directory
            return dispatcher
        return dispatcher

    return decorate


def _stamp(function: Callable[..., Any]) -> str:
    """Digest of the source files of a function and of everything that it calls by a global name."""
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
