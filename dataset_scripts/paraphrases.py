"""Build a dataset of texts and their paraphrases, with a card, and publish it on request.

    python dataset_scripts/paraphrases.py DATA --model Qwen/Qwen2.5-1.5B-Instruct --output OUT \
        --prompts near_duplicate --prompts syntactic_rewrite [--push org/name [--dry-run]]

DATA is what `memtax paraphrase` reads: a folder with a file of members and one of non-members for each domain, MIMIR, TOFU
(`locuslab/TOFU:full --column question,answer`), WikiMIA, or any text column. `OUT/dataset` is a dataset repository with one
split a family of prompts; every other option is passed on to the paraphraser. Run again, it goes on where it stopped.
"""

import argparse
import sys
from pathlib import Path

from memtax.corpus.membership import load_texts
from memtax.engine import World, script
from memtax.hub.folder import Config, write_dataset
from memtax.leakage.paraphrase import MODES, Paraphraser, paraphrase
from memtax.lm.loading import split_revision

ROW = "One row a text: its paraphrases, and why those that are null failed."


def build(arguments: argparse.Namespace) -> Path:
    """Paraphrase the texts with each family of prompts and write the dataset's folder."""
    texts = load_texts(arguments.data, column=arguments.column)
    name, revision = split_revision(arguments.model)
    output = Path(arguments.output)
    splits, summary = {}, {"texts": arguments.data, "paraphraser": arguments.model, "mode": arguments.mode}
    for prompts in arguments.prompts or ["near_duplicate", "syntactic_rewrite"]:
        family = Path(prompts).stem
        paraphraser = Paraphraser(
            name,
            revision,
            prompts=prompts,
            mode=arguments.mode,
            count=arguments.count,
            repetition_penalty=arguments.repetition_penalty,
            min_similarity=arguments.min_similarity,
            dtype=arguments.dtype,
            batch_size=arguments.batch_size,
        )
        made = paraphrase(texts, paraphraser, output / family, arguments.data)
        for line in made.lines():
            print(line)
        splits[family] = made.table
        summary[f"valid ({family})"] = f"{made.summary['valid']:,} of {made.summary['asked']:,}"
    if World.current().is_main:
        write_dataset(output / "dataset", [Config("paraphrases", ROW, splits)], arguments.title, summary, arguments.license)
    return output / "dataset"


def main(line: list[str] | None = None) -> int:
    """Parse the command line, build, and push if that was asked for."""
    parser = script.parser(__doc__)
    parser.add_argument("data")
    parser.add_argument("--model", required=True)
    parser.add_argument("--column")
    parser.add_argument("--prompts", action="append", help="a family or a file of templates; may be given again")
    parser.add_argument("--mode", default=MODES[0], choices=MODES)
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--repetition-penalty", type=float, default=1.05)
    parser.add_argument("--min-similarity", type=float)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--title", default="Paraphrases")
    parser.add_argument("--license", help="the Hub's identifier of the texts' license")
    return script.start(parser, build, line)


if __name__ == "__main__":
    sys.exit(main())
