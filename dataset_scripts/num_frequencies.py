"""Build a dataset like `usvsnsp/deduped-num-frequencies`: token frequencies, of memorized sequences and of all others.

    python dataset_scripts/num_frequencies.py CORPUS... --memorized MEMORIZED --output FOLDER
        [--sequence-length 2049 --dtype uint16] [--vocabulary-size 50277] [--push ORG/NAME [--dry-run]]

MEMORIZED is a dataset of the ids of memorized sequences (`sequence_id` or `index`), such as
`EleutherAI/pythia-memorized-evals::deduped.12b`; with a column `is_memorized`, its true rows. A killed run goes on.
"""

import argparse
import sys
from pathlib import Path

import pyarrow.parquet as pq

from memtax.corpus.job import CountJob
from memtax.corpus.opening import Reading
from memtax.corpus.publish import FREQUENCIES, write_published
from memtax.corpus.tables import SUMMED_SPLITS
from memtax.errors import MemtaxError
from memtax.hub.publish import publish


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
    facts = {
        "corpus": f"{totals['tokens']:,} tokens in {totals['sequences']:,} sequences",
        "frequency in the corpus": "the sum of both splits",
    }
    splits = {split: pq.read_table(output / "counts" / f"{split}_frequencies.parquet") for split in SUMMED_SPLITS}
    write_published(output / "dataset", splits, FREQUENCIES, "Token frequencies", facts)
    return output / "dataset"


def main() -> int:
    """Parse, build, push."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="+")
    parser.add_argument("--memorized", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--column")
    parser.add_argument("--vocabulary-size", type=int)
    parser.add_argument("--sequence-length", type=int)
    parser.add_argument("--dtype", default="uint16")
    parser.add_argument("--streaming", action="store_true")
    parser.add_argument("--engine", default="local")
    parser.add_argument("--master")
    parser.add_argument("--push", metavar="ORG/NAME", help="upload the dataset to the Hub")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be uploaded")
    arguments = parser.parse_args()
    try:
        folder = build(arguments)
        print(folder)
        if arguments.push:
            for line in publish(folder, arguments.push, dry_run=arguments.dry_run):
                print(line)
    except MemtaxError as error:
        print(f"num_frequencies: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
