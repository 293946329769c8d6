"""Build a dataset like `usvsnsp/pile-pythia-code-vs-nl-scores`: P(natural language) of every sequence.

    python dataset_scripts/code_vs_nl_scores.py SEQUENCES --output FOLDER [--model M] [--tokenizer T] [--push ORG/NAME]

Sequences are any dataset with `sequence_id` and `text` (or `tokens` and a tokenizer). Under `accelerate launch` (GPUs) or
`torchrun` (CPUs) the work is shared among the processes; a second run goes on where the first one stopped.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from memtax import schema
from memtax.corpus.sources import Source, open_dataset
from memtax.engine import World, run
from memtax.errors import MemtaxError
from memtax.filters.code_vs_nl import CodeFilter
from memtax.hub.folder import Config, write_dataset
from memtax.hub.publish import publish
from memtax.lm.loading import load_tokenizer

ROWS_PER_BATCH = 1024


def read(source: str, tokenizer: str | None) -> Any:
    """Sequences with `sequence_id` and `text` under our names.

    Raises:
        MemtaxError: a column is missing, or tokens cannot be decoded for want of a tokenizer.
    """
    dataset: Any = open_dataset(Source.parse(source))
    dataset = dataset.rename_columns(dict(schema.rename_published(dataset.column_names)))
    schema.require(dataset.column_names, ("sequence_id",), source)
    if "text" in dataset.column_names:
        return dataset
    schema.require(dataset.column_names, ("tokens",), f"{source}, which has no text,")
    if tokenizer is None:
        raise MemtaxError(f"{source} has tokens without their text; name the model's tokenizer with --tokenizer")
    loaded = load_tokenizer(tokenizer)
    return dataset.map(lambda batch: {"text": loaded.batch_decode(batch["tokens"])}, batched=True)


def build(arguments: argparse.Namespace) -> Path:
    """Score, write the dataset; the path of its folder."""
    output = Path(arguments.output)
    dataset = read(arguments.sequences, arguments.tokenizer)
    each = CodeFilter(arguments.model, verdict=True)
    table = run(dataset, each, output / "stages" / each.name, ROWS_PER_BATCH)
    world = World.current()
    if world.is_main:
        row = f"One row a sequence: natural language from {each.natural_language_from} on, code up to {each.code_to}."
        summary = {"sequences": arguments.sequences, "classifier": arguments.model}
        write_dataset(output / "dataset", [Config("scores", row, {"train": table})], "Code or natural language", summary)
        if arguments.push:
            for line in publish(output / "dataset", arguments.push, dry_run=arguments.dry_run):
                print(line)
    world.wait()
    return output / "dataset"


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sequences", help="dataset as path:config:split")
    parser.add_argument("--output", required=True, help="folder for the stages and the dataset")
    parser.add_argument("--model", default=CodeFilter.model, help="classifier of code and natural language")
    parser.add_argument("--tokenizer", help="of the language model, to decode tokens")
    parser.add_argument("--push", metavar="ORG/NAME", help="upload the dataset to the Hub")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be uploaded")
    try:
        print(build(parser.parse_args(arguments)))
    except MemtaxError as error:
        print(f"code_vs_nl_scores: {error}", file=sys.stderr)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
