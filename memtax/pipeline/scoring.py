"""`memtax score`: the forward pass over any sequences, without the rest of a run."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from memtax import schema, statistics
from memtax.corpus.answers import holds_conversations, load_answers
from memtax.corpus.rows import holds_text, load_documents, load_rows
from memtax.corpus.sources import Source
from memtax.errors import MemtaxError
from memtax.filters.language_model import LanguageModelFilter
from memtax.lm import extraction, served_names
from memtax.lm.chats import positions_for_text, source_bos
from memtax.lm.loading import check_model, load_tokenizer, vocabulary_size
from memtax.lm.special_tokens import BosIds
from memtax.pipeline.beyond_reference import beyond_reference
from memtax.provenance import fingerprint_table

ROWS_PER_BATCH = 512
"""Rows per filter call, independent of the number of processes."""
PARTS = 64
"""Target number of parts: few rows can still be shared among processes, and little is lost when a run is killed."""

Stage = Callable[..., "pa.Table"]

SAMPLES = (1, 10, 100, 1000, 10_000)
PROBABILITIES = (0.1, 0.5, 0.9, 0.99)
"""The grid of (n, p) in the summary."""


def score_sequences(
    source: Source,
    scores: LanguageModelFilter,
    stage: Stage,
    *,
    reference: LanguageModelFilter | None = None,
    tokenizer: str | None = None,
    length: int | None = None,
) -> tuple[pa.Table, dict[str, Any], BosIds]:
    """Score the rows of a source.

    Args:
        source: tokens, or text, which needs the tokenizer.
        scores: model and columns to compute.
        stage: runs a filter over rows, given a folder name, rows per batch and batches per part; see
            `memtax.jobs.base.Work.stage`.
        reference: a model that was not trained on the sequences, for `is_memorized_by_reference`.
        tokenizer: folder or Hub name; None takes the model's. Not needed for token columns.
        length: maximum tokens read per row; None reads as many as the prompts and continuations cover.

    Returns:
        The table, its figures, and the ids put before every row.

    Raises:
        MemtaxError: an input cannot be used.
        StaleOutputError: there are parts from another input or other settings.
    """
    opening = source_bos(source, scores.model, scores.revision, scores.bos, tokenizer)
    answers = holds_conversations(source)
    # The tokenizer that made the tokens determines the BOS for both models.
    scores = replace(scores, bos=opening, answers=answers)
    reference = reference and replace(reference, bos=opening, answers=answers)
    if answers:
        if length is not None:
            raise MemtaxError(f"{source.label} holds conversations, which are read up to each answer's end; leave --length out")
        return _score_answers(source, scores, stage, reference, tokenizer)
    for each in (scores, *([reference] if reference else [])):
        check_model(each.model, each.revision, length or _reach(scores), len(opening))
    reader = None
    if holds_text(source):
        reader = load_tokenizer(tokenizer or scores.model, None if tokenizer else scores.revision)
    known = vocabulary_size(scores.model, scores.revision)
    rows = load_rows(source, length=length or _reach(scores), tokenizer=reader, vocabulary_size=known, bos=opening)
    table = stage(rows, scores, "parts", ROWS_PER_BATCH, per_shard(len(rows)))
    if reference is not None:
        theirs = stage(rows, reference, "reference", ROWS_PER_BATCH, per_shard(len(rows)))
        table = table.append_column("is_memorized_by_reference", theirs.column("is_memorized"))
    sequences = rows.with_format("arrow")[:]
    if (documents := load_documents(source, len(rows))) is not None:
        table, sequences = (each.append_column("document", documents) for each in (table, sequences))
    return table, summarize(table, scores, statistics.Units.of_table(sequences)), opening


def _score_answers(
    source: Source, scores: LanguageModelFilter, stage: Stage, reference: LanguageModelFilter | None, tokenizer: str | None
) -> tuple[pa.Table, dict[str, Any], BosIds]:
    """As `score_sequences`, for every answer of a source of conversations."""
    check_model(scores.model, scores.revision, 1 + scores.continuation, len(scores.opening))
    limits = [positions_for_text(each.model, each.revision, scores.opening) for each in (scores, reference) if each]
    found, _ = load_answers(
        source,
        continuation=scores.continuation,
        tokenizer=load_tokenizer(tokenizer or scores.model, None if tokenizer else scores.revision),
        opening=scores.opening,
        positions=min((limit for limit in limits if limit is not None), default=None),
        whole_only=False,
    )
    names = ["sequence_id", "tokens", "prompt_tokens"]
    given = found.select(names)
    rows = datasets.Dataset(given.cast(schema.features(names).arrow_schema), fingerprint=fingerprint_table(given))
    table = stage(rows, scores, "parts", ROWS_PER_BATCH, per_shard(len(rows)))
    if reference is not None:
        theirs = stage(rows, reference, "reference", ROWS_PER_BATCH, per_shard(len(rows)))
        table = table.append_column("is_memorized_by_reference", theirs.column("is_memorized"))
    for name in ("document", "prompt_tokens"):
        table = table.append_column(name, found.column(name))
    return table, summarize(table, scores, statistics.Units.of_table(found)), scores.opening


def per_shard(rows: int) -> int:
    """Batches per part, determined by the number of rows alone."""
    return min(max(rows // (ROWS_PER_BATCH * PARTS), 1), 32)


def summarize(table: pa.Table, scores: LanguageModelFilter, units: statistics.Units | None = None) -> dict[str, Any]:
    """Memorized shares with intervals for each window, nulls with their reasons, and rates over a grid of (n, p).

    Args:
        table: the scores.
        scores: the filter that computed them.
        units: units of the rows; None: each is its own unit.
    """
    units = units or statistics.Units.of_rows(table.num_rows)
    windows = []
    for number, window in enumerate(scores.all_windows):
        name = "is_memorized" + (extraction.suffix(window) if number else "")
        values = table.column(name).to_pylist()
        known = np.array([value is not None for value in values], bool)
        memorized = np.array([value for value in values if value is not None], bool)
        # The prompt of an answer is the conversation before it.
        windows.append(
            {
                "prompt": None if scores.answers else window[0],
                "continuation": window[1],
                **statistics.share(memorized, units[known]),
            }
        )
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
    if "near_ties" in table.column_names:
        ties = table.column("near_ties").drop_null().to_numpy()
        found["near_ties"] = {"dtype": scores.dtype, "share": float(ties.mean()) if len(ties) else None}
    nulls = {name: table.column(name).null_count for name in table.column_names if table.column(name).null_count}
    reasons = {
        name: (served_names.is_served(scores.model) and served_names.reason(name)) or schema.column(name).null for name in nulls
    }
    found["nulls"] = {name: {"rows": count, "reason": reasons[name]} for name, count in nulls.items()}
    return found


def _reach(scores: LanguageModelFilter) -> int:
    """Number of tokens that the longest window covers."""
    return max(prompt + continuation for prompt, continuation in scores.all_windows)
