"""The examples in docstrings run and give what they show, and what is public has one."""

import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

import memtax
from memtax import schema
from memtax.filters import CATALOGUE

NEEDS_A_MODEL = {"CodeFilter", "EmbeddingFilter", "LanguageModelFilter"}
"""Filters whose example would have to load weights; the guides run them."""
PLACES = [place.partition(":") for place in CATALOGUE.values()]
MODULES = sorted(
    {"memtax.filters.base", "memtax.schema.column"}
    | {module for module, _, name in PLACES if name not in NEEDS_A_MODEL}
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
    public += [filters.Filter, schema.Column]
    public += [getattr(filters, place.rpartition(":")[2]) for place in filters.CATALOGUE.values()]
    assert not [item.__name__ for item in public if item.__name__ not in NEEDS_A_MODEL and ">>>" not in item.__doc__]


def test_everything_in_a_list_of_public_names_exists_and_is_documented():
    package = Path(memtax.__file__).parent
    modules = [
        path for path in package.rglob("*.py") if re.search("^__all__ = ", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert len(modules) > 10
    undocumented = []
    for path in modules:
        parts = path.relative_to(package.parent).with_suffix("").parts
        module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
        for name in module.__all__:
            item = getattr(module, name)
            if inspect.isclass(item) or inspect.isfunction(item):
                # A dataclass without a docstring gets its signature as one.
                text = item.__doc__ or ""
                undocumented += [f"{module.__name__}.{name}"] * (not text or text.startswith(f"{name}("))
    assert not undocumented
