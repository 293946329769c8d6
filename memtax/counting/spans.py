"""Windows to count: spans of tokens such as 32:64, cut from every sequence of a source."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memtax.corpus.contract import Corpus
from memtax.counting.counter import SHARD_TOKENS
from memtax.counting.totals import largest_id
from memtax.errors import MemtaxError
from memtax.progress import progress_bar


@dataclass(frozen=True)
class Span:
    """Tokens [start, stop) of a sequence."""

    start: int
    stop: int

    @classmethod
    def parse(cls, text: str) -> "Span":
        """Parse `start:stop`.

        Raises:
            MemtaxError: the text is not a span of at least one token.
        """
        start, colon, stop = text.partition(":")
        if not colon or not start.strip().isdecimal() or not stop.strip().isdecimal() or int(start) >= int(stop):
            raise MemtaxError(f"{text!r} is not a window; write start:stop, such as 32:64")
        return cls(int(start), int(stop))

    @property
    def name(self) -> str:
        """Name of the span in file names."""
        return f"{self.start}_{self.stop}"


@dataclass(frozen=True)
class CutWindows:
    """The windows of one span.

    Attributes:
        ids: shape (n), the sequence that each window was cut from.
        windows: shape (n, stop - start), token ids.
        skipped: number of sequences too short for the span.
    """

    ids: npt.NDArray[np.int64]
    windows: npt.NDArray[np.int32]
    skipped: int


def cut_windows(
    corpus: Corpus, spans: Sequence[Span], what: str = "the sequences", vocabulary_size: int | None = None
) -> list[CutWindows]:
    """Cut spans from every sequence.

    Args:
        corpus: contains the sequences. Their ids are in its column `sequence_id`, `index` or `Index`, or are row numbers.
        spans: the spans to cut.
        what: name of the corpus in messages.
        vocabulary_size: ids at or above it are rejected.

    Returns:
        One entry per span.

    Raises:
        MemtaxError: no sequence is long enough, an id occurs twice, or a token exceeds the vocabulary.
    """
    ids: list[list[npt.NDArray[np.int64]]] = [[] for _ in spans]
    windows: list[list[npt.NDArray[np.int32]]] = [[] for _ in spans]
    row, longest = 0, 0
    with progress_bar("reading windows", corpus.rows) as bar:
        for shard in corpus.shards(SHARD_TOKENS):
            for block in shard.blocks():
                # Shards come in order, so row numbers are known even if a shard does not know its own.
                rows = len(block.offsets) - 1
                keys = block.ids if block.ids is not None else np.arange(row, row + rows)
                largest_id(block, vocabulary_size)
                lengths = np.diff(block.offsets)
                longest = max(longest, int(lengths.max(initial=0)))
                for number, span in enumerate(spans):
                    long = np.flatnonzero(lengths >= span.stop)
                    places = block.offsets[long][:, None] + np.arange(span.start, span.stop)
                    windows[number].append(block.tokens[places].astype(np.int32, copy=False))
                    ids[number].append(keys[long])
                row += rows
                bar.update(rows)
    cut = []
    for number, span in enumerate(spans):
        found = np.concatenate([np.zeros(0, np.int64), *ids[number]])
        if not len(found):
            raise MemtaxError(
                f"no row of {what} has the {span.stop} tokens that the window {span.start}:{span.stop} needs "
                f"(the longest has {longest}); choose an earlier or shorter window"
            )
        ordered = np.sort(found)
        again = ordered[1:][ordered[1:] == ordered[:-1]]
        if len(again):
            raise MemtaxError(f"the id {int(again[0])} occurs more than once in {what}; fix the column of ids, or drop it")
        cut.append(CutWindows(found, np.concatenate(windows[number]), row - len(found)))
        windows[number].clear()
    return cut
