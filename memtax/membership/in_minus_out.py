"""`memtax counterfactual`: how much likelier a text is under models trained with it than under models trained without it.

The models are trained with `training/finetune_lora.py`, each on a random half of the texts, and then serve as reference
models for LiRA and RMIA.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from memtax import schema, statistics
from memtax.corpus import membership_texts as membership
from memtax.engine import run as run_stage
from memtax.errors import MemtaxError
from memtax.lm.special_tokens import bos_ids
from memtax.membership.evidence import AttackFilter
from memtax.membership.measure import ROWS_PER_BATCH, prepare
from memtax.membership.reference_models import Training, subsets, train_models
from memtax.progress import agree, numbered
from memtax.provenance import fingerprint_table

COLUMNS = (
    "sequence_id",
    "counterfactual_memorization",
    "counterfactual_low",
    "counterfactual_high",
    "model_scores",
    "model_included",
)

CHANCE = 0.025
"""Share of texts without memorization whose 95% interval lies above 0."""
FDR = 0.05
"""False discovery rate of Benjamini & Hochberg (1995)."""


def describe(summary: Mapping[str, Any]) -> list[str]:
    """Summary lines for the terminal."""
    mean, count = summary["mean"], summary["clearly_memorized"]
    if mean is None:
        return ["no text has models trained both with and without it"]
    bounds = summary["interval"]
    units = f"{summary['units']['number']:,} {summary['units']['name']}"
    within = f" ({bounds['low']:.4f} to {bounds['high']:.4f} over {units})" if bounds else f" (of these {units} only)"
    return [
        f"mean in minus out: {mean:.4f} nats per token{within}",
        f"{count:,} of {numbered(summary['compared'], 'text')} {agree(count, 'has')} an interval above 0; "
        f"{summary['expected_by_chance']:.1f} are expected by chance. Benjamini-Hochberg at {100 * FDR:g}% keeps "
        f"{summary['memorized_by_fdr']:,}",
    ]


def counterfactual(texts: pa.Table, training: Training, output: Path | str) -> tuple[pa.Table, dict[str, Any]]:
    """Train the models, score every text under each, and compare (Zhang et al. 2021).

    Finished models and parts of scores in `output` are reused. Under `accelerate launch` or `torchrun`, training and scoring
    are shared among the processes.

    Args:
        texts: `sequence_id`, `domain` and `text`, from `memtax.corpus.membership_texts.load_texts`.
        training: training settings.
        output: the directory that holds `models/` and `parts/`.

    Returns:
        A table and the figures over all texts. For each text, the table has the mean LL under models trained with it minus
        the mean LL under models trained without it, a 95% Welch interval, and LL and inclusion for every model; values are
        null where a side has fewer than 2 models, or a text has no token to score.

    Raises:
        MemtaxError: there are too few texts, or the model cannot be trained.
        StaleOutputError: `output` holds models of other texts or settings.
    """
    output = Path(output)
    if len(texts) < 4:
        raise MemtaxError(f"{len(texts)} texts are too few to train on random halves; give at least 4")
    included = subsets(len(texts), training)
    folders = train_models(texts.column("text").to_pylist(), training, output)
    given = texts.select(
        [name for name in ("sequence_id", "domain", "document", "text") if name in texts.column_names]
    ).to_pylist()
    # Whether a model was trained on a text differs between models, so whole texts are scored.
    whole = {"is_member": False, "tokens": None, "chunk_start": None, "chunk_end": None}
    data = pa.Table.from_pylist([{**row, **whole} for row in given], schema=schema.arrow_schema(membership.COLUMNS))
    opening = bos_ids(training.model, None, training.bos)
    rows: Any = None
    scores = []
    for number, folder in enumerate(folders):
        scorer = AttackFilter(str(folder), ("loss",), bos=opening)
        if rows is None:
            prepared = prepare(data, scorer).select(["sequence_id", *scorer.requires])
            rows = datasets.Dataset(prepared, fingerprint=fingerprint_table(prepared))
        found = run_stage(rows, scorer, output / "parts" / f"{number:03d}", ROWS_PER_BATCH, 1)
        scores.append(found.column("attack_loss").to_pylist())
    table = compare(texts.column("sequence_id").to_pylist(), scores, included)
    return schema.validate(table, COLUMNS, "the scores"), {**_summary(table, training, texts), "bos": list(opening)}


def with_texts(scores: pa.Table, texts: pa.Table) -> pa.Table:
    """Add each row's document and text to the scores, so that `memtax mia` can check that its texts are the same."""
    for name in ("document", "text"):
        if name in texts.column_names:
            scores = scores.append_column(name, texts.column(name))
    return scores


def compare(ids: Sequence[int], scores: Sequence[Sequence[float | None]], included: npt.NDArray[np.bool_]) -> pa.Table:
    """In-minus-out difference of each text.

    Args:
        ids: sequence ids.
        scores: (models, texts) LL of each text under each model.
        included: (models, texts) whether the model was trained on the text.
    """
    rows = []
    for row, number in enumerate(ids):
        values = [model[row] for model in scores]
        flags = included[:, row].tolist()
        interval = _difference(*_sides(values, flags))
        found = {"sequence_id": number, "model_scores": values, "model_included": flags}
        names = ("counterfactual_memorization", "counterfactual_low", "counterfactual_high")
        bounds = (None,) * 3 if interval is None else (interval.value, interval.low, interval.high)
        rows.append({**found, **dict(zip(names, bounds, strict=True))})
    return pa.Table.from_pylist(rows, schema=schema.arrow_schema(COLUMNS))


def _sides(values: Sequence[float | None], flags: Sequence[bool]) -> tuple[list[float], list[float]]:
    """Scores of models trained with the text, and of models trained without it."""
    known = [(value, flag) for value, flag in zip(values, flags, strict=True) if value is not None]
    return [value for value, flag in known if flag], [value for value, flag in known if not flag]


def _welch(inside: Sequence[float], outside: Sequence[float]) -> tuple[float, float, float] | None:
    """Difference of two means, its standard error, and Welch's degrees of freedom (infinite if both variances are 0)."""
    if min(len(inside), len(outside)) < 2 or not np.isfinite([*inside, *outside]).all():
        return None
    value = float(np.mean(inside) - np.mean(outside))
    first, second = (float(np.var(side, ddof=1)) / len(side) for side in (inside, outside))
    if first + second == 0:
        return value, 0.0, float("inf")
    freedom = (first + second) ** 2 / (first**2 / (len(inside) - 1) + second**2 / (len(outside) - 1))
    return value, float((first + second) ** 0.5), freedom


def _difference(inside: Sequence[float], outside: Sequence[float]) -> statistics.Interval | None:
    """Difference of two means with Welch's 95% interval."""
    from scipy.special import stdtrit

    found = _welch(inside, outside)
    if found is None:
        return None
    value, error, freedom = found
    half = float(stdtrit(freedom, 0.975)) * error if error else 0.0
    return statistics.Interval(value, value - half, value + half)


def _p_value(inside: Sequence[float], outside: Sequence[float]) -> float | None:
    """One-sided p-value of "the text is not likelier under models trained with it"."""
    from scipy.special import stdtr

    found = _welch(inside, outside)
    if found is None:
        return None
    value, error, freedom = found
    return float(stdtr(freedom, -value / error)) if error else float(value <= 0)


def _summary(table: pa.Table, training: Training, texts: pa.Table) -> dict[str, Any]:
    """The figures of `summary.json`; `document` and `text` define the units for the interval of the mean."""
    from scipy.stats import false_discovery_control

    column = table.column("counterfactual_memorization").to_pylist()
    values = [value for value in column if value is not None]
    lows = [value for value in table.column("counterfactual_low").to_pylist() if value is not None]
    pairs = zip(table.column("model_scores").to_pylist(), table.column("model_included").to_pylist(), strict=True)
    p_values = [p for pair in pairs if (p := _p_value(*_sides(*pair))) is not None]
    documents = texts.column("document") if "document" in texts.column_names else None
    codes = statistics.unit_codes(documents, texts.column("text"))[[value is not None for value in column]]
    named = documents is not None and documents.null_count < len(documents)
    mean = statistics.cluster_mean(values, codes) if values else None
    return {
        "model": training.model,
        "models": training.models,
        "texts": len(table),
        "without_score": len(table) - len(values),
        "compared": len(values),
        "units": {"name": "documents" if named else "texts", "number": statistics.count_units(codes)},
        "mean": float(np.mean(values)) if values else None,
        "interval": None if mean is None else {"low": mean.low, "high": mean.high},
        "clearly_memorized": sum(low > 0 for low in lows),
        "expected_by_chance": CHANCE * len(lows),
        "memorized_by_fdr": int((false_discovery_control(p_values) <= FDR).sum()) if p_values else 0,
        "fdr": FDR,
    }


__all__ = ["Training", "compare", "counterfactual", "subsets"]
