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
from memtax.lm.served_names import is_served
from memtax.pipeline.config import RunConfig
from memtax.pipeline.stages import ROWS_PER_BATCH
from memtax.provenance import fingerprint_table

EDITS = 0.1
"""Edits, as a share of the continuation's tokens, up to which a generated continuation is near-verbatim."""
BLOCK = 0.5
"""Share of the continuation's tokens that an identical block has at least to count."""
_SEED = 1024


def near_verbatim(config: RunConfig, folder: Path, most: int) -> dict[str, Any]:
    """Generate continuations of a sample of the sequences of a finished run, and compare them with the true ones.

    Every process of the job calls it.

    Args:
        config: configuration of the run.
        folder: where the stage keeps its parts.
        most: maximum number of training sequences, and of held-out ones, drawn at random; 0: none.

    Returns:
        `tokens` (of a continuation), `edits` and `block` (thresholds in tokens), `train` and `held_out` (None without held-out
        sequences), each with the shares `identical`, `near` (within the edits, identical ones included) and `block` as in
        `statistics.share`; or `measurable` false with a `reason`. Held-out sequences whose continuation is in the corpus
        are left out.
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
    )
    data = datasets.Dataset(chosen, fingerprint=fingerprint_table(chosen))
    scored = run_stage(data, scorer, folder, ROWS_PER_BATCH)
    thresholds = {"edits": int(EDITS * config.continuation), "block": int(np.ceil(BLOCK * config.continuation))}
    groups = {"train": member[rows], "held_out": control[rows]}
    return {
        "measurable": True,
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
    return {
        "identical": statistics.share(distance == 0, units),
        "near": statistics.share(distance <= edits, units),
        "block": statistics.share(longest >= block, units),
    }
