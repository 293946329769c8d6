"""A run directory with real text (modules of the standard library) and plausible, seeded values for everything measured."""

import json
import keyword
import math
import random
import re
import token
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from memtax import schema
from memtax.results import envelope

MODULES = (token, keyword, json, random, re, yaml)
SOURCES = []
"""Names and texts to cut the windows from, instead of the modules."""
PROMPT = CONTINUATION = 32
WINDOW = PROMPT + CONTINUATION
HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(2)>",
    "<!-- <script> -->",
    "\u202eRTL override\u202c \u200f\u05d0\u05d1",
    "\x00\x07\x1b[31mcontrols\x7f\x85",
    "x" * 3000,
    "$\\frac{1}{0}$ {{ 7 * 7 }} {% raw %}",
    "\u2028line\u2029 \U0001f600 \ufffd &amp; \"'",
]
COLUMNS = [
    *("sequence_id", "tokens", "text", "token_texts", "document", "sequence_duplicates", "max_frequency", "avg_frequency"),
    *("min_frequency", "median_frequency", "p25_frequency", "p75_frequency", "is_incrementing", "is_repeating"),
    *("template_period", "huffman_coding_length", "shannon_coding_length", "prompt_perplexity", "continuation_perplexity"),
    *("sequence_perplexity", "is_memorized", "match_length", "exact_memorization", "extraction_strength"),
    *("continuation_logprob", "token_logprobs", "taxonomy", "memorized_probability"),
]
MEMBERSHIP = ["sequence_id", "tokens", "text", "document", "is_member"]
FACTORS = ["sequence_duplicates", "is_incrementing", "huffman_coding_length", "avg_frequency", "prompt_perplexity"]


def rate(memorized, sequences):
    share = memorized / sequences
    half = 1.96 * math.sqrt(share * (1 - share) / sequences) + 0.5 / sequences
    low, high = max(0.0, share - half), min(1.0, share + half)
    return {"sequences": sequences, "memorized": memorized, "rate": share, "low": low, "high": high}


def sequences(rows, rng):
    """Feature rows: windows of `WINDOW` word pieces of the library's own sources, hostile strings among them."""
    pieces = []
    for name, text in SOURCES or [(Path(m.__file__).name, Path(m.__file__).read_text()) for m in MODULES]:
        pieces += [(piece, name) for piece in re.findall(r"\w+|\s+|.", text)]
    while len(pieces) < rows * WINDOW:
        pieces += pieces
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys([*HOSTILE, *(piece for piece, _ in pieces)]))}
    counts = dict.fromkeys(vocabulary, 0)
    table = []
    for row in range(rows):
        window = [piece for piece, _ in pieces[row * WINDOW : (row + 1) * WINDOW]]
        if row < 2 * len(HOSTILE):
            window[(7 * row) % WINDOW] = HOSTILE[row // 2]
        for piece in window:
            counts[piece] += 1
        category = rng.choices((0, 1, 2), (3, 1, 5))[0]
        memorized = rng.random() < (0.8, 0.5, 0.15)[category]
        match = CONTINUATION if memorized else rng.randrange(CONTINUATION)
        logprobs = [-rng.expovariate(1) for _ in range(PROMPT - 1)]
        logprobs += [-rng.expovariate(20 if index < match else 0.8) for index in range(CONTINUATION)]
        total = sum(logprobs[PROMPT - 1 :])
        table.append(
            {
                "sequence_id": 10 * row,
                "tokens": [vocabulary[piece] for piece in window],
                "text": "".join(window),
                "token_texts": window,
                "document": pieces[row * WINDOW][1] if row % 11 else "<b>evil</b>\u202e.py",
                "sequence_duplicates": rng.randint(6, 400) if category == 0 else rng.randint(1, 5),
                "is_incrementing": category == 1 and row % 2 == 0,
                "is_repeating": category == 1 and row % 2 == 1,
                "template_period": rng.randint(1, 9) if category == 1 else None,
                "huffman_coding_length": 3 + rng.random(),
                "shannon_coding_length": 3.5 + rng.random(),
                "prompt_perplexity": math.exp(-sum(logprobs[: PROMPT - 1]) / (PROMPT - 1)),
                "continuation_perplexity": math.exp(-total / CONTINUATION),
                "sequence_perplexity": math.exp(-sum(logprobs) / (WINDOW - 1)),
                "is_memorized": memorized,
                "match_length": match,
                "exact_memorization": match / CONTINUATION,
                "extraction_strength": 1.0 if memorized else rng.random() / 2,
                "continuation_logprob": total,
                "token_logprobs": logprobs,
                "taxonomy": category,
                "memorized_probability": min(1.0, max(0.0, rng.gauss(0.8 if memorized else 0.3, 0.15))),
            }
        )
    for row in table:
        seen = sorted(counts[piece] for piece in row["token_texts"])
        row |= {"max_frequency": seen[-1], "min_frequency": seen[0], "avg_frequency": sum(seen) / WINDOW}
        row |= {"median_frequency": (seen[31] + seen[32]) / 2, "p25_frequency": seen[16] * 1.0, "p75_frequency": seen[48] * 1.0}
    frequencies = [{"token_id": index, "token_frequency": counts[piece]} for piece, index in vocabulary.items()]
    return table, frequencies


def metrics(table, rng, factors=FACTORS):
    """Rates are counted from the table; correlations and the predictor's numbers are made up."""
    by_name = {name: [r for r in table if r["taxonomy"] == i] for i, name in enumerate(schema.CATEGORIES)}
    extraction = {
        name: rate(sum(r["is_memorized"] for r in rows), len(rows)) for name, rows in {"all": table, **by_name}.items()
    }
    growth = []
    for step in range(100, 700, 100):
        for name, end in extraction.items():
            now = rate(round(end["memorized"] * (step / 600) ** 2), end["sequences"])
            growth.append({"checkpoint": f"checkpoint-{step}", "step": step, "category": name, **now})

    correlations = []
    for factor in factors:
        for group in extraction:
            if group == "reconstruction" and factor == "is_incrementing":
                gone = {"spearman": None, "low": None, "high": None, "pearson": None, "reason": "the factor is constant"}
                correlations.append({"factor": factor, "group": group, "n": len(by_name[group]), **gone})
                continue
            value = rng.uniform(-0.8, 0.8)
            found = {"spearman": value, "low": value - 0.07, "high": value + 0.07, "pearson": value * 0.9, "reason": None}
            correlations.append({"factor": factor, "group": group, "n": extraction[group]["sequences"], **found})
    predictor = predictor_metrics(factors, rng)
    return {
        "run": {
            "title": "GPT-NeoX <small> & the standard library\u202e\x07",
            "model": "models/small",
            "corpus": "CPython standard library",
            "tokens": 1_234_567,
            "sequences": len(table),
            "prompt": PROMPT,
            "continuation": CONTINUATION,
        },
        "extraction": {**extraction, "held_out": rate(1, 211)},
        "growth": growth,
        "correlations": correlations,
        "predictor": predictor,
        "nulls": {"sequence_duplicates": 0, "template_period": 451},
        "skipped": {"shorter than prompt and continuation": 17},
    }


def around(center, width):
    return {"value": center, "low": center - width, "high": center + width}


def predictor_metrics(factors, rng):
    models, curves, coefficients = {}, [], []
    for model, lift in (("baseline", 0.0), ("taxonomic", 0.04)):
        models[model] = {}
        for group in ("aggregate", *schema.CATEGORIES):
            if group == "reconstruction":
                gone = dict.fromkeys(("roc_auc", "pr_auc", "ece", "brier", "f1"))
                models[model][group] = {"n": 21, "positives": 7, "reason": "7 memorized test sequences, fewer than 10", **gone}
                continue
            models[model][group] = {"n": 140, "positives": 44, "reason": None, "roc_auc": around(0.873 + lift, 0.023)}
            models[model][group] |= {"pr_auc": around(0.751 + lift, 0.041), "ece": 0.0523, "brier": 0.1131, "f1": 0.7017}
            x = [i / 40 for i in range(41)]
            bins = [(i + 0.5) / 8 for i in range(8)]
            curves.append(
                {
                    "model": model,
                    "category": group,
                    "roc": {"fpr": x, "tpr": [v ** (0.25 - 2 * lift) for v in x]},
                    "pr": {"recall": x, "precision": [1 - 0.6 * v ** (3 + 20 * lift) for v in x]},
                    "reliability": {"predicted": bins, "observed": [v**1.2 for v in bins], "count": [9] * 8},
                }
            )
    for model in ("baseline", *schema.CATEGORIES):
        coefficients += [{"model": model, "factor": factor, "coefficient": rng.gauss(0, 1)} for factor in factors]
    differences = [
        {"metric": m, "category": "aggregate", "value": 0.04, "low": 0.011, "high": 0.069} for m in ("roc_auc", "pr_auc")
    ]
    return {
        "target": "is_memorized",
        "factors": list(factors),
        "rows": {"train": 301, "validation": 97, "test": 139},
        "dropped": {"a factor is null": 3},
        "models": models,
        "differences": differences,
        "coefficients": coefficients,
        "curves": curves,
    }


def parquet(path, rows, columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema.arrow_schema(columns)), path)


def make_run(path, rows=120, factors=FACTORS, seed=3):
    rng = random.Random(seed)
    table, frequencies = sequences(rows, rng)
    parquet(path / "dataset/features/train.parquet", table, COLUMNS)
    parquet(path / "dataset/token_frequencies/train.parquet", frequencies, ["token_id", "token_frequency"])
    held_out, _ = sequences(rows // 3, rng)
    held_out = [row | {"is_member": False, "sequence_id": 10**6 + row["sequence_id"]} for row in held_out]
    parquet(path / "dataset/membership/train.parquet", held_out, [*MEMBERSHIP, "continuation_perplexity", "is_memorized"])
    (path / "summary.json").write_text(json.dumps(envelope("run", metrics(table, rng, factors))))
    record = {
        "memtax": "demo",
        "config": {"model": "models/small", "note": "</pre><script>alert(3)"},
        "inputs": {"corpus": "0f" * 16},
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "versions": {"python": "3.11.9", "torch": "2.13.0"},
        "finished": "2026-01-02T03:04:05Z",
    }
    (path / "run.yaml").write_text(yaml.safe_dump(record))
    return path
