"""Build a dataset like `usvsnsp/pile-pythia-code-vs-nl-scores`: P(natural language) of every sequence.

    python dataset_scripts/code_vs_nl_scores.py SEQUENCES --output FOLDER [--model M] [--tokenizer T]
        [--published deduped] [--push ORG/NAME]

Sequences are any dataset with `sequence_id` and `text` (or `tokens` and a tokenizer). With `--published SPLIT` the
dataset has the published columns; run it once for each split, with the same output. Under `accelerate launch` (GPUs) or
`torchrun` (CPUs) the work is shared among the processes; a second run resumes where the first one stopped.
"""

import argparse
import sys
from pathlib import Path

from memtax.corpus.rows import load_texts_by_id
from memtax.engine import World, run, script
from memtax.filters.code_vs_nl import CodeFilter
from memtax.hub.folder import Config, write_dataset
from memtax.lm.loading import load_tokenizer
from memtax.published.layouts import CODE_SCORES, check_name
from memtax.published.writing import renamed, write_splits

ROWS_PER_BATCH = 1024


def build(arguments: argparse.Namespace) -> Path:
    """Score, write the dataset; the path of its folder."""
    output = Path(arguments.output)
    if arguments.published:
        check_name(arguments.published, "deduped")
    stages = output / "stages" / (arguments.published or "")
    tokenizer = load_tokenizer(arguments.tokenizer) if arguments.tokenizer else None
    dataset = load_texts_by_id(arguments.sequences, tokenizer)
    each = CodeFilter(arguments.model, verdict=True)
    table = run(dataset, each, stages / each.name, ROWS_PER_BATCH)
    world = World.current()
    if world.is_main:
        summary = {"sequences": arguments.sequences, "classifier": arguments.model}
        row = "One row per sequence: the probability of natural language."
        if each.thresholds is not None:
            row = f"{row[:-1]}; code up to {each.thresholds[0]:.3f}, natural language from {each.thresholds[1]:.3f}."
        if arguments.published:
            scores = renamed(table, CODE_SCORES)
            write_splits(output / "dataset", CODE_SCORES, {arguments.published: scores}, "Code or natural language", summary)
        else:
            write_dataset(output / "dataset", [Config("scores", row, {"train": table})], "Code or natural language", summary)
    world.wait()
    return output / "dataset"


def main(line: list[str] | None = None) -> int:
    """Parse the command line, build, and push if that was asked for."""
    parser = script.parser(__doc__)
    parser.add_argument("sequences", help="dataset as path:config:split")
    parser.add_argument("--model", default=CodeFilter.model, help="classifier of code and natural language")
    parser.add_argument("--tokenizer", help="of the language model, to decode tokens")
    parser.add_argument("--published", metavar="SPLIT", help="in the published layout, as this split: deduped")
    return script.start(parser, build, line)


if __name__ == "__main__":
    sys.exit(main())
