"""Formats of source files: which reader takes a file, how it is compressed, and how `datasets` is asked to read it."""

import bz2
import gzip
import io
import lzma
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

READERS = {
    ".parquet": "parquet",
    ".jsonl": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".arrow": "arrow",
    ".txt": "text",
}
"""File extension to the `datasets` builder that reads it; any of them may be followed by an extension of `COMPRESSED`."""


def _open_zstd(path: Path, mode: str) -> IO[bytes]:
    import pyarrow as pa

    # Unlike the reader of the package zstandard, Arrow's raises an error at the end of a truncated file.
    return io.BufferedReader(pa.CompressedInputStream(str(path), "zstd"))


COMPRESSED: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _open_zstd}
"""Extension of a compressed file to the function that opens its content."""

KNOWN = f"{', '.join(READERS)}, also compressed ({', '.join(COMPRESSED)})"
"""For messages."""


def extension(path: Path) -> str:
    """The extension of the content: `.jsonl` for `rows.jsonl.zst`."""
    return Path(path.name.removesuffix(path.suffix)).suffix if path.suffix in COMPRESSED else path.suffix


def reader(path: Path) -> str | None:
    """The builder that reads a file; None if there is none."""
    return READERS.get(extension(path))


def open_bytes(path: Path) -> IO[bytes]:
    """The content of a file, decompressed.

    Raises:
        OSError, EOFError, lzma.LZMAError: while reading, if the file is damaged or truncated.
    """
    opened: IO[bytes] = COMPRESSED.get(path.suffix, open)(path, "rb")
    return opened


def options(files: Sequence[Path]) -> dict[str, Any]:
    """Arguments of the builder that reads these files, all of one format."""
    kind = reader(files[0])
    if kind == "text":
        # A text file is one document: its lines belong together, and windows may cross line ends.
        return {"sample_by": "document"}
    if kind == "csv":
        # By default, pandas takes texts such as "NA" and "null" for missing values.
        separator = {"sep": "\t"} if extension(files[0]) == ".tsv" else {}
        return {"keep_default_na": False, "na_values": [""], **separator}
    return {}
