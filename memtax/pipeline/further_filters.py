"""Filters of the catalogue that a configuration adds to the run's own (`filters:`)."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from memtax import schema
from memtax.errors import MemtaxError
from memtax.filters import Filter, filter_class, make_filters, parse_parameters
from memtax.filters.language_model import LanguageModelFilter
from memtax.filters.taxonomy import TaxonomyFilter
from memtax.pipeline.config import RunConfig

KEYS = {
    "scores": "model",
    "code_vs_nl": "code_model",
    "embeddings": "embedding_model",
    "semantic_matches": "embedding_model",
    "textual_matches": "embedding_model",
}
"""Filters that the run applies if another key names their model."""
SEQUENCES = ("sequence_id", "text", "document", "tokens", "is_member")
"""Columns of the sequences."""
LATER = (
    *TaxonomyFilter.columns,
    *LanguageModelFilter.columns,
    "is_memorized_by_reference",
    "memorized_probability",
    "token_texts",
)
"""Columns that the run adds after the filters."""


def with_further(config: RunConfig, own: Sequence[Filter]) -> list[Filter]:
    """The run's own filters and those of the configuration, which replace own ones of the same name.

    Args:
        config: configuration of the run.
        own: filters that every run applies, first in execution order.

    Raises:
        MemtaxError: a filter or parameter is unknown or belongs to another key, or a column is missing or exists already.
    """
    for name in config.filters:
        if name in KEYS:
            raise MemtaxError(
                f"filters: {name} is applied by the run itself; give its model with the key `{KEYS[name]}` instead"
            )
    given = parse_parameters(config.set)
    fields = {field.name for name in config.filters for field in dataclasses.fields(filter_class(name))}
    for name in {"counts", "frequencies"} & fields:
        if name in given:
            raise MemtaxError(f"set: filters read the {name} of the run; give the key `{name}` instead")
        given[name] = str(Path(config.output) / "counts")
    chosen = {each.name: each for each in make_filters(config.filters, given)}
    filters = [chosen.pop(each.name, each) for each in own] + list(chosen.values())
    present = [*SEQUENCES]
    for each in filters:
        schema.require(present, each.requires, f"filters: the table of {each.name} (before the models)")
        twice = [name for name in each.columns if name in (*present, *LATER)]
        if twice:
            raise MemtaxError(f"filters: {each.name} adds the column {twice[0]!r}, which the run has already; rename it")
        present += each.columns
    return filters


def further_factors(filters: Sequence[Filter], own: Sequence[Filter]) -> tuple[str, ...]:
    """Columns of the filters, without those that every run has, that can be factors."""
    usual = {name for each in own for name in each.columns}
    names = dict.fromkeys(name for each in filters for name in each.columns if name not in usual)
    return tuple(name for name in names if schema.column(name).role in ("factor", "variant"))
