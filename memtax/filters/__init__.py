"""The filters, by catalogue name. Adding one is a file beside this one, a line here, and a test."""

import importlib

from memtax.errors import MemtaxError
from memtax.filters.base import Batch, Filter

CATALOGUE: dict[str, str] = {
    "duplicates": "memtax.filters.duplicates:DuplicateFilter",
    "token_frequencies": "memtax.filters.token_frequencies:TokenFrequencyFilter",
    "templates": "memtax.filters.templates:TemplateFilter",
    "compressibility": "memtax.filters.compressibility:CompressibilityFilter",
    "embeddings": "memtax.filters.embeddings:EmbeddingFilter",
    "semantic_matches": "memtax.filters.semantic_matches:SemanticMatchFilter",
    "textual_matches": "memtax.filters.textual_matches:TextualMatchFilter",
    "code_vs_nl": "memtax.filters.code_vs_nl:CodeFilter",
    "scores": "memtax.filters.scores:LanguageModelFilter",
}
"""Name to `module:class`; modules are imported when a filter is asked for."""


def filter_class(name: str) -> type[Filter]:
    """The class of a catalogued filter.

    Raises:
        MemtaxError: no filter has that name; the message suggests the nearest one.
    """
    import difflib

    if name not in CATALOGUE:
        near = difflib.get_close_matches(name, CATALOGUE, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise MemtaxError(f"unknown filter {name!r}; {hint}the catalogue has {', '.join(CATALOGUE)}")
    module, _, attribute = CATALOGUE[name].partition(":")
    found: type[Filter] = getattr(importlib.import_module(module), attribute)
    return found


__all__ = ["CATALOGUE", "Batch", "Filter", "filter_class"]
