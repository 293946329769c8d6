"""The filters, by catalogue name. To add one, write a file in this folder, a line here, and a test."""

import dataclasses
import difflib
import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from memtax import extensions, extras
from memtax.errors import MemtaxError
from memtax.filters.base import Batch, Filter
from memtax.records import parse_yaml

if TYPE_CHECKING:
    from memtax.filters.code_vs_nl import CodeFilter as CodeFilter
    from memtax.filters.compressibility import CompressibilityFilter as CompressibilityFilter
    from memtax.filters.duplicates import DuplicateFilter as DuplicateFilter
    from memtax.filters.embedding import EmbeddingFilter as EmbeddingFilter
    from memtax.filters.language_model import LanguageModelFilter as LanguageModelFilter
    from memtax.filters.semantic_matches import SemanticMatchFilter as SemanticMatchFilter
    from memtax.filters.templates import TemplateFilter as TemplateFilter
    from memtax.filters.textual_matches import TextualMatchFilter as TextualMatchFilter
    from memtax.filters.token_frequencies import TokenFrequencyFilter as TokenFrequencyFilter
    from memtax.filters.training_order import TrainingOrderFilter as TrainingOrderFilter

CATALOGUE: dict[str, str] = {
    "duplicates": "memtax.filters.duplicates:DuplicateFilter",
    "token_frequencies": "memtax.filters.token_frequencies:TokenFrequencyFilter",
    "templates": "memtax.filters.templates:TemplateFilter",
    "compressibility": "memtax.filters.compressibility:CompressibilityFilter",
    "embeddings": "memtax.filters.embedding:EmbeddingFilter",
    "semantic_matches": "memtax.filters.semantic_matches:SemanticMatchFilter",
    "textual_matches": "memtax.filters.textual_matches:TextualMatchFilter",
    "code_vs_nl": "memtax.filters.code_vs_nl:CodeFilter",
    "training_order": "memtax.filters.training_order:TrainingOrderFilter",
    "scores": "memtax.filters.language_model:LanguageModelFilter",
}
"""Name to `module:class`; modules are imported on first use."""


OPTIONS = ("counts", "frequencies", "model")
"""Parameters for which `memtax filter` has an option of that name."""
ENTRY_POINTS = "memtax.filters"
"""Entry-point group for filters of other packages: `NAME = "module:class"`."""


def catalogue() -> dict[str, str]:
    """Name to `module:class` of every filter from memtax and installed packages."""
    return {**{name: point.value for name, point in extensions.entry_points(ENTRY_POINTS).items()}, **CATALOGUE}


def filter_class(name: str) -> type[Filter]:
    """The class of a filter in the catalogue.

    Raises:
        MemtaxError: no filter has that name (the message suggests the closest one), or its package cannot be imported.
    """
    known = catalogue()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise MemtaxError(f"unknown filter {name!r}; {hint}the catalogue has {', '.join(known)}")
    if name in CATALOGUE:
        return _own(CATALOGUE[name])
    kind: type[Filter] = extensions.load(extensions.entry_points(ENTRY_POINTS)[name])
    return kind


def make_filters(names: Sequence[str], parameters: Mapping[str, Any]) -> list[Filter]:
    """Filters of the catalogue, each with those of the parameters that it has.

    Args:
        names: names in the catalogue.
        parameters: values by field name.

    Raises:
        MemtaxError: no filter has one of the names, a required parameter is missing, or no filter has one of the parameters.
        MissingExtraError: an extra that a filter needs is not installed.
    """
    kinds = {name: filter_class(name) for name in names}
    for name, kind in kinds.items():
        extras.require(f"filter {name!r}", *kind.needs)
    known = {field.name for kind in kinds.values() for field in dataclasses.fields(kind)}
    unknown = [key for key in parameters if key not in known]
    if unknown:
        which = f"they have: {', '.join(sorted(known))}" if known else "they have none"
        raise MemtaxError(f"no filter among {', '.join(names)} has a parameter {unknown[0]!r}; {which}")
    return [_make(name, kind, parameters) for name, kind in kinds.items()]


def _make(name: str, kind: type[Filter], parameters: Mapping[str, Any]) -> Filter:
    fields = dataclasses.fields(kind)
    for field in fields:
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and field.name not in parameters:
            option = f"--{field.name} VALUE" if field.name in OPTIONS else f"--set {field.name}=VALUE"
            raise MemtaxError(f"filter {name!r} needs {field.name!r}; give it with {option}")
    return kind(**{field.name: parameters[field.name] for field in fields if field.name in parameters})


def parse_parameters(assignments: Sequence[str]) -> dict[str, Any]:
    """Parameters from texts NAME=VALUE, whose values are YAML.

    Raises:
        MemtaxError: a text has another form.
    """
    parameters = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise MemtaxError(f"--set expects NAME=VALUE, got {text!r}")
        parameters[name] = parse_yaml(value, f"the value of --set {name}")
    return parameters


def _own(place: str) -> type[Filter]:
    module, _, attribute = place.partition(":")
    with extras.explained():
        kind: type[Filter] = getattr(importlib.import_module(module), attribute)
    return kind


def __getattr__(name: str) -> type[Filter]:
    # Imported on first use because most filters need additional libraries.
    for place in CATALOGUE.values():
        if place.endswith(f":{name}"):
            return _own(place)
    raise AttributeError(f"module 'memtax.filters' has no attribute {name!r}")


__all__ = [
    "CATALOGUE",
    "Batch",
    "CodeFilter",
    "CompressibilityFilter",
    "DuplicateFilter",
    "EmbeddingFilter",
    "Filter",
    "LanguageModelFilter",
    "SemanticMatchFilter",
    "TemplateFilter",
    "TextualMatchFilter",
    "TokenFrequencyFilter",
    "catalogue",
    "filter_class",
]
