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

from memtax.filters.code_vs_nl import CodeFilter
from memtax.hub.folder import Config
from memtax.jobs import presets
from memtax.published.layouts import CODE_SCORES
from memtax.published.writing import renamed

OPTIONS = {**presets.TEXTS, "--model": {"default": CodeFilter.model, "help": "classifier of code and natural language"}}


def build(arguments: argparse.Namespace) -> Path:
    """Score, write the dataset; the path of its folder."""
    texts = presets.Texts(arguments, "deduped")
    each = CodeFilter(arguments.model, verdict=True)
    table = texts.add(texts.sequences, each)
    row = "One row per sequence: the probability of natural language."
    if each.thresholds is not None:
        row = f"{row[:-1]}; code up to {each.thresholds[0]:.3f}, natural language from {each.thresholds[1]:.3f}."
    summary = {"sequences": arguments.sequences, "classifier": arguments.model}
    own = Config("scores", row, {"train": table})
    return texts.write("Code or natural language", summary, own, CODE_SCORES, lambda name: {name: renamed(table, CODE_SCORES)})


if __name__ == "__main__":
    sys.exit(presets.start(__doc__, OPTIONS, build))
