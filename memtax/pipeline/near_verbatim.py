"""How close generated continuations come to the true ones without being identical, for training and held-out texts."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from memtax import statistics
from memtax.engine import run as run_stage
from memtax.filters.language_model import LanguageModelFilter
from memtax.lm.extraction import discoverable
from memtax.lm.served_names import is_served
from memtax.pipeline.calibrated import compare
from memtax.pipeline.config import RunConfig
from memtax.pipeline.stages import ROWS_PER_BATCH
from memtax.provenance import fingerprint_table

EDITS = 0.1
"""Edits, as a share of the continuation's tokens, up to which a generated continuation is near-verbatim."""
BLOCK = 0.5
"""Share of the continuation's tokens that an identical block has at least to count."""
SAMPLES, PROBABILITY = 100, 0.5
"""Samples, and the probability with which they contain what counts as drawn."""
_SEED = 1024


def near_verbatim(config: RunConfig, folder: Path, most: int, beam: int = 0) -> dict[str, Any]:
    """Generate continuations of a sample of the sequences of a finished run, and compare them with the true ones.

    Every process of the job calls it.

    Args:
        config: configuration of the run.
        folder: where the stage keeps its parts.
        most: maximum number of training sequences, and of held-out ones, drawn at random; 0: none.
        beam: prefixes kept to bound the probability of drawing nearly a continuation; 0: it is not bounded.

    Returns:
        `tokens` (of a continuation), `edits` and `block` (thresholds in tokens), `train` and `held_out` (None without held-out
        sequences), each with the shares `identical`, `near` (within the edits, identical ones included) and `block` as in
        `statistics.share`, and the means `block_recall` and, of 100 tokens or more, `near_verbatim_recall` as in
        `statistics.mean_over_units`; with a beam `drawn`, see `_drawn_nearly`; or `measurable` false with a `reason`. Held-out
        sequences whose continuation is in the corpus are left out.
    """
    if most < 1:
        return {"measurable": False, "reason": "no continuation was generated (--generate 0)"}
    if is_served(config.model):
        return {"measurable": False, "reason": "a served model is asked for log-probabilities, not for continuations"}
    table = pq.read_table(config.output / "sequences" / "train.parquet")
    units = statistics.Units.of_table(table)
    member = table.column("is_member").to_numpy(zero_copy_only=False)
    control = ~member & _absent(config.output, table.num_rows)
    rng = np.random.default_rng(_SEED)
    rows = np.concatenate([_drawn(np.flatnonzero(group), most, rng) for group in (member, control)])
    chosen = table.select(["sequence_id", "tokens", *(["prompt_tokens"] if config.answers else [])]).take(pa.array(rows))
    thresholds = {"edits": int(EDITS * config.continuation), "block": int(np.ceil(BLOCK * config.continuation))}
    bounds: dict[str, Any] = {"edits": thresholds["edits"], "beam": beam} if beam else {}
    scorer = LanguageModelFilter(
        config.model,
        config.revision,
        config.prompt,
        config.continuation,
        generated=True,
        answers=config.answers,
        dtype=config.dtype,
        batch_size=config.batch_size,
        device_map=config.device_map,
        quantization=config.quantization,
        bos=config.opening,
        tokenizer=config.tokenizer,
        **bounds,
    )
    data = datasets.Dataset(chosen, fingerprint=fingerprint_table(chosen))
    scored = run_stage(data, scorer, folder, ROWS_PER_BATCH)
    groups = {"train": member[rows], "held_out": control[rows]}
    return {
        "measurable": True,
        **({"drawn": {"beam": beam, **_drawn_nearly(scored, units[rows], **groups)}} if beam else {}),
        "tokens": config.continuation,
        **thresholds,
        **{
            name: _shares(scored.filter(pa.array(group)), units[rows][group], **thresholds) if group.any() else None
            for name, group in groups.items()
        },
    }


def _absent(folder: Path, rows: int) -> npt.NDArray[np.bool_]:
    """Whether the continuation of each sequence occurs nowhere in the corpus; True without held-out sequences."""
    file = folder / "dataset" / "membership" / "train.parquet"
    if not file.exists():
        return np.ones(rows, bool)
    copies = pq.read_table(file, columns=["sequence_duplicates"]).column(0)
    absent: npt.NDArray[np.bool_] = pc.equal(copies, 0).fill_null(True).to_numpy(zero_copy_only=False)
    return absent


def _drawn(rows: npt.NDArray[np.int64], most: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))


def _shares(table: pa.Table, units: statistics.Units, edits: int, block: int) -> dict[str, Any]:
    distance, longest = (
        table.column(name).to_numpy(zero_copy_only=False).astype(np.float64)
        for name in ("continuation_edit_distance", "longest_common_block")
    )
    recalls = [name for name in ("block_recall", "near_verbatim_recall") if name in table.column_names]
    return {
        **{name: statistics.mean_over_units(table.column(name).to_pylist(), units) for name in recalls},
        "identical": statistics.share(distance == 0, units),
        "near": statistics.share(distance <= edits, units),
        "block": statistics.share(longest >= block, units),
    }


def _drawn_nearly(
    table: pa.Table, units: statistics.Units, train: npt.NDArray[np.bool_], held_out: npt.NDArray[np.bool_]
) -> dict[str, Any]:
    """How many continuations samples contain, identical and within the edits.

    Args:
        table: the scores of all drawn sequences.
        units: of its rows.
        train: (rows,) which are of the training set.
        held_out: (rows,) which are not.

    Returns:
        For each set (None without rows) the shares that `SAMPLES` samples contain with probability `PROBABILITY` or more:
        `identical`, and for the probability of nearly the continuation `at_least` and `at_most`, by its two bounds; and
        `calibrated`, the comparison of the lower bounds with those of held-out ones (`memtax.pipeline.calibrated.compare`).
    """
    columns = {"identical": "continuation_logprob", "at_least": "near_logprob", "at_most": "near_logprob_most"}
    values = {name: np.array(table.column(column).to_pylist(), np.float64) for name, column in columns.items()}
    found: dict[str, Any] = {"samples": SAMPLES, "probability": PROBABILITY}
    for name, rows in (("train", train), ("held_out", held_out)):
        found[name] = {
            kind: discoverable(each[rows].tolist(), [SAMPLES], [PROBABILITY], units[rows])[0] for kind, each in values.items()
        }
    low, memorized = values["at_least"], table.column("is_memorized").to_pylist()
    own = [bool(memorized[row]) for row in np.flatnonzero(train)]
    _, _, found["calibrated"] = compare(low[train].tolist(), own, units[train], low[held_out].tolist(), units[held_out])
    return found
