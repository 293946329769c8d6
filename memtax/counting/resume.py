"""Totals of a pass on disk, so that a killed run resumes after its last saved shard."""

import json
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from memtax.checksums import Parts
from memtax.counting.counter import Checkpoint
from memtax.counting.large_ids import LargeIds
from memtax.counting.places import Places
from memtax.counting.totals import Query, Totals
from memtax.errors import StaleOutputError

FILE = "progress.npz"


@dataclass
class FileCheckpoint(Checkpoint):
    """One file, replaced as a whole, with the totals, the shards that they include, and the identity of the pass.

    Sums do not depend on the order of shards, so several interrupted runs give the same counts as one run.

    Attributes:
        path: the file.
        identity: JSON values that determine the counts; a file with another identity is rejected.
        seconds: minimum time between two writes.
    """

    SHARE: ClassVar[float] = 20.0
    """Writing takes at most this fraction (one part in N) of the time."""

    path: Path
    identity: dict[str, Any]
    seconds: float = 1.0
    _next: float = field(default=0.0, init=False)

    def load(self, query: Query, shards: int) -> tuple[Totals, npt.NDArray[np.bool_]]:
        """Totals so far, and the mask of shards that they include; both empty, with a warning, if the file is damaged.

        Raises:
            StaleOutputError: the file is from another pass.
        """
        totals, done = Totals.zero(query), np.zeros(shards, np.bool_)
        self._refuse_other()
        if not self._parts.is_usable(self.path.name):
            return totals, done
        with np.load(self.path, allow_pickle=False) as kept:
            totals.frequencies = kept["frequencies"]
            totals.large = LargeIds(kept["large_ids"], kept["large_counts"])
            totals.sources = {int(shard): name for shard, name in json.loads(str(kept["sources"]))} if "sources" in kept else {}
            for number in range(len(totals.places)):
                totals.places[number] = Places(kept[f"order{number}"], kept[f"places{number}"])
            for name, arrays in (("found", totals.found), ("near", totals.near)):
                for number in range(len(arrays)):
                    arrays[number] = kept[f"{name}{number}"]
            totals.tokens, totals.sequences = (int(value) for value in kept["read"])
            done = kept["done"]
        if len(done) != shards:
            raise StaleOutputError(f"{self.path} has {len(done)} shards, not {shards}; remove it to count from the start")
        return totals, done

    @property
    def _parts(self) -> Parts:
        return Parts.of(self.path.parent, self.identity)

    def _refuse_other(self) -> None:
        """Raise for an intact file of another pass; a damaged file is replaced."""
        try:
            with np.load(self.path, allow_pickle=False) as kept:
                identity = json.loads(str(kept["identity"]))
                names = [name for name in self.identity if identity.get(name) != json.loads(json.dumps(self.identity[name]))]
        except (OSError, ValueError, KeyError, EOFError, AttributeError, NotImplementedError, zipfile.BadZipFile):
            return
        if names:
            raise StaleOutputError(
                f"{self.path} is from a pass with another {', '.join(names)}; remove that file, or choose another output"
            )

    def save(self, totals: Totals, done: npt.NDArray[np.bool_]) -> None:
        """Replace the file, unless it was just written."""
        started = time.monotonic()
        if started < self._next:
            return
        arrays = {f"found{number}": array for number, array in enumerate(totals.found)}
        arrays |= {f"near{number}": array for number, array in enumerate(totals.near)}
        for number, places in enumerate(totals.places):
            arrays |= {f"order{number}": places.order, f"places{number}": places.rest}
        with self._parts.writing(self.path.name) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                identity=np.array(json.dumps(self.identity)),
                frequencies=totals.frequencies,
                large_ids=totals.large.ids,
                large_counts=totals.large.counts,
                read=np.array([totals.tokens, totals.sequences]),
                done=done,
                sources=np.array(json.dumps(sorted(totals.sources.items()))),
                **arrays,  # type: ignore[arg-type]
            )
        self._next = time.monotonic() + max(self.seconds, self.SHARE * (time.monotonic() - started))

    def remove(self) -> None:
        """Delete the file once the pass is finished."""
        self._parts.remove(self.path.name)
