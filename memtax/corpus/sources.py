"""Sources of tokens and texts: Hugging Face datasets on the Hub or on disk, opened and checked in one place."""

import contextlib
import glob
import lzma
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from memtax.checksums import verify
from memtax.corpus import formats, guard, texts
from memtax.corpus.binary import EXTENSIONS, file_stamp, open_tokens, token_files
from memtax.corpus.folder_cards import check_folder
from memtax.errors import MemtaxError
from memtax.files import matching_files, visible_files
from memtax.provenance import digest

if TYPE_CHECKING:
    import datasets

CONVERTED = "refs/convert/parquet"
"""Hub branch with a dataset converted to Parquet."""


@dataclass(frozen=True)
class Source:
    """One split of a dataset, and its column to read.

    Attributes:
        path: a file (of a format in `memtax.corpus.formats`), a pattern that matches such files (`data/*.jsonl.zst`), a folder
            of them, a folder with a `configs:` block in its README, a `save_to_disk` folder, files of
            `memtax.corpus.binary.token_files`, or a name on the Hub.
        name: the dataset's configuration.
        split: the split, or a slice such as `train[:1000]`. A single file is `train`.
        revision: branch, tag or commit on the Hub.
        column: the column to read, or several of text as `question,answer`; None looks for one of
            `memtax.corpus.columns.CANDIDATES`.
        streaming: read on the fly, without a copy in the cache of `datasets`.
    """

    path: str
    name: str | None = None
    split: str = "train"
    revision: str | None = None
    column: str | None = None
    streaming: bool = False

    def __post_init__(self) -> None:
        for field in ("path", "split"):
            value = getattr(self, field)
            if not isinstance(value, str) or not value.strip() or "\0" in value:
                raise MemtaxError(f"the {field} of a source must be a non-empty string, got {value!r}")
        for field in ("name", "revision", "column"):
            value = getattr(self, field)
            if value is not None and (not isinstance(value, str) or not value):
                raise MemtaxError(f"the {field} of a source must be a non-empty string or None, got {value!r}")

    @classmethod
    def parse(cls, text: str, **options: Any) -> "Source":
        """Parse `path`, `path:config`, `path:config:split` or `path::split`; an existing path is not split at colons.

        Args:
            text: the user's input; `org/name:config:train[:1000]` works too.
            options: other fields, such as `column` or `streaming`.

        Raises:
            MemtaxError: the path is empty.
        """
        path, name, split = split_name(text)
        return cls(path, name=name, split=split or "train", **options)

    @property
    def label(self) -> str:
        """Name of the source in messages."""
        return ":".join((self.path, self.name or "", self.split))


def split_name(text: str) -> tuple[str, str | None, str | None]:
    """Path (`~` expanded), configuration and split of `path:config:split`; None for missing parts."""
    text = os.path.expanduser(text)
    # os.path: unlike Path, it returns False for names that no file system accepts.
    if os.path.exists(text):
        return text, None, None
    path, name, split = [*text.split(":", 2), "", ""][:3]
    return path, name or None, split or None


_RAISED = (OSError, ValueError, RuntimeError, TypeError, LookupError, EOFError, StopIteration, lzma.LZMAError)
"""Exceptions that readers raise in addition to their own."""


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """Convert any error of the readers into one line that names the source.

    Raises:
        MemtaxError: the file system, Arrow, `datasets` or the Hub client raised an error.
    """
    import yaml
    from datasets.exceptions import DatasetsError

    try:
        yield
    except MemtaxError:
        raise
    except (*_RAISED, pa.ArrowException, DatasetsError, yaml.YAMLError) as error:
        root: BaseException = error
        # `datasets` wraps the reader's own error in "An error occurred while generating the dataset".
        while isinstance(root, DatasetsError) and root.__cause__ is not None:
            root = root.__cause__
        reason = " ".join(str(root).split()) or type(root).__name__
        if "BatchSize must be greater than 0" in reason:
            # The Parquet reader of `datasets` raises this for a file with a schema and no rows.
            raise MemtaxError(f"{what} has a Parquet file with no rows; remove it") from error
        if "corresponds to no data" in reason:
            raise MemtaxError(f"{what} has no rows") from error
        raise MemtaxError(f"{what} cannot be read: {reason[:300]}") from error


def open_dataset(source: Source) -> "datasets.Dataset | datasets.IterableDataset":
    """Open a source of any kind.

    Returns:
        A memory-mapped `Dataset`, or an `IterableDataset` if the source is streaming.

    Raises:
        MemtaxError: the path, configuration or split does not exist, or cannot be read.
    """
    if files := token_files(source.path):
        return _open_tokens(source, files)
    dataset = _open_table(source)
    return dataset if source.streaming else texts.rewrite(dataset, source.column)


def _open_table(source: Source) -> Any:
    path = Path(source.path).expanduser()
    if not path.exists():
        files = matching_files(source.path)
        return _open_files(source, files) if files else _open_hub(source)
    if path.is_dir():
        check_folder(path)
    verify(path)
    if path.is_dir() and ((path / "dataset_dict.json").exists() or (path / "state.json").exists()):
        return _open_saved(source, path)
    if path.is_file():
        return _open_files(source, [path])
    with reading(source.label):
        for file in visible_files(path):
            guard.check(file)
        return _load(source, **_folder_arguments(path))


def _open_tokens(source: Source, files: list[Path]) -> Any:
    """Files of tokens as one column `tokens`, mapped: int64 if their types differ."""
    from datasets import Dataset

    for file in files:
        verify(file)
    columns = [open_tokens(file).column() for file in files]
    with reading(source.label):
        if len({column.type for column in columns}) > 1:
            columns = [column.cast(pa.large_list(pa.int64())) for column in columns]
    stamps = [file_stamp(part) for file in files for part in (file, file.with_suffix(".idx")) if part.is_file()]
    table = pa.table({"tokens": pa.chunked_array(columns)})
    return _split(Dataset(table, fingerprint=digest(str(table.schema), stamps)), source)


def _split(dataset: Any, source: Source) -> Any:
    """The rows of a dataset without splits, or of a slice such as `train[:100]`."""
    from datasets import ReadInstruction

    if source.split not in ("train", str(dataset.split)):
        name = source.split.partition("[")[0]
        with reading(source.label):
            if name not in ("train", str(dataset.split)):
                raise MemtaxError(f"{source.path} contains a single dataset without splits; drop the split {source.split!r}")
            parts = ReadInstruction.from_spec(source.split).to_absolute({name: len(dataset)})
        dataset = dataset.select([row for part in parts for row in range(part.from_, part.to)])
    # Versions of `datasets` before 5 cannot stream a dataset without rows.
    return dataset.to_iterable_dataset() if source.streaming and len(dataset) else dataset


def local_files(source: Source) -> list[Path]:
    """The files of a source on this machine; empty for a name on the Hub."""
    path = Path(source.path).expanduser()
    return visible_files(path) if path.is_dir() else [path] if path.exists() else matching_files(source.path)


def _open_files(source: Source, files: list[Path]) -> Any:
    """A file, or those that a pattern matches, in the order of their names."""
    kinds = sorted({formats.extension(file) for file in files})
    if len(kinds) > 1:
        raise MemtaxError(
            f"{source.path} matches files of several formats ({', '.join(kinds)}); give a pattern for one of them"
        )
    for file in files:
        verify(file)
    with reading(source.label):
        for file in files:
            guard.check(file)
        if texts.are_bare(files):
            return _split(texts.read_bare(files), source)
        return _load(source, **_file_arguments(files))


def local_parquet(source: Source) -> list[Path]:
    """The Parquet files of a local source, in the order of `datasets`, if they can be read directly.

    Empty in all other cases: names on the Hub, other formats, slices of a split, streams, and folders whose Parquet files
    `datasets` would have to resolve with a card.
    """
    path = Path(source.path).expanduser()
    if source.streaming or source.revision or source.name or source.split != "train":
        return []
    if path.is_file():
        return [path] if path.suffix == ".parquet" else []
    if not path.is_dir() or (path / "README.md").exists() or (path / "dataset_dict.json").exists():
        return []
    with reading(source.label):
        files = [file for file in visible_files(path) if formats.reader(file)]
        if not files or any(file.suffix != ".parquet" for file in files):
            return []
        from datasets.data_files import DataFilesDict, get_data_patterns

        # Names such as test-00000.parquet define splits.
        found = DataFilesDict.from_patterns(get_data_patterns(str(path)), base_path=str(path))
        return [Path(file) for file in found.get("train", [])]


def read_schema(file: Path) -> pa.Schema:
    """The columns of a Parquet file.

    Raises:
        MemtaxError: it cannot be read.
    """
    with reading(str(file)):
        return pq.read_schema(file)


def _load(source: Source, path: str, **arguments: Any) -> Any:
    from datasets import load_dataset

    return load_dataset(path, name=source.name, split=source.split, streaming=source.streaming, **arguments)


def _file_arguments(files: list[Path]) -> dict[str, Any]:
    for path in files:
        if formats.reader(path) is None:
            raise MemtaxError(f"{path} has an unknown format; memtax reads {formats.KNOWN}")
        if path.stat().st_size == 0:
            raise MemtaxError(f"{path} is empty (0 bytes)")
    # `datasets` treats names as patterns.
    names = [glob.escape(str(path)) for path in files]
    return {"path": formats.reader(files[0]), "data_files": {"train": names}} | formats.options(files)


def _folder_arguments(path: Path) -> dict[str, Any]:
    from datasets.config import HF_DATASETS_CACHE

    files = visible_files(path)
    known = [file for file in files if formats.reader(file)]
    if not known:
        raise MemtaxError(f"the folder {path} contains no file that memtax reads ({formats.KNOWN})")
    has_card = (path / "README.md").exists()
    kinds = {formats.extension(file) for file in known}
    if kinds == {".txt"} and not has_card:
        return _file_arguments(known)
    if has_card:
        # With a card, `datasets` keys its cache by the card alone and would return the old rows of a rewritten folder.
        stamps = [(str(file.relative_to(path)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return {"path": str(path), "cache_dir": str(Path(HF_DATASETS_CACHE) / "memtax" / digest(str(path.resolve()), stamps))}
    return {"path": str(path)} | (formats.options(known) if len(kinds) == 1 else {})


def _open_saved(source: Source, path: Path) -> Any:
    """A folder written by `save_to_disk`."""
    from datasets import DatasetDict, load_from_disk

    with reading(source.label):
        try:
            dataset = load_from_disk(str(path))
        except IndexError as error:
            # A dataset saved without rows has no data file and cannot be loaded.
            raise MemtaxError(f"{source.label} has no rows") from error
    if isinstance(dataset, DatasetDict):
        if source.split not in dataset:
            raise MemtaxError(f"{path} has no split {source.split!r}; it has {', '.join(dataset)}")
        dataset = dataset[source.split]
        return dataset.to_iterable_dataset() if source.streaming else dataset
    return _split(dataset, source)


def _is_file_name(path: str) -> bool:
    return bool(formats.reader(Path(path))) or Path(path).suffix in EXTENSIONS


def _open_hub(source: Source) -> Any:
    if source.path.count("/") > 1 or source.path.startswith((".", "/", "~")) or _is_file_name(source.path):
        raise MemtaxError(f"{source.path} does not exist; give a file, a folder or the name of a dataset on the Hub")
    try:
        with reading(source.label):
            return _load(source, path=source.path, revision=source.revision)
    except MemtaxError as error:
        reason = str(error)
        if "scripts are no longer supported" in reason and source.revision is None:
            # `datasets` no longer runs loading scripts; the Hub keeps the rows as Parquet on a separate branch.
            return _open_hub(replace(source, revision=CONVERTED))
        if isinstance(error.__cause__, OSError):
            # Not found, unreachable and offline all raise operating-system errors.
            reason = f"{source.path} exists neither locally nor, as far as can be reached, on the Hub: {reason}"
        raise MemtaxError(reason) from error
