"""Which tokens of planted canaries a trainer trains on, read from its own rows and collator."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from memtax.errors import MemtaxError
from memtax.membership.canaries import Canary
from memtax.progress import progress_bar

_ROWS = 16
_LOOKED = 4
"""Tokens by which a canary, or a piece of one, is recognized."""
_BASE = np.uint64(0x9E3779B97F4A7C15)


@dataclass
class Losses:
    """How a canary occurs in a training set.

    Attributes:
        whole: occurrences of all its tokens whose trained tokens all get a loss.
        masked: other occurrences of all its tokens.
        begun: occurrences of pieces.
        unprompted: those of `begun` that hold the whole answer, but not the recorded prompt before it.
    """

    whole: int = 0
    masked: int = 0
    begun: int = 0
    unprompted: int = 0


def find_losses(trainer: Any, canaries: Sequence[Canary]) -> list[Losses]:
    """Occurrences of each canary in the rows of a trainer, as its data collator passes them to the model.

    Args:
        trainer: a `transformers.Trainer`; its random numbers are not touched.
        canaries: planted and held-out canaries.
    """
    import torch

    found = [Losses() for _ in canaries]
    patterns = [np.asarray(canary.tokens, np.int64) for canary in canaries]
    with torch.random.fork_rng(devices=[]):
        loader = trainer.get_train_dataloader()
    rows, collate = loader.dataset, loader.collate_fn
    index = _index(patterns, canaries)
    with progress_bar("checking canaries", len(rows)) as bar:
        for start in range(0, len(rows), _ROWS):
            batch = collate([rows[place] for place in range(start, min(start + _ROWS, len(rows)))])
            if "labels" not in batch:
                raise MemtaxError("the trainer's collator gives no labels, so which tokens get a loss cannot be checked")
            ids, labels = batch["input_ids"].numpy(), batch["labels"].numpy()
            for row, targets in zip(ids, labels, strict=True):
                _count(row, targets, canaries, patterns, index, found)
            bar.update(min(_ROWS, len(rows) - start))
    return found


class _Index(NamedTuple):
    """Hashes of a few tokens in each canary: `places[hash]` lists canaries and where in them these tokens are."""

    size: int
    places: dict[int, list[tuple[int, int]]]

    def hashes(self, row: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """Hash of the `size` tokens from each position on."""
        if len(row) < self.size:
            return np.empty(0, np.uint64)
        windows = np.lib.stride_tricks.sliding_window_view(row.astype(np.uint64), self.size)
        return windows @ (_BASE ** np.arange(self.size, dtype=np.uint64))


def _index(patterns: Sequence[npt.NDArray[np.int64]], canaries: Sequence[Canary]) -> _Index:
    lengths = [len(pattern) - (canary.start or 0) for pattern, canary in zip(patterns, canaries, strict=True)]
    index = _Index(min([_LOOKED, *lengths]), {})
    for number, (pattern, length) in enumerate(zip(patterns, lengths, strict=True)):
        # What chat templates put at the edges of answers is the same for all canaries; their inside is not.
        hashes = index.hashes(pattern).tolist()
        for place in {len(pattern) - length + quarter * (length - index.size) // 4 for quarter in (1, 3)}:
            index.places.setdefault(hashes[place], []).append((number, place))
    return index


def _count(
    row: npt.NDArray[np.int64],
    targets: npt.NDArray[np.int64],
    canaries: Sequence[Canary],
    patterns: Sequence[npt.NDArray[np.int64]],
    index: _Index,
    found: list[Losses],
) -> None:
    """Add the occurrences in one row."""
    hashes, seen = index.hashes(row), set()
    for at in np.flatnonzero(np.isin(hashes, np.array(list(index.places), np.uint64))).tolist():
        for number, place in index.places[int(hashes[at])]:
            begin, pattern, scored = at - place, patterns[number], canaries[number].scored
            whole = row[max(begin, 0) : begin + len(pattern)]
            if (number, begin) in seen or not np.array_equal(row[at : at + index.size], pattern[place : place + index.size]):
                continue
            seen.add((number, begin))
            if begin < 0 or not np.array_equal(whole, pattern):
                found[number].begun += 1
                start = canaries[number].start or 0
                answer = row[max(begin + start, 0) : begin + len(pattern)]
                found[number].unprompted += int(start > 0 and np.array_equal(answer, pattern[start:]))
            elif (targets[begin : begin + len(pattern)][scored] == pattern[scored]).all():
                found[number].whole += 1
            else:
                found[number].masked += 1
