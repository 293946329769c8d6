"""The examples in docstrings run and give what they show, and what is public has one."""

import doctest
import importlib

import pytest

import memtax
from memtax.filters import CATALOGUE

NEEDS_A_MODEL = {"CodeFilter", "EmbeddingFilter", "LanguageModelFilter"}
"""Filters whose example would have to load weights; the guides run them."""
PLACES = [place.partition(":") for place in CATALOGUE.values()]
MODULES = sorted(
    {module for module, _, name in PLACES if name not in NEEDS_A_MODEL}
    | {getattr(memtax, name).__module__ for name in memtax.__all__ if name != "__version__"}
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert found.attempted
    assert not found.failed


def test_what_is_public_shows_an_example():
    from memtax import filters

    public = [getattr(memtax, name) for name in memtax.__all__ if name != "__version__"]
    public += [getattr(filters, place.rpartition(":")[2]) for place in filters.CATALOGUE.values()]
    assert not [item.__name__ for item in public if item.__name__ not in NEEDS_A_MODEL and ">>>" not in item.__doc__]
