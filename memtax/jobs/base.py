"""What every verb shares: the lock of its output, the record that replays it, its dataset, summary and page."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from memtax import outputs
from memtax.errors import MemtaxError
from memtax.results import SUMMARY, envelope, read_table
from memtax.settings import fields, from_values, option, to_values

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

    from memtax.engine import World
    from memtax.engine.stage import BatchFunction
    from memtax.hub.folder import Config

T = TypeVar("T")
_KEYS = {"memtax", "config"}


@dataclass(frozen=True)
class Work:
    """Where a job works, and how it runs batch functions.

    Attributes:
        output: the directory.
        world: this process among the processes of the job.
    """

    output: Path
    world: "World"

    def stage(
        self, rows: "datasets.Dataset", function: "BatchFunction", folder: str, rows_per_batch: int, batches_per_part: int = 16
    ) -> "pa.Table":
        """Columns of a batch function, from finished parts in `output/folder` and from what is missing there.

        See `memtax.engine.stage`.
        """
        from memtax.engine import run

        return run(rows, function, self.output / folder, rows_per_batch, batches_per_part)

    def on_main(self, work: Callable[[], Any]) -> None:
        """Do something on the main process alone; the others wait for it."""
        if self.world.is_main:
            work()
        self.world.wait()


@dataclass(frozen=True)
class Rows:
    """A table of the output's dataset.

    Attributes:
        name: of the configuration that `load_dataset` takes.
        row: a sentence that says what a row is.
        table: the rows, or finished Parquet files of them.
    """

    name: str
    row: str
    table: "pa.Table | Sequence[Path]"

    def config(self) -> "Config":
        """As the dataset takes it."""
        from memtax.hub.folder import Config, ParquetFiles

        is_files = isinstance(self.table, list | tuple)
        return Config(self.name, self.row, {"train": ParquetFiles(tuple(self.table)) if is_files else self.table})


@dataclass(frozen=True)
class Result:
    """What a job made; `Job.run` writes it.

    Attributes:
        title: of card and page.
        tables: of the dataset; the first is the default one. Without any the work is not complete, and nothing is written.
        figures: of `summary.json`.
        lines: for the terminal.
        facts: rows of the card's first table.
        page: writes `index.html` into the directory, from the files in it.
        inputs: name to fingerprint of what was read, besides the settings marked as sources.
        files: further files and folders in the directory that belong to the result.
        is_private: whether only the owner may read the output.
        license_id: the Hub's identifier of the dataset's license, if it is known.
        recitation_threshold: of the column `taxonomy`, if a table has it and it is known.
    """

    title: str
    tables: "Sequence[Rows | Config]"
    figures: Mapping[str, Any]
    lines: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    page: Callable[[Path], Path] | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[str] = ()
    is_private: bool = False
    license_id: str | None = None
    recitation_threshold: int | None = None


@dataclass(frozen=True)
class Finished:
    """A finished job.

    Attributes:
        output: the directory: `dataset/`, `summary.json`, `run.yaml` and, for most verbs, `index.html`; None without one.
        figures: of `summary.json`; empty on processes other than the main.
        lines: for the terminal; `figures` are complete once they have been read.
        page: the page, if there is one.
        then: what goes on when the lines are printed, such as serving a page.
    """

    output: Path | None
    figures: Mapping[str, Any]
    lines: Iterable[str]
    page: Path | None = None
    then: Callable[[], None] | None = None

    def table(self, name: str | None = None) -> "pa.Table":
        """A table of the dataset; None for the default one.

        Raises:
            MemtaxError: there is none of that name, or it was changed since it was written.
        """
        if self.output is None:
            raise MemtaxError("this verb writes no table")
        return read_table(self.output, name)


@dataclass(frozen=True, kw_only=True)
class Command:
    """Settings of a verb. A subclass adds fields and `run`."""

    verb: ClassVar[str]
    config_is_positional: ClassVar[bool] = False
    """Whether the file of `--config` may also stand alone, as in `memtax run config.yaml`."""

    def __init_subclass__(cls) -> None:
        cls.verb = cls.__module__.rpartition(".")[2]

    def run(self) -> Finished:
        """Do the work.

        Raises:
            MemtaxError: an input cannot be used.
        """
        raise NotImplementedError

    @classmethod
    def load(cls, path: Path | str, **changed: Any) -> Self:
        """Settings from a YAML file of them, or from the `run.yaml` of a finished job.

        Raises:
            MemtaxError: the file cannot be read, is the record of another verb, or does not fit.
        """
        return from_values(cls, {**read_settings(path, cls.verb), **changed}, str(path))


@dataclass(frozen=True, kw_only=True)
class Job(Command):
    """Settings of a verb that writes an output directory. A subclass adds fields and `make`."""

    output: Path = option("Output directory.", short="-o")

    def make(self, work: Work) -> Result:
        """Do the work; finished parts in `work.output` are reused. Every process of the job runs it.

        Raises:
            MemtaxError: an input cannot be used.
        """
        raise NotImplementedError

    def build(self, kind: type[T], **given: Any) -> T:
        """A dataclass, such as a filter, from the settings that have its fields' names, and what is given besides."""
        names = [declared.name for declared in dataclasses.fields(kind) if declared.init]  # type: ignore[arg-type]
        return kind(**{name: getattr(self, name) for name in names if hasattr(self, name)} | given)

    def run(self) -> Finished:
        """Make the results and write them; parts that are finished are reused.

        Under `accelerate launch` or `torchrun` the work is shared among the processes, with the same bytes as from one.

        Raises:
            MemtaxError: an input cannot be used, or another job holds the output.
            StaleOutputError: the output holds parts made from other inputs or settings.
        """
        from memtax.engine import World
        from memtax.progress import silence_libraries

        started = time.time()
        with outputs.hold_job(self.output, f"memtax {self.verb}"):
            silence_libraries()
            world = World.current()
            result = self.make(Work(self.output, world))
            page = self._write(result, started) if world.is_main and result.tables else None
            world.wait()
        if not world.is_main:
            return Finished(self.output, {}, ())
        paths = {"dataset": self.output / "dataset", "summary": self.output / SUMMARY, **({"page": page} if page else {})}
        where = [f"{name:<9}{path}" for name, path in paths.items() if result.tables]
        return Finished(self.output, result.figures, [*result.lines, *where], page)

    def _write(self, result: Result, started: float) -> Path | None:
        from memtax.provenance import fingerprint_path

        inputs = {name: fingerprint_path(value) for name, value in self._sources().items()} | dict(result.inputs)
        facts = result.facts or self._facts()
        seconds = time.time() - started
        return write_result(self.output, self.verb, replace(result, facts=facts), to_values(self), inputs, seconds)

    def _sources(self) -> dict[str, str]:
        """Name to path of every setting that names an input and was given."""
        from memtax.corpus.sources import split_name
        from memtax.lm.loading import split_revision

        paths = {}
        for name, (declared, _) in fields(type(self)).items():
            value = getattr(self, name)
            if declared.metadata["source"] and value is not None:
                for number, each in enumerate(value if isinstance(value, tuple) else (value,)):
                    path = split_revision(str(each))[0] if name.endswith(("model", "probe")) else split_name(str(each))[0]
                    paths[f"{name} {number}" if isinstance(value, tuple) else name] = path
        return paths

    def _facts(self) -> dict[str, Any]:
        from memtax.hub.screening import public_name

        return {
            name: public_name(str(getattr(self, name)))
            for name, (declared, _) in fields(type(self)).items()
            if declared.metadata["source"] and getattr(self, name) is not None
        }


def write_result(
    output: Path, verb: str, result: Result, settings: Mapping[str, Any], inputs: Mapping[str, str], seconds: float
) -> Path | None:
    """Write what a job made: dataset with card, summary, record and page, with their checksums.

    Args:
        output: the directory.
        verb: that made it.
        result: what it made.
        settings: as `to_values` gives them.
        inputs: name to fingerprint of what was read.
        seconds: that it took.

    Returns:
        The page, if the result has one.
    """
    from memtax import checksums
    from memtax.files import make_private, write_json
    from memtax.hub.folder import write_dataset
    from memtax.provenance import write_record

    if result.is_private:
        make_private(output)
    # The page reads what is written here, before there are checksums of it.
    (output / checksums.RECORD).unlink(missing_ok=True)
    configs = [rows.config() if isinstance(rows, Rows) else rows for rows in result.tables]
    threshold = result.recitation_threshold
    write_dataset(output / "dataset", configs, result.title, result.facts, result.license_id, threshold)
    write_json(output / SUMMARY, envelope(verb, result.figures), private=result.is_private)
    write_record(output / "run.yaml", verb, settings, inputs, seconds)
    page = result.page(output) if result.page is not None else None
    # `memtax report` writes the report of a run again.
    own_page = [page.name] if page is not None and page.parent == output else []
    names = ["dataset", SUMMARY, "run.yaml", *own_page, *result.files]
    if result.is_private:
        make_private(output, names)
    values = {name: value for name, value in settings.items() if name != "output"}
    identity = {"verb": verb, "settings": values, "inputs": dict(inputs)}
    checksums.seal(output, f"the same memtax {verb} command", identity, names)
    return page


def read_settings(path: Path | str, verb: str) -> dict[str, Any]:
    """The settings in a YAML file: keys and values, or the record of a finished job.

    Raises:
        MemtaxError: the file cannot be read, holds no mapping, or is the record of another verb.
    """
    from memtax.records import read_yaml

    try:
        values = read_yaml(path)
    except OSError as error:
        raise MemtaxError(f"the configuration {path} cannot be read: {error.strerror}") from error
    if isinstance(values, dict) and values.keys() >= _KEYS and isinstance(values["config"], dict):
        if values["memtax"] != verb:
            raise MemtaxError(f"{path} is the record of memtax {values['memtax']}, not of memtax {verb}")
        values = values["config"]
    if not isinstance(values, dict):
        raise MemtaxError(f"{path} must hold keys and values (model: ..., output: ...), not {type(values).__name__}")
    return {str(name): value for name, value in values.items()}
