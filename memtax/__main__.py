"""`python -m memtax` is the `memtax` command."""

import os
import signal
from types import FrameType


def _at_once(number: int, frame: FrameType | None) -> None:
    # While the command itself is being imported nothing has begun, and exceptions may be lost.
    os.write(2, b"\nmemtax: stopped before anything began\n")
    os._exit(128 + number)


def main() -> None:
    """The command, with signals that end in one line from the first moment on."""
    signal.signal(signal.SIGTERM, _at_once)
    # A shell starts what runs in the background with SIGINT ignored.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _at_once)
    from memtax import cli

    cli.main()


if __name__ == "__main__":
    main()
