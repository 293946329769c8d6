"""Build a dataset like `usvsnsp/semantic-filters`: every factor of every sequence in one table, from tables made before.

    python dataset_scripts/semantic_filters.py SEQUENCES --output FOLDER [--duplicates T] [--frequencies T]
        [--semantic T] [--textual T] [--code-scores T] [--perplexities T] [--tokenizer T]
        [--published pile_deduped_12b] [--push ORG/NAME]

Each option takes a table of our own (a stage's folder, a dataset) or a published one, as path:config:split: duplicates
`usvsnsp/generation-num-duplicates::deduped`, semantic matches `usvsnsp/semantic-duplicates::deduped_snowclones`, code scores
`usvsnsp/pile-pythia-code-vs-nl-scores::deduped`, and so on. Templates and code lengths are computed here. With
`--published SPLIT` the dataset has the published columns; run it once for each split, with the same output.
"""

import argparse
import sys
from pathlib import Path

import pyarrow as pa

from memtax.corpus.sources import Source, open_dataset
from memtax.counting.count_tables import location
from memtax.errors import MemtaxError
from memtax.filters import filter_class
from memtax.hub.folder import Config
from memtax.jobs import presets
from memtax.published.layouts import FILTERS
from memtax.published.writing import to_published

PERPLEXITIES = ("prompt_perplexity", "continuation_perplexity", "sequence_perplexity", "is_memorized", "memorization_score")
TABLES = {
    "duplicates": ("duplicates", "counts", "table of duplicate counts"),
    "frequencies": ("token_frequencies", "frequencies", "table of token frequencies"),
    "semantic": ("semantic_matches", "sample", "table of semantic matches"),
    "textual": ("textual_matches", "sample", "table of textual matches"),
    "code_scores": ("code_vs_nl", "scores", "table of nl_score"),
}
"""Option to the filter that looks its table up, the filter's parameter, and the help."""
OPTIONS = {
    **presets.TEXTS,
    **{f"--{name.replace('_', '-')}": {"help": text} for name, (_, _, text) in TABLES.items()},
    "--perplexities": {"help": "table of a model's scores"},
}


def build(arguments: argparse.Namespace) -> Path:
    """Look up and compute, write the dataset; the path of its folder."""
    texts = presets.Texts(arguments, "pile_deduped_12b")
    dataset = texts.sequences
    if "prompt_text" not in dataset.column_names:
        # Finished counts are looked up by id; the prompt is not read then.
        dataset = dataset.add_column("prompt_text", [None] * len(dataset))
    filters = [filter_class(name)() for name in ("templates", "compressibility")]
    given = {name: table for name in (*TABLES, "perplexities") if (table := getattr(arguments, name))}
    filters += [filter_class(kind)(**{field: given[name]}) for name, (kind, field, _) in TABLES.items() if name in given]
    rows = dataset.with_format("arrow")[:]
    columns = {name: rows.column(name) for name in ("sequence_id", "tokens", "text") if name in rows.column_names}
    for each in filters:
        added = texts.add(dataset, each)
        columns |= {name: added.column(name) for name in each.columns}
    if arguments.perplexities:
        columns |= _scores(arguments.perplexities, columns["sequence_id"].to_pylist())
    table = pa.table(columns)
    own = Config("filters", "One row per sequence: its tokens and text, and its factors.", {"train": table})
    summary = {"sequences": arguments.sequences} | {name: location(source) for name, source in given.items()}
    return texts.write(
        "Semantic filters", summary, own, FILTERS, lambda name: {name: to_published(table, name.startswith("pile_"))}
    )


def _scores(source: str, ids: list[int]) -> "dict[str, list[object]]":
    """Scores of a model by sequence, None where the table lacks a sequence."""
    dataset = open_dataset(Source.parse(source))
    names = [name for name in PERPLEXITIES if name in dataset.column_names]
    if "sequence_id" not in dataset.column_names or not names:
        raise MemtaxError(f"{source} has no sequence_id, or none of {', '.join(PERPLEXITIES)}")
    rows = dataset.select_columns(["sequence_id", *names]).with_format("arrow")[:].to_pydict()
    at = {sequence: row for row, sequence in enumerate(rows["sequence_id"])}
    return {name: [rows[name][at[each]] if each in at else None for each in ids] for name in names}


if __name__ == "__main__":
    sys.exit(presets.start(__doc__, OPTIONS, build))
