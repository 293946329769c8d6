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

from memtax.engine import World, once
from memtax.filters.embedding import EmbeddingFilter
from memtax.filters.semantic_matches import SemanticMatchFilter
from memtax.filters.textual_matches import TextualMatchFilter
from memtax.hub.folder import Config
from memtax.jobs import presets
from memtax.lm.encoder import DEFAULT_MODEL
from memtax.provenance import fingerprint_dataset
from memtax.published.layouts import MATCHES
from memtax.published.writing import match_splits

OPTIONS = {
    **presets.TEXTS,
    "--sample": {"help": "dataset to compare with; default: the sequences themselves"},
    "--model": {"default": DEFAULT_MODEL, "help": "sentence-transformers model"},
    "--prompt": {"type": int, "default": 32, "help": "tokens of the prompt"},
    "--ascii-only": {"action": "store_true", "help": "the reference's rule: other prompts count 0 textual matches"},
}
ROW = "One row per sequence: how many of the sample say nearly the same, and how many of those begin nearly the same."


def build(arguments: argparse.Namespace) -> Path:
    """Embed, compare, write the dataset; the path of its folder."""
    texts = presets.Texts(arguments, "deduped or deduped_12b")
    embedding = EmbeddingFilter(arguments.model)

    def embedded(source: str, name: str) -> Any:
        rows = texts.load(source, arguments.prompt)
        values = texts.add(rows, embedding, f"{name}_embeddings").column("embedding").to_pylist()
        narrow = rows.select_columns(["sequence_id", "prompt_text"])
        return narrow.add_column("embedding", values, feature=embedding.features["embedding"])

    sequences = embedded(arguments.sequences, "sequences")
    sample = embedded(arguments.sample, "sample") if arguments.sample else sequences
    world = World.current()
    if world.is_main:
        identity = {"stage": "sample", "version": 1, "rows": fingerprint_dataset(sample, sample.column_names)}
        once(texts.stages / "sample", identity, lambda folder: sample.save_to_disk(folder / "rows"))
    world.wait()
    stored = str(texts.stages / "sample" / "rows")
    table = texts.add(sequences, SemanticMatchFilter(stored, arguments.model, embedded=True))
    textual = TextualMatchFilter(stored, arguments.model, embedded=True, ascii_only=arguments.ascii_only)
    for name, column in zip(textual.columns, texts.add(sequences, textual).columns[1:], strict=True):
        table = table.append_column(name, column)
    summary = {"sequences": arguments.sequences, "sample": arguments.sample or "the sequences", "encoder": arguments.model}
    own = Config("matches", ROW, {"train": table})
    return texts.write("Semantic duplicates", summary, own, MATCHES, lambda name: match_splits(table, name))


if __name__ == "__main__":
    sys.exit(presets.start(__doc__, OPTIONS, build))
