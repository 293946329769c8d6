"""Build a dataset of texts and their paraphrases, with a card, and publish it on request.

    python dataset_scripts/paraphrases.py DATA --model Qwen/Qwen2.5-1.5B-Instruct --output OUT \
        --prompts near_duplicate --prompts syntactic_rewrite [--push org/name [--dry-run]]

DATA is what `memtax paraphrase` reads: a folder with a file of members and one of non-members for each domain, MIMIR, TOFU
(`locuslab/TOFU:full --column question,answer`), WikiMIA, or any text column. `OUT/dataset` is a dataset repository with one
split per family of prompts; every other option is passed on to the paraphraser. Run again, it resumes where it stopped.
"""

import argparse
import sys
from pathlib import Path

from memtax.engine import World, script
from memtax.hub.folder import Config, write_dataset
from memtax.jobs.paraphrase import Paraphrase
from memtax.settings import from_values

OPTIONS = {"column": str, "mode": str, "count": int, "repetition_penalty": float, "min_similarity": float, "dtype": str}
"""Options that are passed on to `memtax paraphrase`, where they are given."""
ROW = "One row per text: its paraphrases, and why those that are null failed."


def build(arguments: argparse.Namespace) -> Path:
    """Paraphrase the texts with each family of prompts and write the dataset's folder."""
    output = Path(arguments.output)
    given = {name: value for name in (*OPTIONS, "batch_size") if (value := getattr(arguments, name)) is not None}
    splits, summary = {}, {"texts": arguments.data, "paraphraser": arguments.model}
    for prompts in arguments.prompts or ["near_duplicate", "syntactic_rewrite"]:
        family = Path(prompts).stem
        values = {"data": arguments.data, "model": arguments.model, "prompts": prompts, "output": output / family, **given}
        done = from_values(Paraphrase, values).run()
        if World.current().is_main:
            print(*done.lines, sep="\n")
            splits[family] = done.table("paraphrases")
            summary[f"valid ({family})"] = f"{done.figures['valid']:,} of {done.figures['asked']:,}"
    if World.current().is_main:
        write_dataset(output / "dataset", [Config("paraphrases", ROW, splits)], arguments.title, summary, arguments.license)
    return output / "dataset"


def main(line: list[str] | None = None) -> int:
    """Parse the command line, build, and push if that was asked for."""
    parser = script.parser(__doc__)
    parser.add_argument("data")
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", action="append", help="a family or a file of templates; may be given again")
    for name, kind in (*OPTIONS.items(), ("batch_size", int)):
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind)
    parser.add_argument("--title", default="Paraphrases")
    parser.add_argument("--license", help="the Hub's identifier of the texts' license")
    return script.start(parser, build, line)


if __name__ == "__main__":
    sys.exit(main())
