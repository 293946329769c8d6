"""Versions of libraries under test: what older ones cannot do is skipped, as docs/install.md lists it."""

import importlib.metadata

from packaging.version import Version


def older(package, version):
    """Whether the installed version of a package is below this one."""
    return Version(importlib.metadata.version(package)) < Version(version)
