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

from memtax.engine import World
from memtax.hub.folder import Config, write_dataset
from memtax.jobs import presets
from memtax.jobs.paraphrase import Paraphrase
from memtax.settings import from_values

PASSED_ON = {
    "column": str,
    "mode": str,
    "count": int,
    "repetition_penalty": float,
    "min_similarity": float,
    "dtype": str,
    "batch_size": int,
}
"""Options that are passed on to `memtax paraphrase`, where they are given."""
OPTIONS = {
    "data": {},
    "--model": {"required": True},
    "--prompts": {"action": "append", "help": "a family or a file of templates; may be given again"},
    **{f"--{name.replace('_', '-')}": {"type": kind} for name, kind in PASSED_ON.items()},
    "--title": {"default": "Paraphrases"},
    "--license": {"help": "the Hub's identifier of the texts' license"},
}
ROW = "One row per text: its paraphrases, and why those that are null failed."


def build(arguments: argparse.Namespace) -> Path:
    """Paraphrase the texts with each family of prompts and write the dataset's folder."""
    output = Path(arguments.output)
    given = {name: value for name in PASSED_ON if (value := getattr(arguments, name)) is not None}
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


if __name__ == "__main__":
    sys.exit(presets.start(__doc__, OPTIONS, build))
