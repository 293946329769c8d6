"""Shared behavior of all verbs: the lock of the output, the record for replays, dataset, summary and page."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from memtax import credentials, outputs
from memtax.errors import MemtaxError
from memtax.extras import explained, require
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
        output: the output directory.
        world: rank of this process among the job's processes.
    """

    output: Path
    world: "World"

    def stage(
        self, rows: "datasets.Dataset", function: "BatchFunction", folder: str, rows_per_batch: int, batches_per_part: int = 16
    ) -> "pa.Table":
        """Columns of a batch function, from finished parts in `output/folder` and newly computed ones.

        See `memtax.engine.stage`.
        """
        from memtax.engine import run

        return run(rows, function, self.output / folder, rows_per_batch, batches_per_part)

    def on_main(self, work: Callable[[], Any]) -> None:
        """Run something on the main process only; the others wait for it."""
        if self.world.is_main:
            work()
        self.world.wait()


@dataclass(frozen=True)
class Rows:
    """A table in the output's dataset.

    Attributes:
        name: config name for `load_dataset`.
        row: description of a row.
        table: the rows, or finished Parquet files of them.
    """

    name: str
    row: str
    table: "pa.Table | Sequence[Path]"

    def config(self) -> "Config":
        """The table as a config of the dataset."""
        from memtax.hub.folder import Config, ParquetFiles

        is_files = isinstance(self.table, list | tuple)
        return Config(self.name, self.row, {"train": ParquetFiles(tuple(self.table)) if is_files else self.table})


@dataclass(frozen=True)
class Result:
    """Result of a job, which `Job.run` writes.

    Attributes:
        title: title of card and page.
        tables: tables of the dataset, the default one first. If empty, the work is incomplete and nothing is written.
        figures: content of `summary.json`.
        lines: lines for the terminal.
        facts: rows of the card's first table.
        page: writes `index.html` into the directory, from the files in it.
        inputs: name to fingerprint of inputs, in addition to the settings marked as sources.
        files: further files and folders in the directory that belong to the result.
        is_private: whether only the owner may read the output.
        license_id: the Hub's identifier of the dataset's license, if known.
        recitation_threshold: threshold of the column `taxonomy`, if a table has it and it is known.
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
        figures: content of `summary.json`; empty on all processes except the main one.
        lines: lines for the terminal; `figures` are complete once they have been read.
        page: the page, if there is one.
        then: called after the lines are printed, for example to serve a page.
        code: exit code of the command.
    """

    output: Path | None
    figures: Mapping[str, Any]
    lines: Iterable[str]
    page: Path | None = None
    then: Callable[[], None] | None = None
    code: int = 0

    def table(self, name: str | None = None) -> "pa.Table":
        """A table of the dataset; None for the default one.

        Raises:
            MemtaxError: there is no table of that name, or it was changed after it was written.
        """
        if self.output is None:
            raise MemtaxError("this verb writes no table")
        return read_table(self.output, name)


@dataclass(frozen=True, kw_only=True)
class Command:
    """Settings of a verb. A subclass adds fields and `run`."""

    verb: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    """Extras without which the verb cannot finish, checked before it starts."""
    config_is_positional: ClassVar[bool] = False
    """Whether the file of `--config` can also be a positional argument, as in `memtax run config.yaml`."""

    def __init_subclass__(cls) -> None:
        cls.verb = cls.__module__.rpartition(".")[2]

    @classmethod
    def begin(cls, values: Mapping[str, Any], source: str) -> Finished:
        """Check that the installation has what the verb needs, and do the work with these settings.

        Args:
            values: settings by name.
            source: where they are from, for messages.

        Raises:
            MemtaxError: an input cannot be used.
            MissingExtraError: an extra is not installed.
        """
        require(f"memtax {cls.verb}", *cls.needs)
        with explained():
            return from_values(cls, values, source).run()

    @classmethod
    def expand(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values with those that they stand for, such as the settings of a preset.

        Raises:
            MemtaxError: nothing has that name.
        """
        return dict(values)

    def __post_init__(self) -> None:
        for name in fields(type(self)):
            if isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, credentials.without_login(value))

    def run(self) -> Finished:
        """Do the work.

        Raises:
            MemtaxError: an input cannot be used.
        """
        raise NotImplementedError

    @classmethod
    def load(cls, path: Path | str, **changed: Any) -> Self:
        """Settings from a YAML file, or from the `run.yaml` of a finished job.

        Raises:
            MemtaxError: the file cannot be read, is the record of another verb, or has invalid settings.
        """
        return from_values(cls, cls.expand({**read_settings(path, cls.verb), **changed}), str(path))


@dataclass(frozen=True, kw_only=True)
class Job(Command):
    """Settings of a verb that writes an output directory. A subclass adds fields and `make`."""

    tensor: ClassVar[bool] = False
    """Whether `--device-map tensor` works: the model only computes log-probabilities of rows that one process writes."""

    output: Path = option("Output directory.", short="-o")

    def make(self, work: Work) -> Result:
        """Do the work, reusing finished parts in `work.output`. Every process of the job calls it.

        Raises:
            MemtaxError: an input cannot be used.
        """
        raise NotImplementedError

    def build(self, kind: type[T], **given: Any) -> T:
        """Create a dataclass, such as a filter, from the settings with its fields' names and additional values."""
        names = [declared.name for declared in dataclasses.fields(kind) if declared.init]  # type: ignore[arg-type]
        return kind(**{name: getattr(self, name) for name in names if hasattr(self, name)} | given)

    def run(self) -> Finished:
        """Create and write the results, reusing finished parts.

        Under `accelerate launch` or `torchrun` the work is shared among the processes, with the same bytes as from one.

        Raises:
            MemtaxError: an input cannot be used, or another job has locked the output.
            StaleOutputError: the output contains parts made from other inputs or settings.
        """
        from memtax.progress import activity

        with activity(f"memtax {self.verb}"):
            return self._done()

    def _done(self) -> Finished:
        from memtax.engine import World
        from memtax.progress import doing, silence_libraries

        started = time.time()
        with outputs.hold_job(self.output, f"memtax {self.verb}"), self._processes():
            silence_libraries()
            world = World.current()
            result = self.make(Work(self.output, world))
            doing("figures and page")
            page = self._write(result, started) if world.is_main and result.tables else None
            world.wait()
        if not world.is_main:
            return Finished(self.output, {}, ())
        paths = {"dataset": self.output / "dataset", "summary": self.output / SUMMARY, **({"page": page} if page else {})}
        where = [f"{name:<9}{path}" for name, path in paths.items() if result.tables]
        return Finished(self.output, result.figures, [*result.lines, *where], page)

    def _processes(self) -> "contextlib.AbstractContextManager[None]":
        """How several processes work: on different rows, or together on all."""
        from memtax.engine.world import together

        if getattr(self, "device_map", None) != "tensor":
            return contextlib.nullcontext()
        if not self.tensor:
            raise MemtaxError(f"memtax {self.verb} cannot split layers over processes; use --device-map auto")
        return together()

    def _write(self, result: Result, started: float) -> Path | None:
        from memtax.provenance import fingerprint_path

        inputs = {name: fingerprint_path(value) for name, value in self._sources().items()} | dict(result.inputs)
        facts = result.facts or self._facts()
        seconds = time.time() - started
        values = to_values(self)
        if values.get("dtype") == "auto":
            from memtax.lm.placement import settled_dtype

            # Another machine may stand for another one.
            values["dtype"] = settled_dtype("auto")
        return write_result(self.output, self.verb, replace(result, facts=facts), values, inputs, seconds)

    def _sources(self) -> dict[str, str]:
        """Name to path of every given setting that is an input."""
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
    """Write the result of a job: dataset with card, summary, record and page, with their checksums.

    Args:
        output: the directory.
        verb: name of the verb.
        result: result of the job.
        settings: settings, as returned by `to_values`.
        inputs: name to fingerprint of each input.
        seconds: run time.

    Returns:
        The page, if the result has one.
    """
    from memtax import checksums
    from memtax.files import make_private, write_json
    from memtax.hub.folder import write_dataset
    from memtax.provenance import write_record

    if result.is_private:
        make_private(output)
    # The page reads the files written here, before their checksums exist. A job around this one will record them too.
    for folder in (output, *outputs.held_around(output)):
        (folder / checksums.RECORD).unlink(missing_ok=True)
    configs = [rows.config() if isinstance(rows, Rows) else rows for rows in result.tables]
    threshold = result.recitation_threshold
    write_dataset(output / "dataset", configs, result.title, result.facts, result.license_id, threshold)
    write_json(output / SUMMARY, envelope(verb, result.figures), private=result.is_private)
    write_record(output / "run.yaml", verb, settings, inputs, seconds)
    page = result.page(output) if result.page is not None else None
    # `memtax report` rewrites the report of a run.
    own_page = [page.name] if page is not None and page.parent == output else []
    names = ["dataset", SUMMARY, "run.yaml", *own_page, *result.files]
    if result.is_private:
        make_private(output, names)
    values = {name: value for name, value in settings.items() if name != "output"}
    identity = {"verb": verb, "settings": values, "inputs": dict(inputs)}
    checksums.seal(output, f"the same memtax {verb} command", identity, names)
    return page


def read_settings(path: Path | str, verb: str) -> dict[str, Any]:
    """The settings in a YAML file of keys and values, or in the record of a finished job.

    Raises:
        MemtaxError: the file cannot be read, is not a mapping, or is the record of another verb.
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
        raise MemtaxError(f"{path} must contain keys and values (model: ..., output: ...), not {type(values).__name__}")
    return {str(name): value for name, value in values.items()}
