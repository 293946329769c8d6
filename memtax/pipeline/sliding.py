"""`memtax score --stride`: every window of long texts, with shares, coverage and a heat map by position."""

from dataclasses import dataclass, replace
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from memtax import schema
from memtax.corpus.answers import holds_conversations
from memtax.corpus.rows import holds_text, load_rows
from memtax.corpus.sources import Source
from memtax.errors import MemtaxError, RowError
from memtax.filters.language_model import LanguageModelFilter
from memtax.lm import windows
from memtax.lm.loading import check_model, load_tokenizer, vocabulary_size
from memtax.lm.special_tokens import bos_ids
from memtax.pipeline.scoring import ROWS_PER_BATCH, Stage, per_shard
from memtax.progress import skipped
from memtax.provenance import fingerprint_table


@dataclass(frozen=True)
class _Scored:
    """Scored windows of the texts of a source.

    Attributes:
        texts: the texts.
        owners: text of each window.
        begins: start of each window.
        lengths: tokens of each text.
        table: scores of each window.
        logprobs: log p_z of each window.
    """

    texts: datasets.Dataset
    owners: np.ndarray
    begins: np.ndarray
    lengths: np.ndarray
    table: pa.Table
    logprobs: np.ndarray

    def parts(self) -> list[tuple[Any, int, np.ndarray, np.ndarray]]:
        """Of each text with a window: id, tokens, and start and log p_z of its windows."""
        chosen = [(text, self.owners == text) for text in range(len(self.texts)) if (self.owners == text).any()]
        ids = self.texts["sequence_id"]
        return [(ids[text], int(self.lengths[text]), self.begins[mine], self.logprobs[mine]) for text, mine in chosen]


def score_windows(
    source: Source,
    scores: LanguageModelFilter,
    stage: Stage,
    *,
    stride: int,
    tokenizer: str | None = None,
    matched: Source | None = None,
) -> tuple[pa.Table, dict[str, Any]]:
    """Score the windows of every row of a source, where each row is a text.

    Args:
        source: tokens or texts, one long text per row (a `.txt` file is one text).
        scores: model, lengths of prefix (prompt) and suffix (continuation), and sampling scheme; only one pair of lengths.
        stage: as for `memtax.pipeline.scoring.score_sequences`.
        stride: tokens between the starts of windows.
        tokenizer: folder or Hub name; None takes the model's.
        matched: texts of the same kind that the model was not trained on.

    Returns:
        A table of the windows, and figures: `thresholds`, `texts` (with the heat map) and, with matched texts, `census`.

    Raises:
        ModelError: the windows are longer than the model's positions.
        MemtaxError: an input cannot be used, or no text is as long as a window.
        StaleOutputError: there are parts from another input or other settings.
    """
    if holds_conversations(source):
        raise MemtaxError(f"{source.label} holds conversations, whose answers are scored one by one; leave --stride out")
    opening = bos_ids(scores.model, scores.revision, scores.bos, tokenizer)
    scores = replace(scores, bos=opening)
    check_model(scores.model, scores.revision, scores.prompt + scores.continuation, len(opening))
    found = _score(source, scores, stage, "parts", stride, tokenizer)
    figures = summarize(found, scores, stride)
    figures |= {"model": scores.model, "tokens": int(found.lengths.sum()), "bos": list(opening)}
    if matched is not None:
        others = _score(matched, scores, stage, "matched", stride, tokenizer)
        one, two = ([part[1:] for part in each.parts()] for each in (found, others))
        figures["census"] = {"matched": matched.label, **windows.census(one, two, scores.prompt, scores.continuation, stride)}
    columns = {
        "text_id": pa.array(np.asarray(found.texts["sequence_id"])[found.owners]),
        "window_start": pa.array(found.begins),
    }
    columns |= {each: found.table.column(each) for each in found.table.column_names if each != "sequence_id"}
    return schema.validate(pa.table(columns), list(columns), "the windows"), figures


def _score(
    source: Source, scores: LanguageModelFilter, stage: Stage, folder: str, stride: int, tokenizer: str | None
) -> _Scored:
    """Score all windows of a source, in parts kept in a folder."""
    window = scores.prompt + scores.continuation
    reader = load_tokenizer(tokenizer or scores.model, None if tokenizer else scores.revision) if holds_text(source) else None
    known = vocabulary_size(scores.model, scores.revision)
    texts = load_rows(source, tokenizer=reader, vocabulary_size=known, bos=scores.opening)
    rows, owners, begins, lengths = _cut(texts, window, stride, source.label)
    skipped(len(lengths) - len(np.unique(owners)), f"shorter than the {window} tokens of a window, in {source.label}")
    try:
        table = stage(rows, scores, folder, ROWS_PER_BATCH, per_shard(len(rows)))
    except RowError as error:
        # Windows have their own numbering.
        text = texts["sequence_id"][int(owners[error.row])]
        place = f"the window at token {begins[error.row]} of the row with sequence_id {text}"
        raise error.at(text, place) from error
    unasked = table.column("continuation_logprob").null_count
    if unasked:
        raise MemtaxError(f"{unasked:,} windows cannot be asked for by text; --stride needs a server that takes token ids")
    name = "continuation_logprob" if scores.decoding is None else "decoding_logprob"
    return _Scored(texts, owners, begins, lengths, table, np.array(table.column(name).to_pylist(), dtype=np.float64))


def summarize(found: _Scored, scores: LanguageModelFilter, stride: int) -> dict[str, Any]:
    """Shares and coverage above each threshold, and the heat map of every text."""
    parts, lengths = found.parts(), (scores.prompt, scores.continuation)
    rows = [
        {
            "text_id": identifier,
            "tokens": tokens,
            "windows": len(begins),
            "heat": windows.heat(windows.token_logprobs(tokens, begins, logprobs, *lengths)),
        }
        for identifier, tokens, begins, logprobs in parts
    ]
    return {
        "prompt": scores.prompt,
        "continuation": scores.continuation,
        "stride": stride,
        "too_short": len(found.texts) - len(parts),
        "thresholds": windows.measure([part[1:] for part in parts], *lengths, stride),
        "texts": rows,
    }


def _cut(
    texts: datasets.Dataset, window: int, stride: int, what: str
) -> tuple[datasets.Dataset, np.ndarray, np.ndarray, np.ndarray]:
    """The windows as a dataset, the text and start of each window, and the length of every text."""
    owners, begins, rows, lengths = [], [], [], []
    for text, tokens in enumerate(texts["tokens"]):
        lengths.append(len(tokens))
        found = windows.starts(len(tokens), window, stride)
        owners.append(np.full(len(found), text))
        begins.append(found)
        rows += [tokens[begin : begin + window] for begin in found.tolist()]
    if not rows:
        raise MemtaxError(f"no text of {what} has the {window} tokens of a window (the longest has {max(lengths, default=0)})")
    columns = {"sequence_id": list(range(len(rows))), "tokens": rows}
    table = pa.table(columns, schema=schema.features(columns).arrow_schema)
    dataset = datasets.Dataset(table, fingerprint=fingerprint_table(table))
    return dataset, np.concatenate(owners), np.concatenate(begins), np.array(lengths)
