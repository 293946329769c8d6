"""Score a dataset of any size with a predictor: in batches, into Parquet parts that a later call resumes from."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from memtax.checksums import Parts, seal
from memtax.corpus.sources import Source
from memtax.engine.once import MANIFEST
from memtax.engine.stage import claim
from memtax.errors import MemtaxError
from memtax.files import visible_files, write_text
from memtax.predictor.source_tables import batches
from memtax.progress import progress_bar, refuse, say, skipped
from memtax.provenance import digest

if TYPE_CHECKING:
    from memtax.predictor.predictor import Predictor

_IDS = 2**25
"""Ids that are held at once, about, to count the distinct ones."""
PART = 4
"""Batches of a part (a quarter of a million rows)."""

_REASON = "a factor is missing; the probability is null"


def predict_dataset(predictor: "Predictor", source: Source | str, output: Path | str, model: str = "taxonomic") -> Path:
    """Add `memorized_probability` to every row of a dataset; memory does not grow with its size.

    Args:
        predictor: the model.
        source: a dataset, in our layout or the published one; it is streamed.
        output: folder of the result, a dataset of Parquet parts. Finished parts that match their checksums are kept.
        model: `taxonomic` or `baseline`.

    Returns:
        The folder.

    Raises:
        MemtaxError: the source lacks a column, or has no rows; or the folder holds parts that are not of this work.
        StaleOutputError: the folder holds predictions of another predictor or source.
    """
    output = Path(output)
    source = replace(Source.parse(source) if isinstance(source, str) else source, streaming=True)
    models = {
        name: [one.coefficients.tolist(), one.intercept, one.prior_shift, one.recalibration]
        for name, one in predictor.models.items()
    }
    identity = {
        "stage": "predict",
        "version": 1,
        "predictor": digest(predictor.factors, predictor.scaler.mean.tolist(), predictor.scaler.scale.tolist(), models),
        "model": model,
        "source": [source.label, _stamp(Path(source.path))],
    }
    parts = Parts.of(output / "data", identity)
    claim(output, identity, parts)
    write_text(output / "README.md", "---\nconfigs:\n- config_name: default\n  data_files: data/*.parquet\n---\n")
    names, rows, lost = _predict(predictor, source, parts, model)
    if not names:
        raise MemtaxError(f"{source.label} has no rows")
    _check_whole(parts, names, rows)
    skipped(lost, _REASON)
    seal(output, "the same memtax predict command", identity, ["README.md", MANIFEST, "data"])
    return output


def _predict(predictor: "Predictor", source: Source, parts: Parts, model: str) -> tuple[list[str], int, int]:
    """Write the parts that are missing or damaged; names of all, rows of the source, and rows without a probability."""
    names: list[str] = []
    # Parts before the first that is to be written are not even read from the source again.
    while parts.is_usable(name := _name(len(names))):
        names.append(name)
    kept, (rows, lost) = len(names), _finished(parts, names)
    refuse(lost, _REASON)
    with progress_bar("predicting", None, initial=rows) as bar:
        for table in _parts(source, rows):
            name = _name(len(names))
            if len(names) > kept and _is_finished(parts, name, table):
                lost += _finished(parts, [name])[1]
            else:
                probabilities = predictor.predict(table, model).cast("float32")  # type: ignore[arg-type]
                refuse(probabilities.null_count, _REASON)
                lost += probabilities.null_count
                parts.write_parquet(name, table.append_column("memorized_probability", probabilities))
            names.append(name)
            rows += table.num_rows
            bar.update(table.num_rows)
    return names, rows, lost


def _name(number: int) -> str:
    return f"part-{number:06d}.parquet"


def _is_finished(parts: Parts, name: str, table: pa.Table) -> bool:
    """Whether a part is there and has as many rows as this table of the source."""
    return parts.is_usable(name) and pq.read_metadata(parts.folder / name).num_rows == table.num_rows


def _check_whole(parts: Parts, names: list[str], rows: int) -> None:
    """Check that the folder holds these parts, with so many rows, and no other Parquet file, whose rows would be read as well.

    Raises:
        MemtaxError: it does not.
    """
    if others := sorted(path.name for path in parts.folder.glob("*.parquet") if path.name not in names):
        raise MemtaxError(f"{parts.folder / others[0]} is not a part of this dataset; remove it and run the same command again")
    written = sum(pq.read_metadata(parts.folder / name).num_rows for name in names)
    if written != rows:
        raise MemtaxError(f"{parts.folder} holds {written:,} rows and not {rows:,}; remove that folder and run again")
    if "sequence_id" in pq.read_schema(parts.folder / names[0]).names and (distinct := _count_ids(parts, names, rows)) < rows:
        say(f"{rows:,} rows have {distinct:,} distinct sequence_id: the source has ids more than once")


def _count_ids(parts: Parts, names: list[str], rows: int) -> int:
    """Distinct values of `sequence_id` over all parts, counted in passes of bounded memory."""

    def ids(name: str) -> Any:
        return pq.read_table(parts.folder / name, columns=["sequence_id"]).column(0).to_numpy()

    found, passes = 0, -(-rows // _IDS)
    for number in range(passes):
        found += len(np.unique(np.concatenate([values[values % passes == number] for values in map(ids, names)])))
    return found


def summarize(folder: Path | str) -> dict[str, Any]:
    """Figures of the finished parts of `predict_dataset`: rows, rows without a probability, rows expected to be memorized.

    Args:
        folder: the output.

    Returns:
        `rows`, `without_probability`; the sum of the probabilities, `expected_memorized`, and how many of them are above one
        half, `likely`; both None where no row has one.
    """
    rows = missing = likely = 0
    expected = 0.0
    for path in sorted((Path(folder) / "data").glob("part-*.parquet")):
        column = pq.read_table(path, columns=["memorized_probability"]).column(0)
        rows, missing = rows + len(column), missing + column.null_count
        expected += pc.sum(column.cast("float64")).as_py() or 0.0
        likely += pc.sum(pc.greater(column, 0.5)).as_py() or 0
    known = rows > missing
    found = {"rows": rows, "without_probability": missing}
    return {**found, "expected_memorized": expected if known else None, "likely": likely if known else None}


def _stamp(path: Path) -> str:
    """Digest of the files' names, sizes and times: reading terabytes twice, to know that they are the same, is too much."""
    files = visible_files(path) if path.is_dir() else [path]
    return digest([(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.exists()])


def _finished(parts: Parts, names: list[str]) -> tuple[int, int]:
    """Rows of finished parts, and how many of them have no probability."""
    columns = [pq.read_table(parts.folder / name, columns=["memorized_probability"]).column(0) for name in names]
    return sum(len(column) for column in columns), sum(column.null_count for column in columns)


def _parts(source: Source, skip: int) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    for batch in batches(source, skip=skip):
        waiting.append(batch.drop_columns([name for name in ("memorized_probability",) if name in batch.column_names]))
        if len(waiting) == PART:
            yield pa.concat_tables(waiting, promote_options="permissive")
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting, promote_options="permissive")
