"""The complete job of `memtax count`: open the corpus, cut windows, count (resumably, locally or on Spark), write."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from memtax import checksums
from memtax.corpus.columns import id_column, row_ids
from memtax.corpus.contract import Corpus
from memtax.corpus.opening import Reading, open_sources
from memtax.corpus.remote import RemoteTables, is_address
from memtax.corpus.sources import Source, open_dataset
from memtax.counting.count_tables import write_counts
from memtax.counting.counter import SHARD_TOKENS, Counts, count
from memtax.counting.places import MOST, write_places
from memtax.counting.resume import FILE, FileCheckpoint
from memtax.counting.spans import CutWindows, Span, cut_windows
from memtax.engine.stage import claim
from memtax.errors import MemtaxError
from memtax.files import read_json, write_json
from memtax.progress import report_warning, say, skipped
from memtax.record_shapes import TOTALS as TOTALS_SHAPE

TOTALS = "totals.json"
ENGINES = ("local", "spark")


@dataclass(frozen=True)
class CountJob:
    """Settings of a count.

    Attributes:
        corpus: names accepted by `open_sources`.
        sequences: source from which windows are cut; None cuts them from the corpus itself, empty requests no windows.
        spans: the windows of each sequence.
        reading: options for reading corpus and sequences.
        separator: token that ends documents.
        substitutions: near-duplicates with at most this many substituted tokens are counted as well.
        memorized: a dataset of the ids of memorized sequences, whose tokens are counted separately.
        threads: number of threads; None uses all cores.
        shard_tokens: tokens per shard.
        engine: `local` or `spark`.
        master: Spark master; None uses the session's own, or all cores of this machine.
        places: occurrences of each window to locate.
    """

    corpus: tuple[str, ...]
    sequences: tuple[str, ...] | None = None
    spans: tuple[Span, ...] = (Span(32, 64),)
    reading: Reading = field(default_factory=Reading)
    separator: int | None = None
    substitutions: int | None = None
    memorized: str | None = None
    threads: int | None = None
    shard_tokens: int = SHARD_TOKENS
    engine: str = "local"
    master: str | None = None
    places: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.places <= MOST:
            raise MemtaxError(f"places={self.places} must be from 0 to {MOST}")
        if self.places and self.engine == "spark":
            raise MemtaxError("places are found by a local pass only; leave out --engine spark or --places")
        if self.engine not in ENGINES:
            raise MemtaxError(f"engine {self.engine!r} is not one of {', '.join(ENGINES)}")
        if self.threads is not None and self.threads < 1:
            raise MemtaxError(f"threads={self.threads} must be at least 1")
        if self.shard_tokens < 1:
            raise MemtaxError(f"a shard must have at least 1 token, got {self.shard_tokens}")
        if self.separator is not None and not 0 <= self.separator < 2**31:
            raise MemtaxError(f"the document separator {self.separator} is not a token id")
        if len({span.name for span in self.spans}) != len(self.spans):
            raise MemtaxError("the same window is listed twice")

    def run(self, output: Path) -> dict[str, Any]:
        """Count, and write the tables into `output`.

        A finished output of the same job is left unchanged; an unfinished one is resumed.

        Returns:
            The figures of `totals.json`.

        Raises:
            MemtaxError: an input cannot be used.
            StaleOutputError: `output` holds another job's results.
        """
        corpus = self._open()
        cut = self._cut(corpus)
        for span, each in zip(self.spans, cut, strict=False):
            skipped(each.skipped, f"too short for the window {span.start}:{span.stop}")
        memorized = None if self.memorized is None else read_ids(self.memorized)
        identity = self._identity(corpus, cut, memorized)
        claim(output, identity)
        keeper = FileCheckpoint(output / FILE, identity)
        if (output / TOTALS).exists():
            reason = checksums.damage(output, identity, [TOTALS])
            if reason is None:
                keeper.remove()
                return read_json(output / TOTALS, TOTALS_SHAPE)
            report_warning(f"{reason}; the corpus is counted again")
        counts = self._count(corpus, cut, memorized, keeper)
        if memorized is not None and not _has_memorized(counts):
            say(f"none of the {len(memorized):,} memorized ids is a sequence of the corpus; are they from another corpus?")
        further = [(span.name, each.ids) for span, each in zip(self.spans[1:], cut[1:], strict=False)]
        names = write_counts(output, cut[0].ids if cut else None, counts, further)
        if self.places and cut:
            names += write_places(output, [("", cut[0].ids), *((f"_{name}", ids) for name, ids in further)], counts, corpus)
        totals = {
            "tokens": counts.tokens,
            "sequences": counts.sequences,
            "windows": [len(each.ids) for each in cut],
            "sequences_too_short": [each.skipped for each in cut],
            "occurrences": [int(each.sum()) for each in (counts.window_counts, *counts.further)][: len(cut)],
        }
        # Totals are written last: their presence means that the tables are complete.
        write_json(output / TOTALS, totals)
        checksums.seal(output, "the same memtax count command", identity, [*names, TOTALS])
        keeper.remove()
        return totals

    def _open(self) -> Corpus:
        addresses = [name for name in self.corpus if is_address(name)]
        if not addresses:
            return open_sources(self.corpus, self.reading)
        if self.engine != "spark":
            raise MemtaxError(f"{addresses[0]} is an address that only Spark reads; add --engine spark, or give a path")
        return RemoteTables.open(self.corpus, self.reading, self.master)

    def _cut(self, corpus: Corpus) -> list[CutWindows]:
        if self.sequences == () or not self.spans:
            return []
        if self.sequences is None:
            return cut_windows(corpus, self.spans, "the corpus", self._size(corpus))
        others = open_sources(self.sequences, self.reading)
        return cut_windows(others, self.spans, ", ".join(self.sequences), self._size(corpus))

    def _size(self, corpus: Corpus) -> int | None:
        return corpus.vocabulary_size if self.reading.vocabulary_size is None else self.reading.vocabulary_size

    def _count(self, corpus: Corpus, cut: list[CutWindows], memorized: Any, keeper: FileCheckpoint) -> Counts:
        options: dict[str, Any] = {
            "vocabulary_size": self._size(corpus),
            "separator": self.separator,
            "substitutions": self.substitutions,
            "memorized": memorized,
            "shard_tokens": self.shard_tokens,
        }
        windows = [each.windows for each in cut]
        if self.engine == "spark":
            from memtax.counting.on_spark import count_on_spark

            where = corpus if isinstance(corpus, RemoteTables) else self.corpus
            return count_on_spark(where, self.reading, windows, master=self.master, keeper=keeper, **options)
        return count(corpus, windows, threads=self.threads, checkpoint=lambda query: keeper, places=self.places, **options)

    def _identity(self, corpus: Corpus, cut: list[CutWindows], memorized: Any) -> dict[str, Any]:
        return {
            "stage": "counts",
            "version": 1,
            "corpus": corpus.identity,
            "tokenizer": None if self.reading.tokenizer is None else str(self.reading.tokenizer.name_or_path),
            "vocabulary_size": self.reading.vocabulary_size,
            "windows": [[span.start, span.stop] for span in self.spans] if cut else [],
            "sequences": [_digest(each.ids, each.windows) for each in cut],
            "document_separator": self.separator,
            "substitutions": self.substitutions,
            "memorized": None if memorized is None else _digest(memorized),
            "shard_tokens": self.shard_tokens,
            # Without places, the identity is that of earlier versions.
            **({"places": self.places} if self.places else {}),
        }


def _has_memorized(counts: Counts) -> bool:
    parts = (counts.memorized_frequencies, counts.large_memorized_frequencies)
    return any(part is not None and part.any() for part in parts)


def _digest(*arrays: npt.NDArray[Any]) -> str:
    hashed = hashlib.sha256()
    for array in arrays:
        hashed.update(f"{array.dtype}{array.shape}".encode())
        hashed.update(np.ascontiguousarray(array).data)
    return hashed.hexdigest()[:32]


def read_ids(name: str) -> npt.NDArray[np.int64]:
    """Ids of a dataset's rows, or of the rows where `is_memorized` is true if that column exists.

    Raises:
        MemtaxError: the dataset cannot be read, or has no column of ids.
    """
    dataset = open_dataset(Source.parse(name))
    schema = dataset.features.arrow_schema
    key = id_column(schema, name)
    if key is None:
        raise MemtaxError(f"{name} has no column of ids (sequence_id, index); its columns are: {', '.join(schema.names)}")
    names = [key, "is_memorized"] if "is_memorized" in schema.names else [key]
    table = dataset.select_columns(names).with_format("arrow")[:]
    if "is_memorized" in names:
        table = table.filter(pc.fill_null(table.column("is_memorized"), False))
    return row_ids(table.column(key).combine_chunks(), key, name)


def describe(totals: dict[str, Any], spans: Sequence[Span]) -> str:
    """One summary line for the terminal."""
    line = f"{totals['tokens']:,} tokens in {totals['sequences']:,} sequences"
    for span, windows, short in zip(spans, totals["windows"], totals["sequences_too_short"], strict=False):
        line += f"; {windows:,} windows {span.start}:{span.stop}" + (f" ({short:,} sequences too short)" if short else "")
    return line
