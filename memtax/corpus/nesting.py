"""Nesting depth of JSON: unlimited nesting overflows the stack of a recursive reader and kills the process."""

from typing import Any

import numpy as np

from memtax.compiled import kernel

_QUOTE, _BACKSLASH, _NEWLINE = ord('"'), ord("\\"), ord("\n")
_OPEN, _CLOSE = (ord("["), ord("{")), (ord("]"), ord("}"))


class Nesting:
    """The maximum nesting depth of a JSON text that arrives in pieces."""

    def __init__(self) -> None:
        # Depth, whether inside a string, whether after a backslash, maximum depth.
        self._state = np.zeros(4, np.int64)

    def read(self, piece: bytes) -> int:
        """Read the next piece.

        Returns:
            The maximum depth so far.
        """
        _scan(np.frombuffer(piece, np.uint8), self._state)
        return int(self._state[3])


@kernel(allocates=False)
def _scan(data: Any, state: Any) -> None:
    depth, inside, escaped, deepest = state[0], state[1], state[2], state[3]
    for index in range(len(data)):
        byte = data[index]
        if byte == _NEWLINE:
            # No string continues after the end of a line, so an unclosed quote cannot hide nesting.
            inside = escaped = 0
        elif inside:
            if escaped:
                escaped = 0
            elif byte == _BACKSLASH:
                escaped = 1
            elif byte == _QUOTE:
                inside = 0
        elif byte == _QUOTE:
            inside = 1
        elif byte == _OPEN[0] or byte == _OPEN[1]:
            depth += 1
            deepest = max(deepest, depth)
        elif byte == _CLOSE[0] or byte == _CLOSE[1]:
            depth -= 1
    state[0], state[1], state[2], state[3] = depth, inside, escaped, deepest
