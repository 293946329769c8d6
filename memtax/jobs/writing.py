"""Write a dataset, for example one mapped in a notebook, in the layout of every verb's output."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memtax import outputs
from memtax.jobs.base import Finished, Result, Rows, write_result

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa


def write(
    data: "datasets.Dataset | pa.Table | Mapping[str, Any]",
    output: Path | str,
    *,
    name: str = "features",
    title: str | None = None,
    license_id: str | None = None,
) -> Finished:
    """Write a dataset as the verbs do: a folder for `load_dataset`, `memtax fit`, `memtax report` and `memtax push`.

    Example:
        >>> import datasets, memtax, tempfile
        >>> from memtax.filters import CompressibilityFilter
        >>> rows = datasets.Dataset.from_dict({"text": ["aab", "abc"], "tokens": [[1, 1, 2], [1, 2, 3]]})
        >>> rows = rows.map(CompressibilityFilter(), batched=True)
        >>> done = memtax.write(rows, tempfile.mkdtemp())
        >>> done.table().num_rows
        2

    Args:
        data: rows; several tables as name to dataset. Without `sequence_id`, rows are numbered.
        output: the directory; one that memtax wrote before is replaced.
        name: name of the table, if there is only one.
        title: title of the card; None uses the table's name.
        license_id: the Hub's identifier of the license, if known.

    Returns:
        The finished output.

    Raises:
        MemtaxError: a declared column has another type, or the directory holds files that are not memtax's.
    """
    from memtax.provenance import fingerprint_table

    started = time.time()
    tables = {str(key): _table(value) for key, value in (data.items() if isinstance(data, Mapping) else [(name, data)])}
    figures = {key: {"rows": table.num_rows, "nulls": _nulls(table)} for key, table in tables.items()}
    rows = [Rows(key, "One row per sequence.", table) for key, table in tables.items()]
    first = next(iter(tables))
    facts = {key: f"{table.num_rows:,} rows" for key, table in tables.items()}
    result = Result(title or first.replace("_", " ").capitalize(), rows, figures, facts=facts, license_id=license_id)
    inputs = {key: fingerprint_table(table) for key, table in tables.items()}
    with outputs.hold_job(output, "memtax.write"):
        write_result(Path(output), "write", result, {"name": name, "title": title}, inputs, time.time() - started)
    return Finished(Path(output), figures, [str(output)])


def _table(data: Any) -> "pa.Table":
    import pyarrow as pa

    table = data if isinstance(data, pa.Table) else data.with_format("arrow")[:]
    table = table.replace_schema_metadata(None)
    if "sequence_id" not in table.column_names:
        table = table.add_column(0, "sequence_id", pa.array(range(table.num_rows), pa.int64()))
    return table


def _nulls(table: "pa.Table") -> dict[str, int]:
    return {name: count for name in table.column_names if (count := table.column(name).null_count)}
