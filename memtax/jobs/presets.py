"""Shared code of the scripts in `dataset_scripts/`: options, counting and filtering, the published layout, and pushing."""

import argparse
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memtax.corpus.opening import Reading
from memtax.corpus.rows import load_texts_by_id
from memtax.counting.count_job import CountJob
from memtax.engine import World, run
from memtax.errors import MemtaxError
from memtax.hub.folder import Config, write_dataset
from memtax.lm.loading import load_tokenizer
from memtax.published.layouts import Layout, check_name
from memtax.published.writing import write_splits

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

    from memtax.filters import Filter

ROWS_PER_BATCH = 1024

Options = Mapping[str, Mapping[str, Any]]
"""Name of an argument or option to the arguments of `argparse.ArgumentParser.add_argument`."""
CORPUS: Options = {
    "corpus": {"nargs": "+"},
    "--column": {},
    "--sequence-length": {"type": int},
    "--dtype": {"default": "uint16"},
    "--streaming": {"action": "store_true"},
    "--engine": {"default": "local"},
    "--master": {},
}
"""Options of a script that counts a corpus: the corpus, how to read it, and where to count it."""
TEXTS: Options = {
    "sequences": {"help": "dataset as path:config:split"},
    "--tokenizer": {"help": "tokenizer of the language model, to decode tokens"},
    "--published": {"metavar": "NAME", "help": "write the published layout, as the split (or splits) of this name"},
}
"""Options of a script that filters the texts of sequences."""
_OUTPUT: Options = {
    "--output": {"required": True, "help": "folder for the stages and the dataset"},
    "--push": {"metavar": "ORG/NAME", "help": "upload the dataset to the Hub"},
    "--dry-run": {"action": "store_true", "help": "only show what would be uploaded"},
}


def start(
    documentation: str | None,
    options: Options,
    build: Callable[[argparse.Namespace], Path],
    line: Sequence[str] | None = None,
) -> int:
    """Parse the command line, build the dataset, print its folder, and push it if requested.

    Args:
        documentation: the script's docstring, shown unchanged in the help.
        options: the script's options, in addition to `--output`, `--push` and `--dry-run`.
        build: the script's work; returns the folder of the dataset, on every process.
        line: the command line; None takes the program's own.

    Returns:
        The exit status: 2 after a user error, which is one line.
    """
    parser = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, words in {**options, **_OUTPUT}.items():
        parser.add_argument(name, **words)
    arguments = parser.parse_args(line)
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
        print(f"{Path(parser.prog).stem}: {error}", file=sys.stderr)  # noqa: T201
        return 2
    return 0


def count(arguments: argparse.Namespace, folder: Path, vocabulary_size: int | None = None, **given: Any) -> dict[str, Any]:
    """Count a corpus into a folder; a killed count resumes.

    Args:
        arguments: values of the options `CORPUS`.
        folder: output folder of the counts.
        vocabulary_size: number of ids that are counted; None: found in the corpus.
        given: further fields of `CountJob`.

    Returns:
        The figures of `totals.json`.
    """
    reading = Reading(
        column=arguments.column,
        sequence_length=arguments.sequence_length,
        dtype=arguments.dtype,
        vocabulary_size=vocabulary_size,
        streaming=arguments.streaming,
    )
    where = {"engine": arguments.engine, "master": arguments.master}
    return CountJob(tuple(arguments.corpus), reading=reading, **where, **given).run(folder)


class Texts:
    """Sequences with their texts, filtered in stages that a second run reuses.

    Args:
        arguments: values of the options `TEXTS`.
        example: example of a name for `--published`.

    Raises:
        MemtaxError: the name for `--published` is invalid.
    """

    def __init__(self, arguments: argparse.Namespace, example: str) -> None:
        if arguments.published:
            check_name(arguments.published, example)
        self.arguments = arguments
        self.folder = Path(arguments.output) / "dataset"
        self.stages = Path(arguments.output) / "stages" / (arguments.published or "")

    @functools.cached_property
    def sequences(self) -> "datasets.Dataset":
        """Rows with `sequence_id` and `text`."""
        return self.load(self.arguments.sequences)

    def load(self, source: str, prompt: int | None = None) -> "datasets.Dataset":
        """See `memtax.corpus.rows.load_texts_by_id`."""
        name = self.arguments.tokenizer
        return load_texts_by_id(source, load_tokenizer(name) if name else None, prompt)

    def add(self, rows: "datasets.Dataset", each: "Filter", name: str | None = None) -> "pa.Table":
        """`sequence_id` and the columns of a filter, computed or from finished parts."""
        return run(rows, each, self.stages / (name or each.name), ROWS_PER_BATCH)

    def write(
        self,
        title: str,
        summary: Mapping[str, Any],
        table: Config,
        layout: Layout,
        published: Callable[[str], "Mapping[str, pa.Table]"],
    ) -> Path:
        """Write the dataset on the main process: the splits that `published` returns for the requested name, or `table`.

        Returns:
            The folder of the dataset.
        """
        world = World.current()
        if world.is_main:
            if name := self.arguments.published:
                write_splits(self.folder, layout, published(name), title, summary)
            else:
                write_dataset(self.folder, [table], title, summary)
        world.wait()
        return self.folder
