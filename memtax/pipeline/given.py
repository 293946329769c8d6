"""Factors that were computed earlier or published by others, looked up by sequence instead of computed."""

import datasets
import pyarrow as pa

from memtax import schema
from memtax.counting.count_tables import stamp
from memtax.errors import MemtaxError
from memtax.filters.code_vs_nl import CodeFilter
from memtax.filters.semantic_matches import SemanticMatchFilter
from memtax.filters.textual_matches import TextualMatchFilter
from memtax.pipeline.config import RunConfig
from memtax.progress import skipped
from memtax.published.lookup import look_up

COLUMNS = {
    "code_scores": CodeFilter.columns,
    "semantic_matches": SemanticMatchFilter.columns,
    "textual_matches": TextualMatchFilter.columns,
}
"""Configuration keys for such tables, and the columns of each."""


def given_columns(config: RunConfig, dataset: datasets.Dataset) -> list[pa.Table]:
    """Scores and counts of the members; held-out sequences have generated ids, which mean nothing in those tables.

    Args:
        config: configuration of the run.
        dataset: sequences with `sequence_id` and `is_member`.

    Returns:
        One table per given key, with all ids; null for held-out sequences and those that the source lacks.

    Raises:
        MemtaxError: a source lacks the columns, or contains none of the sequences.
    """
    ids, member = list(dataset["sequence_id"]), list(dataset["is_member"])
    tables = []
    for key, source in config.given.items():
        names = COLUMNS[key]
        found = look_up(source, names, ids, stamp(source))
        if found is None:
            raise MemtaxError(
                f"{key}: {source} has no sequence_id (or index) with {' and '.join(names)}, nor their published names"
            )
        lacking = sum(is_member and value is None for is_member, value in zip(member, found[names[0]], strict=True))
        if lacking == sum(member):
            raise MemtaxError(f"{key}: {source} has none of the {lacking:,} sequences; its ids are not those of the sequences")
        skipped(lacking, f"no {names[0]} in {source}; it is null")
        columns = {
            name: [value if is_member else None for value, is_member in zip(values, member, strict=True)]
            for name, values in found.items()
        }
        if key == "code_scores":
            columns["text_kind"] = CodeFilter(scores=source).verdicts(columns["nl_score"])
        tables.append(pa.table({"sequence_id": ids, **columns}, schema=schema.arrow_schema(["sequence_id", *columns])))
    return tables
