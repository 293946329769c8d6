"""Totals of a pass on disk, so that a killed run goes on from its last finished shard."""

import json
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from memtax.corpus.counting import Checkpoint
from memtax.corpus.large_ids import LargeIds
from memtax.corpus.totals import Query, Totals
from memtax.errors import MemtaxError, StaleOutputError
from memtax.files import atomic_path

FILE = "progress.npz"


@dataclass
class FileCheckpoint(Checkpoint):
    """One file that is replaced as a whole: the totals, which shards are in them, and what they were counted from.

    Sums do not depend on the order of shards, so what is counted in several runs is what one run counts.

    Attributes:
        path: the file.
        identity: JSON values that decide the counts; a file of another identity is refused.
        seconds: least time between two writes.
    """

    SHARE: ClassVar[float] = 20.0
    """Writing takes at most one part in so many of the time."""

    path: Path
    identity: dict[str, Any]
    seconds: float = 1.0
    _next: float = field(default=0.0, init=False)

    def load(self, query: Query, shards: int) -> tuple[Totals, npt.NDArray[np.bool_]]:
        """Totals so far, and which shards are in them.

        Raises:
            StaleOutputError: the file is of another pass.
            MemtaxError: it cannot be read.
        """
        totals, done = Totals.zero(query), np.zeros(shards, np.bool_)
        if not self.path.exists():
            return totals, done
        try:
            with np.load(self.path, allow_pickle=False) as kept:
                found = json.loads(str(kept["identity"]))
                names = [name for name in self.identity if found.get(name) != json.loads(json.dumps(self.identity[name]))]
                if names:
                    raise StaleOutputError(
                        f"{self.path} is from a pass with another {', '.join(names)}; "
                        "remove that file, or choose another output"
                    )
                totals.frequencies = kept["frequencies"]
                totals.large = LargeIds(kept["large_ids"], kept["large_counts"])
                for name, arrays in (("found", totals.found), ("near", totals.near)):
                    for number in range(len(arrays)):
                        arrays[number] = kept[f"{name}{number}"]
                totals.tokens, totals.sequences = (int(value) for value in kept["read"])
                done = kept["done"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            if isinstance(error, MemtaxError):
                raise
            raise MemtaxError(f"{self.path} cannot be read; remove it to count from the start") from error
        if len(done) != shards:
            raise StaleOutputError(f"{self.path} knows {len(done)} shards, not {shards}; remove it to count from the start")
        return totals, done

    def save(self, totals: Totals, done: npt.NDArray[np.bool_]) -> None:
        """Replace the file, unless that was done a moment ago."""
        started = time.monotonic()
        if started < self._next:
            return
        arrays = {f"found{number}": array for number, array in enumerate(totals.found)}
        arrays |= {f"near{number}": array for number, array in enumerate(totals.near)}
        with atomic_path(self.path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                identity=np.array(json.dumps(self.identity)),
                frequencies=totals.frequencies,
                large_ids=totals.large.ids,
                large_counts=totals.large.counts,
                read=np.array([totals.tokens, totals.sequences]),
                done=done,
                **arrays,  # type: ignore[arg-type]
            )
        self._next = time.monotonic() + max(self.seconds, self.SHARE * (time.monotonic() - started))

    def remove(self) -> None:
        """The pass is finished."""
        self.path.unlink(missing_ok=True)
