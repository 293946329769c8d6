"""Entry points of installed packages: filters (`memtax.filters`) and attacks (`memtax.attacks`)."""

import importlib.metadata
from typing import Any

from memtax.errors import MemtaxError


def entry_points(group: str) -> dict[str, importlib.metadata.EntryPoint]:
    """Name to entry point of a group."""
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
