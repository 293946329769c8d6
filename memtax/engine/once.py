"""Make a directory once: reuse it when it is the same work, refuse it when it is not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memtax.errors import StaleOutputError
from memtax.files import atomic_directory, write_json

MANIFEST = "stage.json"


def once(directory: Path | str, identity: dict[str, Any], make: Callable[[Path], None]) -> bool:
    """Fill `directory` by `make`, unless a finished one with the same identity is there.

    Args:
        directory: appears whole, by rename, when `make` returns.
        identity: JSON values that decide the content: inputs, parameters, versions.
        make: receives an empty temporary folder to fill.

    Returns:
        Whether the work was done now (False: reused).

    Raises:
        StaleOutputError: `directory` is the result of other inputs or parameters.
    """
    directory = Path(directory)
    if directory.exists():
        check(directory, identity)
        return False
    with atomic_directory(directory) as temporary:
        make(temporary)
        write_json(temporary / MANIFEST, identity)
    return True


def check(directory: Path, identity: dict[str, Any]) -> None:
    """Compare the manifest of a directory with an identity.

    Raises:
        StaleOutputError: they differ, or the directory has no readable manifest.
    """
    manifest = directory / MANIFEST
    try:
        found = dict(json.loads(manifest.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        raise StaleOutputError(
            f"{directory} is there, but {MANIFEST} in it is missing or unreadable; remove that folder or choose another output"
        ) from None
    changed = [name for name in identity if found.get(name) != identity[name]]
    if changed:
        raise StaleOutputError(
            f"{directory} holds results of another run (changed: {', '.join(changed)}); "
            "remove that folder or choose another output"
        )
