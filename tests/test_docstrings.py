"""The examples in docstrings run and give what they show, and what is public has one."""

import doctest
import importlib

import pytest

MODULES = (
    "memtax.callback",
    "memtax.files",
    "memtax.filters.compressibility",
    "memtax.filters.duplicates",
    "memtax.filters.semantic_matches",
    "memtax.filters.templates",
    "memtax.filters.textual_matches",
    "memtax.filters.token_frequencies",
    "memtax.jobs.writing",
    "memtax.pipeline.evaluate",
    "memtax.predictor.predictor",
)
NEEDS_A_MODEL = {"CodeFilter", "EmbeddingFilter", "LanguageModelFilter"}
"""Filters whose example would have to load weights; the guides run them."""


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert found.attempted
    assert not found.failed


def test_what_is_public_shows_an_example():
    import memtax
    from memtax import filters

    public = [getattr(memtax, name) for name in memtax.__all__ if name != "__version__"]
    public += [getattr(filters, place.rpartition(":")[2]) for place in filters.CATALOGUE.values()]
    assert not [item.__name__ for item in public if item.__name__ not in NEEDS_A_MODEL and ">>>" not in item.__doc__]
    assert {item.__module__ for item in public if item.__name__ not in NEEDS_A_MODEL} == set(MODULES)
