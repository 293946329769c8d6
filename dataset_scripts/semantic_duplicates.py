"""Build a dataset like `usvsnsp/semantic-duplicates`: semantic and textual matches of sequences within a sample of the corpus.

    python dataset_scripts/semantic_duplicates.py SEQUENCES --output FOLDER [--sample SAMPLE] [--tokenizer T]
        [--published deduped] [--push ORG/NAME]

Sequences are any dataset with `sequence_id`, `text` (or `tokens` and a tokenizer). Without `--sample` they are compared with
each other. With `--published NAME` the dataset has the published columns, in the splits `NAME_snowclones` and
`NAME_templates`; run it once for each name, with the same output. Under `accelerate launch` (GPUs) or `torchrun` (CPUs) the
stages are shared among the processes; a second run resumes where the first one stopped.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from memtax.corpus.rows import load_texts_by_id
from memtax.engine import World, once, run, script
from memtax.filters.embedding import EmbeddingFilter
from memtax.filters.semantic_matches import SemanticMatchFilter
from memtax.filters.textual_matches import TextualMatchFilter
from memtax.hub.folder import Config, write_dataset
from memtax.lm.encoder import DEFAULT_MODEL
from memtax.lm.loading import load_tokenizer
from memtax.provenance import fingerprint_dataset
from memtax.published.layouts import MATCHES, check_name
from memtax.published.writing import match_splits, write_splits

ROWS_PER_BATCH = 1024


def build(arguments: argparse.Namespace) -> Path:
    """Embed, compare, write the dataset; the path of its folder."""
    output = Path(arguments.output)
    if arguments.published:
        check_name(arguments.published, "deduped or deduped_12b")
    stages = output / "stages" / (arguments.published or "")
    tokenizer = load_tokenizer(arguments.tokenizer) if arguments.tokenizer else None
    embedding = EmbeddingFilter(arguments.model)

    def embedded(source: str, name: str) -> Any:
        dataset = load_texts_by_id(source, tokenizer, arguments.prompt)
        table = run(dataset, embedding, stages / f"{name}_embeddings", ROWS_PER_BATCH)
        narrow = dataset.select_columns(["sequence_id", "prompt_text"])
        return narrow.add_column("embedding", table.column("embedding").to_pylist(), feature=embedding.features["embedding"])

    sequences = embedded(arguments.sequences, "sequences")
    sample = embedded(arguments.sample, "sample") if arguments.sample else sequences
    world = World.current()
    if world.is_main:
        identity = {"stage": "sample", "version": 1, "rows": fingerprint_dataset(sample, sample.column_names)}
        once(stages / "sample", identity, lambda folder: sample.save_to_disk(folder / "rows"))
    world.wait()
    stored = str(stages / "sample" / "rows")
    table = None
    for each in (
        SemanticMatchFilter(stored, arguments.model, embedded=True),
        TextualMatchFilter(stored, arguments.model, embedded=True, ascii_only=arguments.ascii_only),
    ):
        added = run(sequences, each, stages / each.name, ROWS_PER_BATCH)
        table = added if table is None else table.append_column(added.field(1), added.column(1)).append_column(
            added.field(2), added.column(2)
        )  # fmt: skip
    if world.is_main:
        summary = {"sequences": arguments.sequences, "sample": arguments.sample or "the sequences", "encoder": arguments.model}
        row = "One row per sequence: how many of the sample say nearly the same, and how many of those begin nearly the same."
        if arguments.published:
            splits = match_splits(table, arguments.published)
            write_splits(output / "dataset", MATCHES, splits, "Semantic duplicates", summary)
        else:
            write_dataset(output / "dataset", [Config("matches", row, {"train": table})], "Semantic duplicates", summary)
    world.wait()
    return output / "dataset"


def main(line: list[str] | None = None) -> int:
    """Parse the command line, build, and push if that was asked for."""
    parser = script.parser(__doc__)
    parser.add_argument("sequences", help="dataset as path:config:split")
    parser.add_argument("--sample", help="dataset to compare with; default: the sequences themselves")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="sentence-transformers model")
    parser.add_argument("--tokenizer", help="of the language model, to decode tokens")
    parser.add_argument("--prompt", type=int, default=32, help="tokens of the prompt")
    parser.add_argument("--ascii-only", action="store_true", help="the reference's rule: other prompts count 0 textual matches")
    parser.add_argument("--published", metavar="NAME", help="in the published layout: a scheme (deduped), or scheme_model")
    return script.start(parser, build, line)


if __name__ == "__main__":
    sys.exit(main())
