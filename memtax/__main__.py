"""`python -m memtax` is the `memtax` command."""

import os
import signal
from types import FrameType


def _at_once(number: int, frame: FrameType | None) -> None:
    # During the command's own import nothing has started yet, and exceptions may be lost.
    os.write(2, b"\nmemtax: stopped before anything began\n")
    os._exit(128 + number)


def main() -> None:
    """Run the command, with signals that end it in one line from the start."""
    signal.signal(signal.SIGTERM, _at_once)
    # Shells start background jobs with SIGINT ignored.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _at_once)
    from memtax import cli

    cli.main()


if __name__ == "__main__":
    main()
