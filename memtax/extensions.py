"""Entry points of installed packages: filters (`memtax.filters`) and attacks (`memtax.attacks`)."""

import functools
import importlib.metadata
import sys
from typing import Any

from memtax.errors import MemtaxError


def entry_points(group: str) -> dict[str, importlib.metadata.EntryPoint]:
    """Name to entry point of a group."""
    return _entry_points(group, tuple(sys.path))


@functools.cache
def _entry_points(group: str, path: tuple[str, ...]) -> dict[str, importlib.metadata.EntryPoint]:
    """Searching the metadata of all installed packages takes about 30 ms, and filters are asked for in every batch."""
    return {point.name: point for point in importlib.metadata.entry_points(group=group)}


def load(point: importlib.metadata.EntryPoint) -> Any:
    """The object that an entry point refers to.

    Raises:
        MemtaxError: its package cannot be imported, or has no such object.
    """
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise MemtaxError(
            f"{point.name!r} of another package cannot be imported from {point.value}: {error}; fix or uninstall that package"
        ) from error
