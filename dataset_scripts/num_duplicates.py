"""Build a dataset like `usvsnsp/generation-num-duplicates`: how often each sequence's continuation occurs in the corpus.

    python dataset_scripts/num_duplicates.py CORPUS... --split deduped --output FOLDER [--sequences SEQUENCES]
        [--window 32:64] [--sequence-length 2049 --dtype uint16] [--push ORG/NAME [--dry-run]]

Run it once for each corpus (`--split duped`, `--split deduped`) with the same output: all finished splits are in the dataset.
A killed run resumes where it stopped.
"""

import argparse
import sys
from pathlib import Path

import pyarrow.parquet as pq

from memtax.counting.spans import Span
from memtax.errors import MemtaxError
from memtax.jobs import presets
from memtax.published.layouts import DUPLICATES
from memtax.published.writing import renamed, write_splits
from memtax.record_shapes import TOTALS
from memtax.records import read_json

OPTIONS = {
    **presets.CORPUS,
    "--split": {"required": True},
    "--sequences": {"action": "append", "help": "where windows are cut from; the corpus itself if not given"},
    "--window": {"default": "32:64"},
}


def build(arguments: argparse.Namespace) -> Path:
    """Count one split and write the dataset of all finished ones; the path of its folder."""
    if not arguments.split.replace("_", "").isalnum():
        raise MemtaxError(f"the split {arguments.split!r} must be letters, digits and underscores")
    output = Path(arguments.output)
    sequences = tuple(arguments.sequences) if arguments.sequences else None
    presets.count(arguments, output / "counts" / arguments.split, sequences=sequences, spans=(Span.parse(arguments.window),))
    for folder in sorted(path.parent for path in output.glob("counts/*/totals.json")):
        totals = read_json(folder / "totals.json", TOTALS)
        split = renamed(pq.read_table(folder / "num_duplicates.parquet"), DUPLICATES)
        facts = {
            "window": f"tokens {arguments.window} of each sequence",
            "corpus": f"{totals['tokens']:,} tokens in {totals['sequences']:,} sequences",
        }
        write_splits(output / "dataset", DUPLICATES, {folder.name: split}, "Duplicates of continuations", facts)
    return output / "dataset"


if __name__ == "__main__":
    sys.exit(presets.start(__doc__, OPTIONS, build))
