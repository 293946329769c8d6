"""Error handling of the scripts in `training/`: errors are one line."""

import sys
from collections.abc import Callable

from memtax import outputs
from memtax.errors import MemtaxError
from memtax.files import system_error


def run_training(name: str, run: Callable[[], object]) -> None:
    """Run a training script; user and system errors become one line.

    Args:
        name: name of the script, used in that line.
        run: parses the command line and trains.

    Raises:
        SystemExit: with status 2 after an error, and 130 after an interruption.
    """
    try:
        with outputs.holding():
            run()
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted; resume with --resume_from_checkpoint True", file=sys.stderr)  # noqa: T201
        raise SystemExit(130) from None
    except Exception as error:
        number = system_error(error)
        if not isinstance(error, MemtaxError) and number is None:
            raise
        print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from error
