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

from memtax.corpus.rows import load_texts_by_id
from memtax.corpus.sources import Source, open_dataset
from memtax.counting.count_tables import location
from memtax.engine import World, run, script
from memtax.errors import MemtaxError
from memtax.filters import Filter, filter_class
from memtax.hub.folder import Config, write_dataset
from memtax.lm.loading import load_tokenizer
from memtax.published.layouts import FILTERS, check_name
from memtax.published.writing import to_published, write_splits

ROWS_PER_BATCH = 1024
PERPLEXITIES = ("prompt_perplexity", "continuation_perplexity", "sequence_perplexity", "is_memorized", "memorization_score")


def chosen(arguments: argparse.Namespace) -> list[Filter]:
    """The filters whose tables were named, and those that need none."""
    tables = {
        "duplicates": ("counts", arguments.duplicates),
        "token_frequencies": ("frequencies", arguments.frequencies),
        "semantic_matches": ("sample", arguments.semantic),
        "textual_matches": ("sample", arguments.textual),
        "code_vs_nl": ("scores", arguments.code_scores),
    }
    found = [filter_class(name)() for name in ("templates", "compressibility")]
    return found + [filter_class(name)(**{field: table}) for name, (field, table) in tables.items() if table]


def build(arguments: argparse.Namespace) -> Path:
    """Look up and compute, write the dataset; the path of its folder."""
    import pyarrow as pa

    output = Path(arguments.output)
    if arguments.published:
        check_name(arguments.published, "pile_deduped_12b")
    stages = output / "stages" / (arguments.published or "")
    tokenizer = load_tokenizer(arguments.tokenizer) if arguments.tokenizer else None
    dataset = load_texts_by_id(arguments.sequences, tokenizer)
    if "prompt_text" not in dataset.column_names:
        # Finished counts are looked up by id; the prompt is not read then.
        dataset = dataset.add_column("prompt_text", [None] * len(dataset))
    columns = {name: dataset.with_format("arrow")[:].column(name) for name in ("sequence_id", "tokens", "text")
               if name in dataset.column_names}  # fmt: skip
    for each in chosen(arguments):
        added = run(dataset, each, stages / each.name, ROWS_PER_BATCH)
        columns |= {name: added.column(name) for name in each.columns}
    if arguments.perplexities:
        columns |= _scores(arguments.perplexities, columns["sequence_id"].to_pylist())
    world = World.current()
    if world.is_main:
        row = "One row per sequence: its tokens and text, and its factors."
        summary = {"sequences": arguments.sequences}
        tables = ("duplicates", "frequencies", "semantic", "textual", "code_scores", "perplexities")
        summary |= {name: location(getattr(arguments, name)) for name in tables if getattr(arguments, name)}
        table = pa.table(columns)
        if arguments.published:
            split = to_published(table, in_sample=arguments.published.startswith("pile_"))
            write_splits(output / "dataset", FILTERS, {arguments.published: split}, "Semantic filters", summary)
        else:
            write_dataset(output / "dataset", [Config("filters", row, {"train": table})], "Semantic filters", summary)
    world.wait()
    return output / "dataset"


def _scores(source: str, ids: list[int]) -> "dict[str, list[object]]":
    """Scores of a model by sequence, None where the table lacks a sequence."""
    dataset = open_dataset(Source.parse(source))
    names = [name for name in PERPLEXITIES if name in dataset.column_names]
    if "sequence_id" not in dataset.column_names or not names:
        raise MemtaxError(f"{source} has no sequence_id, or none of {', '.join(PERPLEXITIES)}")
    rows = dataset.select_columns(["sequence_id", *names]).with_format("arrow")[:].to_pydict()
    at = {sequence: row for row, sequence in enumerate(rows["sequence_id"])}
    return {name: [rows[name][at[each]] if each in at else None for each in ids] for name in names}


def main(line: list[str] | None = None) -> int:
    """Parse the command line, build, and push if that was asked for."""
    parser = script.parser(__doc__)
    parser.add_argument("sequences", help="dataset as path:config:split")
    parser.add_argument("--duplicates", help="table of duplicate counts")
    parser.add_argument("--frequencies", help="table of token frequencies")
    parser.add_argument("--semantic", help="table of semantic matches")
    parser.add_argument("--textual", help="table of textual matches")
    parser.add_argument("--code-scores", help="table of nl_score")
    parser.add_argument("--perplexities", help="table of a model's scores")
    parser.add_argument("--tokenizer", help="of the language model, to decode tokens")
    parser.add_argument("--published", metavar="SPLIT", help="in the published layout, as pile_SCHEME_MODEL or memories_...")
    return script.start(parser, build, line)


if __name__ == "__main__":
    sys.exit(main())
