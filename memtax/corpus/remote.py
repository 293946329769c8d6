"""Tables at addresses that Spark reads itself: `s3a://`, `hdfs://`, `abfss://`, `gs://`, `file://`.

Files are counted in groups, so that the groups counted before a driver died are not counted again.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from memtax.corpus.blocks import RowReader
from memtax.corpus.columns import id_column
from memtax.corpus.contract import Shard
from memtax.corpus.opening import Reading
from memtax.engine import spark
from memtax.errors import MemtaxError

_JSON = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".jsonl.zst", ".json.zst", ".jsonl.bz2", ".json.bz2")
_GLOB = re.compile(r"[\[\]{}*?\\]")
_TASK_BYTES = 2**27
"""Maximum bytes that Spark gives to one task."""


def is_address(name: object) -> bool:
    """Whether a name is an address that Spark reads itself."""
    return isinstance(name, str) and "://" in name


@dataclass(frozen=True)
class RemoteFile:
    """A file of a table, as listed by the file system.

    Attributes:
        address: address with its scheme.
        size: bytes.
        modified: milliseconds since 1970.
    """

    address: str
    size: int
    modified: int


@dataclass(frozen=True)
class RemoteTables:
    """A corpus that only Spark opens: the driver sees its file list and columns, the workers its rows.

    Attributes:
        files: ordered by address.
        label: name of the corpus in messages.
        column: column of tokens or text.
        ids: column that identifies rows; None if there is none.
        vocabulary_size: vocabulary size of the tokenizer; None if there is none.
        schema: Spark schema of all files.
    """

    files: tuple[RemoteFile, ...]
    label: str
    column: str
    ids: str | None
    vocabulary_size: int | None
    schema: Any
    rows: None = None
    tokens: None = None

    @classmethod
    def open(cls, names: Sequence[str], reading: Reading, master: str | None = None) -> "RemoteTables":
        """List the files, and check that the tables can be counted.

        Args:
            names: addresses of files, folders or patterns of them, all Parquet or all JSON lines.
            reading: column and tokenizer.
            master: Spark master.

        Raises:
            MemtaxError: a name is not an address, nothing exists there, or there is no column of tokens or text.
        """
        from pyspark.sql.pandas.types import to_arrow_schema

        label = ", ".join(names)
        here = [name for name in names if not is_address(name)]
        if here:
            raise MemtaxError(f"{here[0]} is a path and others are addresses; give file://{here[0]}, or all as paths")
        session = spark.session(master)
        try:
            frame = _read(session, list(names), None)
            found = frame.inputFiles()
            files = tuple(sorted(_listed(session, found), key=lambda file: file.address))
        except Exception as error:
            hint = "; add the Spark package for it, see docs/guides/cluster.md" if "ClassNotFound" in str(error) else ""
            raise MemtaxError(f"Spark cannot read {label}: {spark.first_line(error)}{hint}") from error
        if len(files) != len(set(found)):
            raise MemtaxError(f"{label} has {len(set(found))} files, of which {len(files)} are listed; run again")
        if not files:
            raise MemtaxError(f"{label} has no files")
        schema = to_arrow_schema(frame.schema)
        reader = RowReader.of(schema, label, reading.column, reading.tokenizer, reading.vocabulary_size, 1)
        ids = id_column(schema, label)
        return cls(files, label, reader.column, None if ids == reader.column else ids, reader.vocabulary_size, frame.schema)

    @property
    def identity(self) -> Any:
        """The files with their sizes and times, and the column."""
        return [[[file.address, file.size, file.modified] for file in self.files], self.column]

    def shards(self, tokens: int) -> Sequence[Shard]:
        """Always raises, since the rows can only be read by Spark.

        Raises:
            MemtaxError: always.
        """
        raise MemtaxError(f"{self.label} is read by Spark only; give the sequences to look for with --sequences")

    def frame(self, session: Any, numbers: npt.NDArray[np.int64]) -> Any:
        """The files with these numbers as a DataFrame of the column and the ids."""
        columns = [self.column] if self.ids is None else [self.column, self.ids]
        names = [_GLOB.sub(r"\\\g<0>", self.files[number].address) for number in numbers]
        return _read(session, names, self.schema).select(*columns)

    def rounds(self, left: npt.NDArray[np.int64], tasks: int) -> Iterator[npt.NDArray[np.int64]]:
        """The files with these numbers, in groups that each keep about this many tasks busy."""
        start, size = 0, 0
        for place, number in enumerate(left):
            size += self.files[number].size
            if size >= tasks * _TASK_BYTES:
                yield left[start : place + 1]
                start, size = place + 1, 0
        if start < len(left):
            yield left[start:]


def _read(session: Any, names: list[str], schema: Any) -> Any:
    reader = session.read if schema is None else session.read.schema(schema)
    return reader.json(names) if names[0].endswith(_JSON) else reader.parquet(*names)


def _listed(session: Any, addresses: Sequence[str]) -> Iterator[RemoteFile]:
    """Sizes and times, from one listing per folder that contains files."""
    jvm, conf = session._jvm, session._jsc.hadoopConfiguration()
    wanted = set(addresses)
    for folder in dict.fromkeys(address.rsplit("/", 1)[0] + "/" for address in addresses):
        path = jvm.org.apache.hadoop.fs.Path(jvm.java.net.URI(folder))
        for status in path.getFileSystem(conf).listStatus(path):
            # Spark writes %20 for a space in an address, but expects a space when reading.
            if status.getPath().toUri().toString() in wanted:
                yield RemoteFile(status.getPath().toString(), int(status.getLen()), int(status.getModificationTime()))
