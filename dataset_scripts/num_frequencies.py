"""Build a dataset like `usvsnsp/deduped-num-frequencies`: token frequencies, of memorized sequences and of all others.

    python dataset_scripts/num_frequencies.py CORPUS... --memorized MEMORIZED --output FOLDER
        [--sequence-length 2049 --dtype uint16] [--vocabulary-size 50277] [--push ORG/NAME [--dry-run]]

MEMORIZED is a dataset of the ids of memorized sequences (`sequence_id` or `index`), such as
`EleutherAI/pythia-memorized-evals::deduped.12b`; with a column `is_memorized`, its true rows. A killed run resumes.
"""

import argparse
import sys
from pathlib import Path

import pyarrow.parquet as pq

from memtax.counting.count_tables import SUMMED_SPLITS
from memtax.jobs import presets
from memtax.published.layouts import FREQUENCIES
from memtax.published.writing import renamed, write_splits

OPTIONS = {**presets.CORPUS, "--memorized": {"required": True}, "--vocabulary-size": {"type": int}}


def build(arguments: argparse.Namespace) -> Path:
    """Count, and write the dataset; the path of its folder."""
    counts, dataset = Path(arguments.output) / "counts", Path(arguments.output) / "dataset"
    totals = presets.count(arguments, counts, arguments.vocabulary_size, sequences=(), memorized=arguments.memorized)
    facts = {"corpus": f"{totals['tokens']:,} tokens in {totals['sequences']:,} sequences"}
    tables = {split: pq.read_table(counts / f"{split}_frequencies.parquet") for split in SUMMED_SPLITS}
    splits = {split: renamed(table, FREQUENCIES) for split, table in tables.items()}
    write_splits(dataset, FREQUENCIES, splits, "Token frequencies", facts)
    return dataset


if __name__ == "__main__":
    sys.exit(presets.start(__doc__, OPTIONS, build))
