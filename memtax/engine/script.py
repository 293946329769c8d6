"""What the scripts in `dataset_scripts/` and `training/` share: output and upload, one push for all, errors in one line."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from memtax import outputs
from memtax.engine.world import World
from memtax.errors import MemtaxError
from memtax.files import system_error


def parser(documentation: str | None) -> argparse.ArgumentParser:
    """A parser with `--output`, `--push` and `--dry-run`.

    Args:
        documentation: the script's, which the help shows as it is.
    """
    found = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--output", required=True, help="folder for the stages and the dataset")
    found.add_argument("--push", metavar="ORG/NAME", help="upload the dataset to the Hub")
    found.add_argument("--dry-run", action="store_true", help="only say what would be uploaded")
    return found


def add_corpus_options(parser: argparse.ArgumentParser) -> None:
    """Options of a script that counts a corpus: what it is, how it is read, and where it is counted."""
    parser.add_argument("corpus", nargs="+")
    parser.add_argument("--column")
    parser.add_argument("--sequence-length", type=int)
    parser.add_argument("--dtype", default="uint16")
    parser.add_argument("--streaming", action="store_true")
    parser.add_argument("--engine", default="local")
    parser.add_argument("--master")


def start(
    options: argparse.ArgumentParser, build: Callable[[argparse.Namespace], Path], line: Sequence[str] | None = None
) -> int:
    """Parse, build the dataset, say where it is, and push it if that was asked for.

    Args:
        options: from `parser`.
        build: the script's work; gives the folder of the dataset, on every process.
        line: the command line; None takes the program's own.

    Returns:
        The exit status: 2 after an error of the user's, which is one line.
    """
    arguments = options.parse_args(line)
    try:
        folder = build(arguments)
        world = World.current()
        if world.is_main:
            print(folder)  # noqa: T201 - a command's result
            if arguments.push:
                from memtax.hub.publish import publish

                for done in publish(folder, arguments.push, dry_run=arguments.dry_run):
                    print(*done.lines(), sep="\n")  # noqa: T201
        world.wait()
    except MemtaxError as error:
        print(f"{Path(options.prog).stem}: {error}", file=sys.stderr)  # noqa: T201
        return 2
    return 0


def run_training(name: str, run: Callable[[], object]) -> None:
    """Run a training script; errors of the user's and of the system are one line.

    Args:
        name: of the script, as the line calls it.
        run: parses the command line and trains.

    Raises:
        SystemExit: with status 2, after an error, and 130 when it was interrupted.
    """
    try:
        with outputs.holding():
            run()
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted; --resume_from_checkpoint True goes on from the last checkpoint", file=sys.stderr)  # noqa: T201
        raise SystemExit(130) from None
    except Exception as error:
        number = system_error(error)
        if not isinstance(error, MemtaxError) and number is None:
            raise
        print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from error
