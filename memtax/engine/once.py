"""Creating a directory once: reuse it for the same work, reject it for other work, recreate it if damaged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from memtax import checksums
from memtax.checksums import Parts
from memtax.errors import MemtaxError, StaleOutputError
from memtax.files import atomic_directory, read_json, write_json
from memtax.progress import doing, report_warning

MANIFEST = "stage.json"


def once(directory: Path | str, identity: dict[str, Any], make: Callable[[Path], None]) -> bool:
    """Fill `directory` with `make`, unless it is finished, has the same identity, and its files match their checksums.

    Args:
        directory: created as a whole, by rename, when `make` returns.
        identity: JSON values that determine the content: inputs, parameters, versions.
        make: receives an empty temporary folder to fill.

    Returns:
        Whether the work was done now (False: reused).

    Raises:
        StaleOutputError: `directory` is the result of other inputs or parameters.
    """
    directory = Path(directory)
    if directory.exists() and is_whole(directory, identity):
        return False
    doing(directory.name)
    with atomic_directory(directory) as temporary:
        make(temporary)
        write_json(temporary / MANIFEST, identity)
        checksums.seal(temporary, "the command that made it", identity)
    return True


def is_whole(directory: Path, identity: dict[str, Any]) -> bool:
    """Whether a directory created by `once` can be reused; if not, a line on standard error gives the reason.

    Raises:
        StaleOutputError: the directory is the result of other inputs or parameters.
    """
    check(directory, identity)
    reason = checksums.damage(directory, identity)
    if reason is not None:
        report_warning(f"{reason}; {directory} is made again")
    return reason is None


def invalidate(directory: Path, identity: dict[str, Any]) -> None:
    """Mark a damaged directory as unfinished, so that `once` recreates it in any process."""
    write_json(directory / MANIFEST, identity)
    (directory / checksums.RECORD).unlink(missing_ok=True)


def check(directory: Path, identity: dict[str, Any], parts: Parts | None = None) -> None:
    """Compare the manifest of a directory with an identity.

    A damaged or missing manifest is rewritten if the other files prove their origin, by their record or because all parts
    match theirs.

    Raises:
        StaleOutputError: they differ, or the directory has no readable manifest.
    """
    reason = _difference(directory, identity)
    if reason is None:
        return
    if not checksums.is_of(directory, identity) and not (parts is not None and parts.prove()):
        raise StaleOutputError(reason)
    report_warning(f"{directory / MANIFEST} is damaged; it is made again")
    write_json(directory / MANIFEST, identity)


def _difference(directory: Path, identity: dict[str, Any]) -> str | None:
    """Describe what is wrong with the manifest."""
    try:
        found = read_json(directory / MANIFEST)
    except (OSError, MemtaxError):
        return f"{directory} exists, but {MANIFEST} in it is missing or unreadable; remove that folder or choose another output"
    missing = object()
    changed = [name for name in {**identity, **found} if found.get(name, missing) != identity.get(name, missing)]
    if not changed:
        return None
    return (
        f"{directory} has results of another run (changed: {', '.join(changed)}); remove that folder or choose another output"
    )
