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

from memtax.corpus.opening import Reading
from memtax.counting.count_job import CountJob
from memtax.counting.count_tables import SUMMED_SPLITS
from memtax.engine import script
from memtax.published.layouts import FREQUENCIES
from memtax.published.writing import renamed, write_splits


def build(arguments: argparse.Namespace) -> Path:
    """Count, and write the dataset; the path of its folder."""
    output = Path(arguments.output)
    job = CountJob(
        tuple(arguments.corpus),
        sequences=(),
        reading=Reading(
            column=arguments.column,
            sequence_length=arguments.sequence_length,
            dtype=arguments.dtype,
            vocabulary_size=arguments.vocabulary_size,
            streaming=arguments.streaming,
        ),
        memorized=arguments.memorized,
        engine=arguments.engine,
        master=arguments.master,
    )
    totals = job.run(output / "counts")
    facts = {"corpus": f"{totals['tokens']:,} tokens in {totals['sequences']:,} sequences"}
    files = {split: output / "counts" / f"{split}_frequencies.parquet" for split in SUMMED_SPLITS}
    splits = {split: renamed(pq.read_table(path), FREQUENCIES) for split, path in files.items()}
    write_splits(output / "dataset", FREQUENCIES, splits, "Token frequencies", facts)
    return output / "dataset"


def main(line: list[str] | None = None) -> int:
    """Parse, build, push."""
    parser = script.parser(__doc__)
    script.add_corpus_options(parser)
    parser.add_argument("--memorized", required=True)
    parser.add_argument("--vocabulary-size", type=int)
    return script.start(parser, build, line)


if __name__ == "__main__":
    sys.exit(main())
