"""Opening one corpus from the names that a user gives: files of tokens, tables, datasets, lists and globs of them."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from memtax.checksums import verify
from memtax.corpus.binary import open_tokens, token_files
from memtax.corpus.blocks import ParquetCorpus, open_corpus
from memtax.corpus.contract import Block, Corpus, Shard
from memtax.corpus.sources import Source, local_parquet, read_schema
from memtax.corpus.texts import is_plain
from memtax.errors import MemtaxError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BLOCK_TOKENS = 2**21


@dataclass(frozen=True)
class Reading:
    """How to read sources that do not specify it themselves.

    Attributes:
        column: column of tables; None looks for the usual names.
        streaming: read `datasets` sources on the fly, without a copy in their cache.
        sequence_length: tokens per sequence in headerless files.
        dtype: dtype of headerless files: uint16, uint32 or int32.
        tokenizer: for text; for token columns it provides the vocabulary size.
        vocabulary_size: ids at or above it are rejected.
    """

    column: str | None = None
    streaming: bool = False
    sequence_length: int | None = None
    dtype: str = "uint16"
    tokenizer: "PreTrainedTokenizerBase | None" = None
    vocabulary_size: int | None = None


class JoinedCorpus:
    """Several corpora in order, with consecutive row numbers."""

    def __init__(self, parts: Sequence[Corpus]) -> None:
        self._parts = parts
        sizes = [part.vocabulary_size for part in parts]
        self.vocabulary_size = next((size for size in sizes if size is not None), None)
        self.rows = _sum(part.rows for part in parts)
        self.tokens = _sum(part.tokens for part in parts)

    @property
    def identity(self) -> Any:
        """Identities of the parts."""
        return [part.identity for part in self._parts]

    def shards(self, tokens: int) -> Sequence[Shard]:
        """The parts' shards."""
        found: list[Shard] = []
        before: int | None = 0
        for part in self._parts:
            found += [shard if before == 0 else _Shifted(shard, before) for shard in part.shards(tokens)]
            before = None if before is None or part.rows is None else before + part.rows
        return found

    def documents(self, rows: npt.NDArray[np.int64]) -> dict[int, str | None]:
        """Row number to the document of that row, from the parts that have documents and known rows."""
        found: dict[int, str | None] = {}
        before = 0
        for part in self._parts:
            if part.rows is None:
                break
            mine = rows[(rows >= before) & (rows < before + part.rows)] - before
            find = getattr(part, "documents", None)
            if find is not None and len(mine):
                found |= {row + before: name for row, name in find(mine).items()}
            before += part.rows
        return found


@dataclass(frozen=True)
class _Shifted:
    """A shard of a later part, whose row numbers are shifted."""

    shard: Shard
    before: int | None

    @property
    def tokens(self) -> int | None:
        return self.shard.tokens

    def blocks(self) -> Iterator[Block]:
        for block in self.shard.blocks():
            known = self.before is not None and block.first_row is not None
            yield replace(block, first_row=block.first_row + self.before if known else None)  # type: ignore[operator]


def _sum(values: Iterator[int | None]) -> int | None:
    known = list(values)
    return None if None in known else sum(value for value in known if value is not None)


def open_sources(names: Sequence[str | Source], how: Reading | None = None) -> Corpus:
    """Open one corpus.

    Args:
        names: paths (`.bin` with its `.idx`, headerless `.bin`, `.npy`, Parquet, Arrow, JSONL, folders), globs, or names on
            the Hub; each can include configuration and split as `path:config:split`.
        how: reading options for all of them.

    Returns:
        The corpus; several sources are joined in the given order (files of a glob in the order of their names).

    Raises:
        MemtaxError: a source is missing, damaged, or lacks an option; the message gives the file and the position.
    """
    how = how or Reading()
    found = [each for name in names for each in _expand(name)]
    if not found:
        raise MemtaxError("no corpus is given")
    parts = [part for each in found for part in _open(each, how)]
    return parts[0] if len(parts) == 1 else JoinedCorpus(parts)


def _expand(name: str | Source) -> list[str | Source]:
    if isinstance(name, Source):
        return [name]
    path = os.path.expanduser(name)
    # A split such as train[:10] contains brackets too, so a name that matches no existing file is kept unchanged.
    if os.path.exists(path) or not glob.has_magic(path):
        return [name]
    matches = sorted(glob.glob(path, recursive=True))
    if not matches and ("*" in path or "?" in path):
        raise MemtaxError(f"no file matches {name}")
    # `corpus*` matches both files of a pair; the data file represents the pair.
    data = {match for match in matches if match.endswith(".bin")}
    kept: list[str | Source] = [each for each in matches if not each.endswith(".idx") or f"{each[:-4]}.bin" not in data]
    return kept or [name]


def _open(name: str | Source, how: Reading) -> list[Corpus]:
    if isinstance(name, str):
        name = Source.parse(name, column=how.column, streaming=how.streaming)
    verify(Path(os.path.expanduser(name.path)))
    if name.split == "train" and (files := token_files(name.path)):
        return [open_tokens(file, how.sequence_length, how.dtype) for file in files]
    files = local_parquet(name)
    if files and is_plain(read_schema(files[0]), name.column):
        return [ParquetCorpus(file, name.column, how.tokenizer, how.vocabulary_size, _BLOCK_TOKENS) for file in files]
    return [open_corpus(name, tokenizer=how.tokenizer, vocabulary_size=how.vocabulary_size, block_tokens=_BLOCK_TOKENS)]
