"""What other verbs found about a run's model, made part of the run: configs of its dataset and sections of its report."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memtax import schema
from memtax.checksums import verify
from memtax.errors import MemtaxError
from memtax.hub.folder import Config
from memtax.record_shapes import ATTACHED
from memtax.records import read_json
from memtax.shapes import TEXT

if TYPE_CHECKING:
    import pyarrow as pa

    from memtax.pipeline.config import RunConfig

ROWS = {
    "paraphrases": "One row a text: its paraphrases, and why those that are null failed.",
    "alignment": "One row a text: how alike its gradient and those of its paraphrases are.",
    "influence": "One row a training example and a test example: the influence of the one on the other.",
}
"""Key of the configuration, which is the file's name too, to what a row of the table is."""
_VERBS = {"paraphrases": "paraphrase", "alignment": "align", "influence": "influence"}
SHOWN = 5
"""Test examples whose strongest influences the report shows, and how many of each."""
_TEXT = 200


def check(config: "RunConfig") -> None:
    """Look for the files before anything takes time.

    Raises:
        MemtaxError: a directory is not the output of its verb.
    """
    for name, folder in _given(config).items():
        verify(folder)
        for file in (f"{name}.parquet", "summary.json"):
            if not (folder / file).is_file():
                raise MemtaxError(f"{name}: {folder} has no {file}; give the output of `memtax {_VERBS[name]}`")


def attach(config: "RunConfig") -> tuple[list[Config], dict[str, Any]]:
    """Configs for the dataset, and figures for `metrics.json`."""
    import pyarrow.parquet as pq

    configs, metrics = [], {}
    for name, folder in _given(config).items():
        configs.append(Config(name, ROWS[name], {"train": _declared(pq.read_table(folder / f"{name}.parquet"))}))
        metrics[name] = read_json(folder / "summary.json", ATTACHED[name] | {"model": TEXT})
        if Path(metrics[name]["model"]).exists():
            metrics[name]["model"] = Path(metrics[name]["model"]).name
        if name == "influence" and (folder / "top.parquet").is_file():
            metrics[name]["top"] = _top(pq.read_table(folder / "top.parquet").to_pylist())
    return configs, metrics


def _given(config: "RunConfig") -> dict[str, Path]:
    return {name: Path(folder) for name in ROWS if (folder := getattr(config, name)) is not None}


def _declared(table: "pa.Table") -> "pa.Table":
    """The columns that are ours: sources may have brought others."""
    return table.select([name for name in table.column_names if name in schema.COLUMNS])


def _top(rows: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The strongest influences on the first test examples, by the first method of the table."""
    tests = list(dict.fromkeys(row["test_id"] for row in rows))[:SHOWN]
    method = rows[0]["method"] if rows else None
    chosen = [row for row in rows if row["method"] == method and row["test_id"] in tests and row["rank"] <= SHOWN]
    return [{name: value[:_TEXT] if isinstance(value, str) else value for name, value in row.items()} for row in chosen]
