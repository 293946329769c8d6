"""Run a batch function over a table shard by shard: resumable, and with the same result for any number of processes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from memtax import schema
from memtax.checksums import Parts
from memtax.engine.once import MANIFEST, check
from memtax.engine.shards import Plan, plan
from memtax.engine.world import World
from memtax.errors import MemtaxError, RowError
from memtax.files import write_json
from memtax.progress import batch_of, doing, progress_bar
from memtax.provenance import fingerprint_dataset

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

KEY = "sequence_id"


class BatchFunction(Protocol):
    """Interface of what the engine runs; every `memtax.filters.Filter` implements it."""

    @property
    def name(self) -> str:
        """Names the stage."""

    @property
    def requires(self) -> tuple[str, ...]:
        """Columns that the function reads."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the function adds."""

    @property
    def features(self) -> "datasets.Features":
        """Types of the added columns."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same input would give another result."""

    def computed(self, batch: dict[str, list[Any]]) -> Mapping[str, "list[Any] | pa.Array"]:
        """The added columns for a batch."""


def run(
    dataset: "datasets.Dataset",
    function: BatchFunction,
    output: Path | str,
    rows_per_batch: int = 1024,
    batches_per_shard: int = 16,
) -> "pa.Table":
    """Apply `function` to every row and return its columns, keyed by `sequence_id`, in the dataset's order.

    Finished shards are stored in `output` as Parquet parts and reused by the next call with the same input and function if
    they match their checksums; a part that does not match is reported on standard error and computed again.
    Under `accelerate launch` (GPUs) or `torchrun` (CPUs) the shards are distributed over the processes; the parts, and
    therefore the result, are the same bytes for any number of processes.

    Args:
        dataset: rows with `sequence_id` and the columns that the function requires.
        function: a filter.
        output: the stage's directory.
        rows_per_batch: rows per call; part of the stage's identity, so that batches do not depend on the process count.
        batches_per_shard: batches per part, also part of the identity; few for slow functions, so that parts are shared and
            saved early.

    Returns:
        Table of `sequence_id` and the function's columns.

    Raises:
        MemtaxError: a required column is missing.
        StaleOutputError: `output` contains parts of another input or function.
    """
    schema.require(dataset.column_names, (KEY, *function.requires), f"the input of {function.name!r}")
    cut = plan(len(dataset), rows_per_batch, batches_per_shard)
    output = Path(output)
    identity = stage_identity(dataset, function, cut)
    parts = Parts.of(output, identity)
    world = World.current()
    if world.is_main:
        claim(output, identity)
    world.wait()

    columns = [KEY, *(name for name in function.requires if name != KEY)]
    narrow = dataset.select_columns(columns).with_format(None)
    mine = [shard for shard in range(cut.shards) if shard % world.size == world.rank]
    doing(function.name)
    with progress_bar(function.name, sum(_rows(cut, shard) for shard in mine)) as bar:
        for shard in mine:
            if not parts.is_usable(cut.part(shard)):
                rows = narrow.select(range(*cut.bounds(shard)))
                table = compute_shard(rows, function, cut.rows_per_batch, bar.update)
                if world.writes:
                    parts.write_parquet(cut.part(shard), table)
            else:
                bar.update(_rows(cut, shard))
    world.wait()
    return read(output, function, cut, narrow)


def _rows(cut: Plan, shard: int) -> int:
    start, stop = cut.bounds(shard)
    return stop - start


def compute_shard(
    rows: "datasets.Dataset",
    function: BatchFunction,
    rows_per_batch: int,
    done: Callable[[int], Any] | None = None,
) -> "pa.Table":
    """One shard's table, in the fixed batches; `done` is called with numbers of finished rows.

    Same columns and values as `rows.map(function, batched=True, batch_size=rows_per_batch)`, whose cache and writer would cost
    more per shard than a small filter.
    """
    import datasets
    import pyarrow as pa

    features = datasets.Features({KEY: datasets.Value("int64"), **function.features})
    # Without the metadata that `datasets` adds, a part is independent of the library's version.
    columns = features.arrow_schema.remove_metadata()
    tables = []
    for start in range(0, len(rows), rows_per_batch):
        batch = rows[start : start + rows_per_batch]
        try:
            with batch_of(len(batch[KEY]), done):
                added = function.computed(batch)
        except RowError as error:
            # The function knows the row's index in the batch; the user knows its id.
            key = batch[KEY][error.row]
            raise error.at(key, f"the row with sequence_id {key}") from error
        tables.append(pa.table({KEY: batch[KEY], **added}, schema=columns))
    return pa.concat_tables(tables)


def stage_identity(dataset: "datasets.Dataset", function: BatchFunction, cut: Plan) -> dict[str, Any]:
    """Everything that determines a stage's result; stored with the parts, so that parts of different runs are never mixed."""
    return {
        "stage": str(function.name),
        "function": function.fingerprint,
        "input": fingerprint_dataset(dataset, [KEY, *(name for name in function.requires if name != KEY)]),
        "rows": cut.rows,
        "rows_per_batch": cut.rows_per_batch,
        "rows_per_shard": cut.rows_per_shard,
    }


def claim(output: Path, identity: dict[str, Any], parts: Parts | None = None) -> None:
    """Mark `output` as the stage's directory, or check that it already is.

    Args:
        output: directory of the manifest.
        identity: inputs and parameters of the stage.
        parts: the parts, if they are not in `output` itself.

    Raises:
        StaleOutputError: the directory belongs to another input, function or split.
    """
    parts = parts or Parts.of(output, identity)
    if (output / MANIFEST).exists() or parts.names() or any(parts.folder.glob("part-*.parquet")):
        check(output, identity, parts)
    else:
        write_json(output / MANIFEST, identity)


def read(output: Path, function: BatchFunction, cut: Plan, dataset: "datasets.Dataset") -> "pa.Table":
    """The finished parts in order, memory-mapped.

    Raises:
        MemtaxError: a part is missing, or has other rows than its shard.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for shard in range(cut.shards):
        part = output / cut.part(shard)
        try:
            table = pq.read_table(part, memory_map=True)
        except (OSError, pa.ArrowInvalid) as error:
            raise MemtaxError(f"{part} cannot be read ({str(error).splitlines()[0]}); delete it and run again") from error
        if table.num_rows != _rows(cut, shard):
            raise MemtaxError(f"{part} has {table.num_rows} rows, not {_rows(cut, shard)}; delete it and run again")
        tables.append(table)
    if not tables:
        return schema.arrow_schema([KEY, *function.columns]).empty_table()
    table = pa.concat_tables(tables)
    keys = dataset.select_columns([KEY]).with_format("arrow")[:].column(KEY).cast(pa.int64())
    if table.column(KEY) != keys:
        raise MemtaxError(f"the parts in {output} have other sequence_ids than the input; delete that folder and run again")
    return table
