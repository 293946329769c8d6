"""The sequences shown individually on the page, with their details."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from memtax.report.data import Run
from memtax.schema import CATEGORIES, COLUMNS

Item = TypeVar("Item")

PER_STRATUM = 40
"""Maximum number of examples per category and verdict: 240 in all, about 400 kB."""

FACTORS = (
    "sequence_duplicates",
    "continuation_perplexity",
    "prompt_perplexity",
    "sequence_perplexity",
    "match_length",
    "memorized_probability",
    "is_incrementing",
    "is_repeating",
    "template_period",
    "semantic_matches_0_8",
    "semantic_matches_0_9",
    "textual_matches_0_8",
    "textual_matches_0_9",
    "nl_score",
    "huffman_coding_length",
    "shannon_coding_length",
    "exact_memorization",
    "extraction_strength",
    "continuation_logprob",
    "min_frequency",
    "p25_frequency",
    "median_frequency",
    "avg_frequency",
    "p75_frequency",
    "max_frequency",
)
UNLABELLED = "no category"


def strata(run: Run) -> dict[tuple[str, bool], np.ndarray]:
    """Row numbers for each category and verdict, sorted by the probability of the continuation, ties by `sequence_id`.

    Rows without a verdict (`is_memorized` null) are skipped. Rows without a category are under `UNLABELLED`.
    """
    table = run.features
    if table is None or "is_memorized" not in table.column_names:
        return {}
    verdict = np.array(table.column("is_memorized").to_pylist(), dtype=object)
    labels = table.column("taxonomy").to_pylist() if "taxonomy" in table.column_names else [None] * table.num_rows
    category = np.array([UNLABELLED if index is None else CATEGORIES[index] for index in labels], dtype=object)
    ids = table.column("sequence_id").to_numpy()
    if "continuation_logprob" in table.column_names:
        logprob = table.column("continuation_logprob").to_numpy(zero_copy_only=False).astype(float)
    else:
        logprob = np.zeros(table.num_rows)
    order = np.lexsort((ids, np.nan_to_num(logprob, nan=-np.inf, neginf=-np.inf)))
    found = {}
    for name in (*CATEGORIES, UNLABELLED):
        for memorized in (True, False):
            rows = order[(category[order] == name) & (verdict[order] == memorized)]
            if len(rows):
                found[name, memorized] = rows
    return found


def spread(rows: Sequence[Item], most: int) -> list[Item]:
    """At most `most` of `rows`, equally spaced and including the first and last."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(place * (len(rows) - 1) / max(most - 1, 1))] for place in range(most)]


def choose(run: Run, most: int = PER_STRATUM) -> list[dict[str, Any]]:
    """The examples, by category and verdict, spread evenly over the probability of the continuation.

    Sequences with the same tokens (or text) are shown once, because recitation contains many copies.
    """
    chosen: list[dict[str, Any]] = []
    for (category, memorized), places in strata(run).items():
        assert run.features is not None
        ids = run.features.column("sequence_id").take(spread(places.tolist(), 4 * most)).to_pylist()
        seen: set[Any] = set()
        distinct = []
        for row in run.rows(ids):
            key = tuple(row["tokens"]) if row.get("tokens") else row.get("text")
            if key not in seen:
                seen.add(key)
                distinct.append(row)
        chosen += [_example(row, category, memorized) for row in spread(distinct, most)]
    _add_neighbours(run, chosen)
    _add_places(run, chosen)
    return chosen


def _add_places(run: Run, chosen: Sequence[dict[str, Any]]) -> None:
    """Add to each example the first places of its continuation in the corpus, if they were located."""
    if run.places is None or not chosen:
        return
    ids = pa.array([example["id"] for example in chosen], pa.int64())
    by_id: dict[int, list[dict[str, Any]]] = {}
    found = run.places.filter(pc.is_in(run.places.column("sequence_id"), value_set=ids))
    for row in found.sort_by([("sequence_id", "ascending"), ("place", "ascending")]).to_pylist():
        shown = {name: row[f"place_{name}"] for name in ("source", "sequence", "offset", "document")}
        by_id.setdefault(row["sequence_id"], []).append(shown)
    for example in chosen:
        example["places"] = by_id.get(example["id"], [])


def _add_neighbours(run: Run, chosen: Sequence[dict[str, Any]]) -> None:
    """Add to each example the sequences with similar meaning, nearest first; none without embeddings."""
    if run.neighbours is None or not chosen:
        return
    ids = pa.array([example["id"] for example in chosen], pa.int64())
    found = run.neighbours.filter(pc.is_in(run.neighbours.column("sequence_id"), value_set=ids))
    texts = {row["sequence_id"]: row for row in run.rows(sorted(set(found.column("neighbour_id").to_pylist())))}
    by_id: dict[int, list[dict[str, Any]]] = {}
    for pair in found.sort_by([("sequence_id", "ascending"), ("rank", "ascending")]).to_pylist():
        other = texts[pair["neighbour_id"]]
        shown = {"id": other["sequence_id"], "cosine": _plain(pair["cosine"]), "text": other.get("text")}
        by_id.setdefault(pair["sequence_id"], []).append({**shown, "document": other.get("document")})
    for example in chosen:
        example["neighbours"] = by_id.get(example["id"], [])


def _example(row: Mapping[str, Any], category: str, memorized: bool) -> dict[str, Any]:
    """The data of one sequence for the page's script."""
    texts, tokens, logprobs = row.get("token_texts"), row.get("tokens"), row.get("token_logprobs")
    example: dict[str, Any] = {
        "id": row["sequence_id"],
        "category": category,
        "memorized": memorized,
        "document": row.get("document"),
        "text": row["text"] if row.get("text") is not None else "".join(texts) if texts else None,
        "factors": {name: _plain(row[name]) for name in FACTORS if name in row},
    }
    if tokens and texts and len(tokens) == len(texts):
        example["tokens"], example["pieces"] = tokens, texts
        if logprobs and len(logprobs) == len(tokens) - 1:
            # The first token has no context and therefore no probability.
            example["probabilities"] = [None, *(_plain(math.exp(min(value, 0.0))) for value in logprobs)]
    return example


def _plain(value: Any) -> Any:
    """A value for JSON, rounded to five significant digits; null if it is not finite."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value


def payload(run: Run, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All data for the page's script."""
    frequencies: dict[str, int] = {}
    if run.frequencies is not None:
        used = {token for example in examples for token in example.get("tokens", ())}
        pairs = zip(*(run.frequencies.column(name).to_pylist() for name in ("token_id", "token_frequency")), strict=True)
        frequencies = {str(token): times for token, times in sorted(pairs) if token in used}
    factors = [name for name in FACTORS if any(name in example["factors"] for example in examples)]
    return {
        "prompt": (run.metrics.get("run") or {}).get("prompt"),
        "categories": [name for name in (*CATEGORIES, UNLABELLED) if any(e["category"] == name for e in examples)],
        "factors": [
            {"name": name, "type": COLUMNS[name].dtype, "unit": COLUMNS[name].unit, "meaning": COLUMNS[name].meaning}
            for name in factors
        ],
        "frequencies": frequencies,
        "examples": list(examples),
    }


def to_script(value: Mapping[str, Any]) -> str:
    """JSON that is safe inside `<script type="application/json">`: ASCII, without anything that closes or opens markup."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
