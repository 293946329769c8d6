"""Output of finished verbs: one summary file and one dataset folder for every verb."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memtax import checksums
from memtax.errors import MemtaxError
from memtax.provenance import versions
from memtax.records import read_json
from memtax.shapes import check

if TYPE_CHECKING:
    import pyarrow as pa

SUMMARY = "summary.json"
SCHEMA = "memtax-summary/1"


def is_output(folder: Path | str) -> bool:
    """Whether a directory is the output of a verb: it has figures, or a table of sequences."""
    return (Path(folder) / SUMMARY).is_file() or (Path(folder) / "dataset" / "features").is_dir()


def envelope(verb: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of `summary.json`."""
    return {"schema": SCHEMA, "verb": verb, "memtax": versions()["memtax"], "figures": dict(figures)}


def read_summary(folder: Path | str, verb: str | None = None, shape: Any = None) -> dict[str, Any]:
    """The figures of a finished job.

    Args:
        folder: output of the job.
        verb: verb that must have made it; None accepts any.
        shape: required shape of the figures, as in `memtax.shapes`; None: any.

    Raises:
        MemtaxError: there are no figures, they were changed, belong to another verb, or have another shape.
    """
    path = Path(folder) / SUMMARY
    if not path.is_file():
        raise MemtaxError(f"{folder} has no {SUMMARY}; give the output of memtax {verb or 'VERB'}")
    checksums.verify(path)
    content = read_json(path)
    if content.get("schema") != SCHEMA or not isinstance(content.get("figures"), dict):
        raise MemtaxError(f"{path} is not a summary of this version of memtax; run the command that wrote it again")
    if verb is not None and content.get("verb") != verb:
        raise MemtaxError(f"{folder} is the output of memtax {content.get('verb')}, not of memtax {verb}")
    figures: dict[str, Any] = content["figures"]
    if shape is not None:
        check(figures, shape, path)
    return figures


def read_table(where: Path | str, name: str | None = None) -> "pa.Table":
    """A table that a verb wrote.

    Args:
        where: the output of a verb, a dataset folder, or a Parquet file.
        name: name of the config; None takes the only one, or the default.

    Raises:
        MemtaxError: the table does not exist, cannot be read, or was changed since it was written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = Path(where)
    paths = [folder] if folder.is_file() else table_files(folder, name)
    checksums.verify(paths[0] if len(paths) == 1 else paths[0].parent)
    try:
        return pa.concat_tables([pq.read_table(path) for path in paths])
    except (OSError, pa.ArrowInvalid) as error:
        raise MemtaxError(f"{paths[0]} cannot be read: {str(error).splitlines()[0]}") from error


def table_files(folder: Path, name: str | None = None) -> list[Path]:
    """The Parquet files of a table in the output of a verb, or in a dataset folder.

    Raises:
        MemtaxError: there is none.
    """
    root = folder / "dataset" if (folder / "dataset").is_dir() else folder
    names = sorted({path.parent.name for path in root.glob("*/train*.parquet")})
    chosen = name if name is not None else names[0] if len(names) == 1 else None
    if chosen is None or chosen not in names:
        wanted = f"table {name!r}" if name else "single table"
        raise MemtaxError(f"{folder} has no {wanted}; it has: {', '.join(names) or 'none'}")
    return sorted((root / chosen).glob("train*.parquet"))
