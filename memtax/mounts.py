"""Alternative names of a directory: each bind mount adds a name with other parent directories."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TABLE = Path("/proc/self/mountinfo")
"""The mounts visible to this process; exists only on Linux, as do bind mounts."""


@dataclass(frozen=True)
class Mount:
    """A directory of a file system and its mount point.

    Attributes:
        device: number of the file system.
        root: the directory, from the root of the file system.
        point: the mount point.
    """

    device: bytes
    root: Path
    point: Path


def mounts() -> list[Mount]:
    """The mounts of this process, later ones shadowing earlier ones; empty if the system does not list them."""
    try:
        lines = TABLE.read_bytes().splitlines()
    except OSError:
        return []
    return [Mount(fields[2], _path(fields[3]), _path(fields[4])) for line in lines if len(fields := line.split(b" ")) > 4]


def _path(field: bytes) -> Path:
    # Spaces, tabs, line breaks and backslashes are octal escapes there.
    return Path(os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), field)))


def above(folder: Path) -> list[Path]:
    """Every parent directory, under each of the directory's names, from the top down where that order is defined.

    Args:
        folder: a real path (`os.path.realpath`) of a directory that exists.
    """
    table = mounts()
    found, waiting = {folder: 0}, [folder]
    while waiting:
        path = waiting.pop()
        for name in (path.parent, *_other_names(path, table)):
            if name not in found:
                found[name] = len(name.parts)
                waiting.append(name)
    return sorted((path for path in found if not is_same(path, folder)), key=lambda path: (found[path], path))


def _other_names(folder: Path, table: list[Mount]) -> Iterator[Path]:
    own = [mount for mount in table if mount.point == folder or mount.point in folder.parents]
    if not own:
        return
    # Of several mounts at one point, the last is visible.
    mount = max(enumerate(own), key=lambda each: (len(each[1].point.parts), each[0]))[1]
    place = mount.root / folder.relative_to(mount.point)
    for other in table:
        if other.device == mount.device and (other.root == place or other.root in place.parents):
            name = other.point / place.relative_to(other.root)
            # Another mount may hide it.
            if name != folder and is_same(name, folder):
                yield name


def is_same(path: Path, other: Path) -> bool:
    """Whether two paths refer to the same existing file or directory."""
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False
