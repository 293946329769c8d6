"""`memtax score`: the forward pass over any sequences, without the rest of a run."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memtax import schema, statistics
from memtax.checksums import seal
from memtax.corpus.rows import holds_text, load_documents, load_rows
from memtax.corpus.sources import Source
from memtax.engine import World
from memtax.engine import run as run_stage
from memtax.files import write_json, write_parquet
from memtax.filters.scores import LanguageModelFilter
from memtax.lm import extraction
from memtax.lm.loading import check_model, load_tokenizer, vocabulary_size
from memtax.lm.special_tokens import bos_ids
from memtax.pipeline.stages import on_main
from memtax.progress import silence_libraries
from memtax.provenance import fingerprint_path, write_record
from memtax.taxonomy.reference import beyond_reference

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_BATCH = 512
"""Rows a call of the filter, whatever the number of processes."""
PARTS = 64
"""Parts are as large as leaves about this many: few rows are shared among processes too, and a kill loses little."""

SAMPLES = (1, 10, 100, 1000, 10_000)
PROBABILITIES = (0.1, 0.5, 0.9, 0.99)
"""The grid of (n, p) in the summary."""


@dataclass(frozen=True)
class ScoreResult:
    """Where the table is, and the figures of `summary.json`.

    Attributes:
        output: the directory.
        table: Parquet with one row a sequence.
        summary: the contents of `summary.json`.
    """

    output: Path
    table: Path
    summary: Mapping[str, Any]

    def lines(self) -> list[str]:
        """A line a window, the comparison with the reference, and the paths; none on processes other than the main."""
        if not World.current().is_main:
            return []
        found = []
        for row in self.summary.get("thresholds", ()):
            share, coverage = (
                f"{row[name]['value']:.2%} ({row[name]['low']:.2%} to {row[name]['high']:.2%})"
                for name in ("share", "coverage")
            )
            found.append(f"p_z >= {row['threshold']}: {share} of the windows, {coverage} of the tokens")
        for row in self.summary.get("extraction", ()):
            share = "" if row["rate"] is None else f", {row['rate']:.2%} ({_interval(row)})"
            what = f"prompt {row['prompt']}, continuation {row['continuation']}"
            found.append(f"{what}: {row['memorized']:,} of {row['sequences']:,} memorized{share}")
        if beyond := self.summary.get("reference"):
            found.append(f"of {beyond['model_memorized']:,} memorized, the reference model completes {beyond['predictable']:,}")
        where = ("summary.json", "report/index.html")
        found += [
            f"{name.partition('.')[0].partition('/')[0]:9}{self.output / name}"
            for name in where
            if (self.output / name).exists()
        ]
        return [*found, f"table    {self.table}"]


def score_sequences(
    source: Source,
    scores: LanguageModelFilter,
    output: Path | str,
    *,
    reference: LanguageModelFilter | None = None,
    tokenizer: str | None = None,
    length: int | None = None,
) -> ScoreResult:
    """Score the rows of a source; finished parts in `output` are reused.

    Under `accelerate launch` or `torchrun` the parts are shared among the processes, with the same bytes as from one.

    Args:
        source: tokens, or text for which the tokenizer is needed.
        scores: model and what to compute.
        output: the directory: `parts/`, `scores.parquet`, `summary.json`, `run.yaml`.
        reference: a model that was not trained on the sequences, for `is_memorized_by_reference`.
        tokenizer: folder or Hub name; None takes the model's. Token columns need none.
        length: most tokens of a row that are read; None reads as many as the prompts and continuations cover.

    Raises:
        MemtaxError: an input cannot be used.
        StaleOutputError: the output holds parts of another input or of other settings.
    """
    silence_libraries()
    world = World.current()
    output = Path(output)
    opening = bos_ids(scores.model, scores.revision, scores.bos, tokenizer)
    # One tokenizer made the tokens, and says for both models what comes before them.
    scores = replace(scores, bos=opening)
    reference = reference and replace(reference, bos=opening)
    for each in (scores, *([reference] if reference else [])):
        check_model(each.model, each.revision, length or _reach(scores), len(opening))
    reader = None
    if holds_text(source):
        reader = load_tokenizer(tokenizer or scores.model, None if tokenizer else scores.revision)
    known = vocabulary_size(scores.model, scores.revision)
    rows = load_rows(source, length=length or _reach(scores), tokenizer=reader, vocabulary_size=known, bos=opening)
    table = run_stage(rows, scores, output / "parts", ROWS_PER_BATCH, per_shard(len(rows)))
    if reference is not None:
        theirs = run_stage(rows, reference, output / "reference", ROWS_PER_BATCH, per_shard(len(rows)))
        table = table.append_column("is_memorized_by_reference", theirs.column("is_memorized"))
    sequences = rows.with_format("arrow")[:]
    if (documents := load_documents(source, len(rows))) is not None:
        table, sequences = (each.append_column("document", documents) for each in (table, sequences))
    summary = summarize(table, scores, statistics.Units.of_table(sequences))

    def write() -> None:
        checked = schema.validate(table, table.column_names, "the scores")
        write_parquet(output / "scores.parquet", checked.cast(schema.features(table.column_names).arrow_schema))
        write_json(output / "summary.json", summary)
        inputs = {"sequences": fingerprint_path(source.path), "model": scores.fingerprint}
        config = {"sequences": source.label, **asdict(scores), "length": length}
        config |= {"windows": [list(window) for window in scores.windows], "reference": reference and reference.model}
        config["bos"] = list(opening)
        write_record(output / "run.yaml", "score", config, inputs)
        seal(output, "the same memtax score command", scores.fingerprint, ("scores.parquet", "summary.json", "run.yaml"))

    on_main(world, write)
    world.wait()
    return ScoreResult(output, output / "scores.parquet", summary)


def per_shard(rows: int) -> int:
    """Batches a part, decided by the number of rows alone."""
    return min(max(rows // (ROWS_PER_BATCH * PARTS), 1), 32)


def summarize(table: "pa.Table", scores: LanguageModelFilter, units: statistics.Units | None = None) -> dict[str, Any]:
    """Memorized shares with intervals for each window, nulls with their reasons, and rates over a grid of (n, p).

    Args:
        table: the scores.
        scores: what computed them.
        units: of the rows; None: each is its own.
    """
    units = units or statistics.Units.of_rows(table.num_rows)
    windows = []
    for number, window in enumerate(scores.all_windows):
        name = "is_memorized" + (extraction.suffix(window) if number else "")
        values = table.column(name).to_pylist()
        known = np.array([value is not None for value in values], bool)
        memorized = np.array([value for value in values if value is not None], bool)
        windows.append({"prompt": window[0], "continuation": window[1], **statistics.share(memorized, units[known])})
    found: dict[str, Any] = {
        "model": scores.model,
        "bos": list(scores.opening),
        "sequences": table.num_rows,
        "extraction": windows,
    }
    if "is_memorized_by_reference" in table.column_names:
        found["reference"] = beyond_reference(
            table.column("is_memorized").to_pylist(), table.column("is_memorized_by_reference").to_pylist(), units=units
        )
    name = "decoding_logprob" if "decoding_logprob" in table.column_names else "continuation_logprob"
    if name in table.column_names:
        found["discoverable"] = extraction.discoverable(table.column(name).to_pylist(), SAMPLES, PROBABILITIES, units)
    nulls = {name: table.column(name).null_count for name in table.column_names if table.column(name).null_count}
    found["nulls"] = {name: {"rows": count, "reason": schema.column(name).null} for name, count in nulls.items()}
    return found


def _interval(row: Mapping[str, Any]) -> str:
    if row["low"] is None:
        return f"interval withheld: {row['reason']}"
    return f"{row['low']:.2%} to {row['high']:.2%}, over {row['units']:,} {row['unit']}s"


def _reach(scores: LanguageModelFilter) -> int:
    """Tokens that the longest window covers."""
    return max(prompt + continuation for prompt, continuation in scores.all_windows)
