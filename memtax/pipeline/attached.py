"""Attaching other verbs' results about a run's model to the run: configs of its dataset and sections of its report."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from memtax import schema
from memtax.errors import MemtaxError
from memtax.hub.folder import Config
from memtax.record_shapes import ATTACHED
from memtax.results import read_summary, read_table, table_files
from memtax.shapes import TEXT

if TYPE_CHECKING:
    from memtax.pipeline.config import RunConfig

ROWS = {
    "paraphrases": "One row per text: its paraphrases, and why missing ones failed.",
    "alignment": "One row per text: similarity of its gradient to those of its paraphrases.",
    "influence": "One row per pair of a training and a test example: the influence of the former on the latter.",
}
"""Configuration key, which is also the file name, to a description of the table's rows."""
VERBS = {"paraphrases": "paraphrase", "alignment": "align", "influence": "influence"}
SHOWN = 5
"""Number of test examples shown in the report, and number of strongest influences for each."""
_TEXT = 200


def check(config: "RunConfig") -> None:
    """Check that the files exist before anything takes time.

    Raises:
        MemtaxError: a directory is not the output of its verb.
    """
    for name, folder in _given(config).items():
        try:
            read_summary(folder, VERBS[name], ATTACHED[name] | {"model": TEXT})
            table_files(folder, name)
        except MemtaxError as error:
            raise MemtaxError(f"{name}: {error}") from error


def attach(config: "RunConfig", sequences: pa.Table) -> tuple[list[Config], dict[str, Any]]:
    """Configs for the dataset, and figures for the run.

    Args:
        config: gives the output directories of the other verbs.
        sequences: the run's own rows, whose memorization scores are joined to the alignment of the same texts.
    """
    configs, metrics = [], {}
    for name, folder in _given(config).items():
        table = read_table(folder, name)
        metrics[name] = read_summary(folder, VERBS[name], ATTACHED[name] | {"model": TEXT})
        if name == "alignment":
            from memtax.attribution.alignment_memorization import add_memorization, agreement

            table = add_memorization(table, sequences)
            metrics[name]["memorization"] = agreement(table)
        configs.append(Config(name, ROWS[name], {"train": _declared(table)}))
        if Path(metrics[name]["model"]).exists():
            metrics[name]["model"] = Path(metrics[name]["model"]).name
        if name == "influence":
            metrics[name]["top"] = _top(read_table(folder, "top").to_pylist())
    return configs, metrics


def _given(config: "RunConfig") -> dict[str, Path]:
    return {name: Path(folder) for name in ROWS if (folder := getattr(config, name)) is not None}


def _declared(table: pa.Table) -> pa.Table:
    """The columns in memtax's schema: sources may have added others."""
    return table.select([name for name in table.column_names if name in schema.COLUMNS])


def _top(rows: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The strongest influences on the first test examples, by the first method of the table."""
    tests = list(dict.fromkeys(row["test_id"] for row in rows))[:SHOWN]
    method = rows[0]["method"] if rows else None
    chosen = [row for row in rows if row["method"] == method and row["test_id"] in tests and row["rank"] <= SHOWN]
    return [{name: value[:_TEXT] if isinstance(value, str) else value for name, value in row.items()} for row in chosen]
