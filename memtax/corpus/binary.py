"""Token corpora in plain files, memory-mapped: Megatron `.bin` with `.idx`, headerless `.bin`, `.npy` matrices.

Every fault is found before counting starts (inconsistent sizes and indexes) or when the block is read (ids), and the message
gives the file and the byte offset.
"""

import mmap
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from memtax.corpus import formats
from memtax.corpus.columns import Tokens
from memtax.corpus.contract import Block
from memtax.errors import MemtaxError
from memtax.files import matching_files, visible_files

EXTENSIONS = (".bin", ".idx", ".npy")
BLOCK_TOKENS = 2**21
"""Tokens per block: a few MiB, so that read-ahead uses little memory and the loop over blocks costs little."""

MAGIC = b"MMIDIDX\x00\x00"
_HEADER = 34
_DTYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
DTYPES = {"uint16": "<u2", "uint32": "<u4", "int32": "<i4"}
"""Supported dtypes of headerless files."""


class FlatCorpus:
    """One file of tokens, cut into sequences by offsets; created by the functions below."""

    def __init__(self, path: Path, data: npt.NDArray[Any], offsets: "Offsets", first_byte: int) -> None:
        self._path, self._data, self._offsets, self._first_byte = path, data, offsets, first_byte
        self.rows: int | None = offsets.rows
        self.tokens: int | None = offsets.tokens
        self.vocabulary_size: int | None = None
        if self.tokens == 0:
            raise MemtaxError(f"{path} contains no tokens")

    @property
    def identity(self) -> Any:
        """Name, size and time of the file, and the offsets of its sequences."""
        return [*file_stamp(self._path), str(self._data.dtype), self._offsets.identity]

    def column(self) -> pa.LargeListArray:
        """The sequences as Arrow lists, one per row, over the mapped file: nothing is read or copied."""
        return pa.LargeListArray.from_arrays(self._offsets.between(0, self._offsets.rows), pa.array(np.asarray(self._data)))

    def shards(self, tokens: int) -> Sequence["FlatShard"]:
        """Shards of whole sequences, about `tokens` tokens each."""
        bounds = self._offsets.cut(tokens)
        return [FlatShard(self, start, stop) for start, stop in pairwise(bounds)]

    def read(self, start: int, stop: int) -> Iterator[Block]:
        """Yield the sequences [start, stop) in blocks."""
        for first, last in pairwise(self._offsets.cut(BLOCK_TOKENS, start, stop)):
            offsets = self._offsets.between(first, last)
            low, high = int(offsets[0]), int(offsets[-1])
            self._is_there(high)
            self._will_need(high, high + (high - low))
            values = np.asarray(self._data[low:high])
            byte = self._first_byte + low * values.itemsize
            block = Block(
                _token_ids(values, self._path, byte), offsets - low, first, None, str(self._path), byte, values.itemsize
            )
            yield block

    def _is_there(self, high: int) -> None:
        """Check that the file still contains the tokens below `high`: reading a map beyond its file's end kills the process.

        Raises:
            MemtaxError: the file was truncated.
        """
        needed = self._first_byte + high * self._data.itemsize
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:  # a mapped file stays readable after its deletion
            return
        if size < needed:
            raise MemtaxError(f"{self._path} was truncated to {size} bytes while it was read; it had at least {needed} bytes")

    def _will_need(self, low: int, high: int) -> None:
        """Ask the system to read tokens [low, high) ahead."""
        mapped = getattr(self._data, "_mmap", None)
        if mapped is None or not hasattr(mmap, "MADV_WILLNEED"):
            return
        # A numpy memory map starts at the page boundary below its offset.
        begin = (self._first_byte % mmap.ALLOCATIONGRANULARITY + low * self._data.itemsize) // mmap.PAGESIZE * mmap.PAGESIZE
        length = min((high - low) * self._data.itemsize, len(mapped) - begin)
        if length > 0:
            mapped.madvise(mmap.MADV_WILLNEED, begin, length)


@dataclass(frozen=True)
class FlatShard:
    """Sequences [start, stop) of a file."""

    corpus: FlatCorpus
    start: int
    stop: int

    @property
    def tokens(self) -> int | None:
        """Number of tokens."""
        offsets = self.corpus._offsets
        return int(offsets.at(self.stop) - offsets.at(self.start))

    def blocks(self) -> Iterator[Block]:
        """The sequences in order."""
        return self.corpus.read(self.start, self.stop)


@dataclass(frozen=True)
class Offsets:
    """Start offsets of sequences: every `length` tokens, or explicit.

    Attributes:
        rows: number of sequences.
        length: tokens per sequence, if all are equally long.
        ends: shape (rows + 1), starting at 0; needed if lengths differ.
    """

    rows: int
    length: int = 0
    ends: npt.NDArray[np.int64] | None = None

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return self.at(self.rows)

    @property
    def identity(self) -> Any:
        """JSON values that identify the offsets."""
        return [self.rows, self.length] if self.ends is None else [self.rows, self.tokens]

    def at(self, row: int) -> int:
        """Start of a sequence, in tokens."""
        return row * self.length if self.ends is None else int(self.ends[row])

    def between(self, first: int, last: int) -> npt.NDArray[np.int64]:
        """Starts of the sequences [first, last), and the end of the last one."""
        if self.ends is None:
            return np.arange(first, last + 1, dtype=np.int64) * self.length
        return self.ends[first : last + 1]

    def cut(self, tokens: int, start: int = 0, stop: int | None = None) -> list[int]:
        """Row boundaries from `start` to `stop` with about `tokens` tokens, and at least one row, between neighbors."""
        bounds, stop = [start], self.rows if stop is None else stop
        while bounds[-1] < stop:
            last = bounds[-1]
            if self.ends is None:
                after = last + tokens // self.length
            else:
                after = int(np.searchsorted(self.ends, self.ends[last] + tokens, side="right")) - 1
            bounds.append(min(max(last + 1, after), stop))
        return bounds


def file_stamp(path: Path) -> list[Any]:
    """Name, size and time of a file."""
    status = path.stat()
    return [path.name, status.st_size, status.st_mtime_ns]


def _token_ids(values: npt.NDArray[Any], path: Path, byte: int) -> Tokens:
    """Convert tokens to uint16 or int32, without a copy if they have one of these dtypes or uint32."""
    if values.dtype in (np.dtype("<u2"), np.dtype("<i4")):
        return values
    if values.dtype == np.dtype("<u4"):
        # Ids of 2^31 and above become negative here.
        narrow: npt.NDArray[np.int32] = values.view(np.int32)
    elif values.dtype in (np.dtype("<i8"), np.dtype("<u8")):
        narrow = values.astype(np.int32)
        narrow[(values < 0) | (values >= 2**31)] = -1
    else:
        return values.astype(np.int32)
    if len(narrow) and int(narrow.min()) < 0:
        at = int(np.argmax(narrow < 0))
        raise MemtaxError(
            f"token id {int(values[at])} in {path} (byte offset {byte + at * values.itemsize}) is not in 0..2^31-1; "
            "does the file have another dtype?"
        )
    return narrow


def _map(path: Path, dtype: str, offset: int = 0, count: int | None = None) -> npt.NDArray[Any]:
    size = path.stat().st_size
    if size == 0:
        raise MemtaxError(f"{path} is empty (0 bytes)")
    return np.memmap(path, dtype, "r", offset, None if count is None else (count,))


def token_files(path: str) -> list[Path]:
    """The files of tokens that a file, a pattern, a folder or the common name of a pair stands for; empty for other sources.

    A folder that also has files of another format is not one of tokens. Of a pair, the `.bin` is returned.

    Raises:
        MemtaxError: an index has no data file beside it.
    """
    place = Path(path).expanduser()
    files = [place] if place.is_file() else visible_files(place) if place.is_dir() else matching_files(path)
    tokens = [file for file in files if file.suffix in EXTENSIONS]
    if len(tokens) < len(files) and any(formats.reader(file) for file in files):
        return []
    for file in tokens:
        if file.suffix == ".idx" and not file.with_suffix(".bin").is_file():
            raise MemtaxError(f"{file.with_suffix('.bin')} is missing, but its index {file} exists")
    return list(dict.fromkeys(file.with_suffix(".bin") if file.suffix == ".idx" else file for file in tokens))


def open_tokens(path: Path, sequence_length: int | None = None, dtype: str = "uint16") -> FlatCorpus:
    """A file from `token_files`.

    Args:
        path: the `.bin` or `.npy`.
        sequence_length: tokens per sequence of a file without an index, or of a flat `.npy`.
        dtype: dtype of a file without an index.

    Raises:
        MemtaxError: it is damaged, or has no index and no length is given.
    """
    if path.suffix == ".npy":
        return open_npy(path, sequence_length)
    index = path.with_suffix(".idx")
    if path.stat().st_size == 0:
        raise MemtaxError(f"{path} is empty (0 bytes)")
    if sequence_length is not None:
        return open_headerless(path, sequence_length, dtype)
    if index.is_file():
        return open_megatron(path, index)
    raise MemtaxError(
        f"{path} has no index ({index.name}) next to it; memtax count reads headerless files with --sequence-length (Pythia: "
        "2049) and --token-dtype, the other verbs a .npy with one sequence per row"
    )


def open_headerless(path: Path, sequence_length: int, dtype: str) -> FlatCorpus:
    """A file that contains only token ids, in sequences of one length (Pythia's preshuffled `document.bin`).

    Raises:
        MemtaxError: the size is not a whole number of sequences; the message says where the remainder starts.
    """
    if dtype not in DTYPES:
        raise MemtaxError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    if sequence_length < 1:
        raise MemtaxError(f"a sequence must have at least 1 token, got {sequence_length}")
    size, itemsize = path.stat().st_size, np.dtype(DTYPES[dtype]).itemsize
    if size % itemsize:
        raise MemtaxError(
            f"{path} has {size} bytes, which is not a whole number of {dtype} tokens: {size % itemsize} byte(s) too many from "
            f"byte offset {size - size % itemsize}; is the file truncated, or is its dtype another?"
        )
    rest = size // itemsize % sequence_length
    if rest:
        raise MemtaxError(
            f"{path} is not a whole number of sequences of {sequence_length} tokens: {rest} token(s) are left at byte offset "
            f"{size - rest * itemsize}; is the file truncated, or is --sequence-length wrong?"
        )
    data = _map(path, DTYPES[dtype])
    return FlatCorpus(path, data, Offsets(len(data) // sequence_length, sequence_length), 0)


def open_megatron(data: Path, index: Path) -> FlatCorpus:
    """A Megatron pair. The index must fit the data exactly.

    Raises:
        MemtaxError: a file is truncated or damaged, or the two do not belong together; the message says where.
    """
    ends, dtype = _read_index(index)
    size, itemsize = data.stat().st_size, np.dtype(dtype).itemsize
    wanted = int(ends[-1]) * itemsize
    if size != wanted:
        place = f"truncated at byte offset {size}" if size < wanted else f"too long from byte offset {wanted} on"
        raise MemtaxError(
            f"{data} has {size} bytes but {index} requires {wanted}: the data is {place}, or the index belongs to another file"
        )
    rows, lengths = len(ends) - 1, np.diff(ends)
    if not size:
        raise MemtaxError(f"{data} contains no tokens")
    same = rows > 0 and int(lengths.min()) == int(lengths.max()) > 0
    return FlatCorpus(data, _map(data, dtype), Offsets(rows, int(lengths[0])) if same else Offsets(rows, 0, ends), 0)


def _read_index(path: Path) -> tuple[npt.NDArray[np.int64], str]:
    """Ends of the sequences in tokens, shape (sequences + 1), and the dtype."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(_HEADER)
    if not header.startswith(MAGIC):
        raise MemtaxError(f"{path} does not start with MMIDIDX at byte offset 0, so it is not a Megatron index")
    if size < _HEADER:
        raise MemtaxError(f"{path} is truncated at byte offset {size}: its header has {_HEADER} bytes")
    version, code, rows, documents = struct.unpack("<QBQQ", header[len(MAGIC) :])
    if version != 1:
        raise MemtaxError(f"{path} has version {version} at byte offset {len(MAGIC)}; only version 1 is supported")
    if code not in _DTYPES:
        raise MemtaxError(
            f"{path} has dtype code {code} at byte offset 17, which is not an integer type; token ids are "
            f"{', '.join(f'{key}={np.dtype(kind).name}' for key, kind in _DTYPES.items())}"
        )
    wanted = _HEADER + rows * 12 + documents * 8
    if size != wanted:
        place = f"truncated at byte offset {size}" if size < wanted else f"too long from byte offset {wanted} on"
        raise MemtaxError(f"{path} is {place}: {rows} sequences and {documents} documents need {wanted} bytes")
    ends = np.zeros(rows + 1, np.int64)
    if rows:
        sizes = np.memmap(path, "<i4", "r", _HEADER, (rows,))
        if int(sizes.min()) < 0:
            at = int(np.argmax(sizes < 0))
            raise MemtaxError(f"{path} gives sequence {at} the length {int(sizes[at])} at byte offset {_HEADER + 4 * at}")
        np.cumsum(sizes, out=ends[1:])
        pointers = np.memmap(path, "<i8", "r", _HEADER + 4 * rows, (rows,))
        wrong = pointers != ends[:-1] * np.dtype(_DTYPES[code]).itemsize
        if wrong.any():
            at = int(np.argmax(wrong))
            raise MemtaxError(
                f"{path} points sequence {at} to byte {int(pointers[at])} (at byte offset {_HEADER + 4 * rows + 8 * at}), but "
                f"the lengths before it end at byte {int(ends[at]) * np.dtype(_DTYPES[code]).itemsize}; the index is damaged"
            )
    return ends, _DTYPES[code]


def open_npy(path: Path, sequence_length: int | None = None) -> FlatCorpus:
    """A `.npy` file: a matrix with one sequence per row, or a flat array with `sequence_length`.

    Raises:
        MemtaxError: it is damaged or truncated, contains no integers, or has another shape.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
            first_byte = file.tell()
    except (ValueError, EOFError) as error:
        raise MemtaxError(f"{path} is not a .npy file: {' '.join(str(error).split())} (byte offset 0)") from error
    if dtype.kind not in "iu" or dtype.byteorder == ">" or dtype.itemsize > 8:
        raise MemtaxError(f"{path} contains {dtype}; token ids must be integers, little-endian")
    if len(shape) == 1 and sequence_length:
        if shape[0] % sequence_length:
            rest = shape[0] % sequence_length
            at = first_byte + (shape[0] - rest) * dtype.itemsize
            raise MemtaxError(
                f"{path} is not a whole number of sequences of {sequence_length} tokens: {rest} left at byte offset {at}"
            )
        shape = (shape[0] // sequence_length, sequence_length)
    if len(shape) != 2 or (fortran and min(shape) > 1):
        raise MemtaxError(
            f"{path} has shape {shape}; give a matrix with one sequence per row, or --sequence-length for a flat array"
        )
    wanted = first_byte + shape[0] * shape[1] * dtype.itemsize
    if path.stat().st_size < wanted:
        raise MemtaxError(f"{path} is truncated at byte offset {path.stat().st_size}: its shape {shape} needs {wanted} bytes")
    if shape[0] * shape[1] == 0:
        raise MemtaxError(f"{path} contains no tokens")
    data = _map(path, dtype.str, first_byte, shape[0] * shape[1])
    return FlatCorpus(path, data, Offsets(shape[0], shape[1]), first_byte)
