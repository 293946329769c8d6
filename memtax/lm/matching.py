"""Position-by-position comparison of generated and true tokens."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from memtax.errors import MemtaxError


def matches(
    generated: Sequence[Sequence[int]], true: Sequence[Sequence[int]], tokens: int | None = None
) -> list[npt.NDArray[np.bool_]]:
    """Whether each generated token equals the true one.

    A generation that stopped early does not match beyond its end; tokens beyond the end of the true continuation are ignored.

    Args:
        generated: token ids, one list per sequence.
        true: token ids of the true continuations.
        tokens: compare only this many leading tokens, which every true continuation must have. None: all of them.

    Returns:
        One array per sequence, with the length of its true continuation (or `tokens`).

    Raises:
        MemtaxError: the numbers of lists differ, or a continuation is empty or too short.
    """
    if len(generated) != len(true):
        raise MemtaxError(f"{len(generated)} generations for {len(true)} continuations; one each is needed")
    if tokens is not None and tokens < 1:
        raise MemtaxError(f"at least 1 token must be compared, got {tokens}")
    found = []
    for row, (one, other) in enumerate(zip(generated, true, strict=True)):
        needed = len(other) if tokens is None else tokens
        if not needed or len(other) < needed:
            raise MemtaxError(f"the continuation in row {row} has {len(other)} tokens; {max(needed, 1)} are needed")
        match = np.zeros(needed, dtype=bool)
        reached = min(needed, len(one))
        match[:reached] = np.asarray(one[:reached], dtype=np.int64) == np.asarray(other[:reached], dtype=np.int64)
        found.append(match)
    return found
