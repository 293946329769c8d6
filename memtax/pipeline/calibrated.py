"""Extraction calibrated by held-out texts: continuations more probable than those of texts never seen (arXiv 2607.12649)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from memtax import schema, statistics
from memtax.statistics.conformal import conformal_p_values, conformal_threshold, fewest_calibration, largest_of_units

ALPHAS = (0.01, 0.05)
"""Rates of texts never seen above the threshold; the first that the number of held-out units supports is used."""
NAMES = ("sequence_id", "continuation_logprob", "baseline_p_value", "exceeds_baseline")


def calibrated(folder: Path) -> tuple[pa.Table | None, dict[str, Any]]:
    """The calibrated comparison of a finished run with held-out texts.

    The units of calibration are held-out documents (else texts): the score of one is the largest log-probability of its
    continuations, so that at most a share alpha of unseen documents has any continuation above the threshold. Held-out
    sequences whose continuation occurs in the corpus are left out.

    Args:
        folder: directory of the run.

    Returns:
        One row per training sequence (None without held-out texts), and the figures: see `compare`.
    """
    file = folder / "dataset" / "membership" / "train.parquet"
    if not file.exists():
        return None, {"measurable": False, "reason": "no held-out texts were given to calibrate with"}
    names = ["sequence_id", "is_member", "sequence_duplicates", "continuation_logprob", "is_memorized"]
    rows = pq.read_table(file, columns=names)
    # Published document names may be masked; the sequences have them as they are, in the same order.
    units = statistics.Units.of_table(pq.read_table(folder / "sequences" / "train.parquet"))
    member = rows.column("is_member").to_numpy(zero_copy_only=False)
    absent = pc.equal(rows.column("sequence_duplicates"), 0).fill_null(True).to_numpy(zero_copy_only=False)
    known = rows.column("continuation_logprob").is_valid().to_numpy(zero_copy_only=False)
    logprobs = rows.column("continuation_logprob").to_pylist()
    control = np.flatnonzero(~member & absent & known)
    own = rows.filter(rows.column("is_member"))
    p_values, exceeds, figures = compare(
        [logprobs[row] for row in np.flatnonzero(member)],
        own.column("is_memorized").to_pylist(),
        units[member],
        [logprobs[row] for row in control],
        units[control],
    )
    figures |= {
        "left_out": {"in_corpus": int((~member & ~absent).sum()), "without_score": int((~member & absent & ~known).sum())},
        "memorized_held_out": statistics.share(
            np.array([bool(value) for value in rows.column("is_memorized").take(pa.array(control)).to_pylist()], bool),
            units[control],
        ),
    }
    columns = {
        "sequence_id": own.column("sequence_id"),
        "continuation_logprob": own.column("continuation_logprob"),
        "baseline_p_value": pa.array(p_values, pa.float64()),
        "exceeds_baseline": pa.array(exceeds, pa.bool_()),
    }
    return schema.validate(pa.table(columns), NAMES, "the calibrated extraction"), figures


def compare(
    logprobs: Sequence[float | None],
    memorized: Sequence[bool | None],
    units: statistics.Units,
    held_out: Sequence[float],
    held_out_units: statistics.Units,
) -> tuple[list[float | None], list[bool | None], dict[str, Any]]:
    """Compare log p_z of training continuations with those of held-out ones.

    Args:
        logprobs: log p_z of each training continuation, in nats; None where it is too short.
        memorized: whether greedy decoding yields each.
        units: their units.
        held_out: log p_z of held-out continuations.
        held_out_units: their units.

    Returns:
        The conformal p-value of each training continuation, whether it exceeds the threshold (None where withheld), and the
        figures: `units`, `unit`, `needed`, `alpha`, `threshold`, `exceeds` (keys of `statistics.share`), `memorized_below` and
        `exceeds_unmemorized` (counts); or `measurable` false with a `reason`.
    """
    calibration = largest_of_units(held_out, held_out_units.codes)
    alpha = next((rate for rate in ALPHAS if len(calibration) >= fewest_calibration(rate)), None)
    figures: dict[str, Any] = {"measurable": alpha is not None, "units": len(calibration), "unit": held_out_units.name}
    figures |= {"needed": fewest_calibration(ALPHAS[-1]), "sequences": len(held_out)}
    p_values = conformal_p_values(calibration, logprobs)
    if alpha is None:
        few = f"{len(calibration):,} held-out {held_out_units.name}s not in the corpus"
        needs = " and ".join(f"{fewest_calibration(rate)} for {rate:.0%}" for rate in reversed(ALPHAS))
        reason = f"{few}; a threshold needs {needs}"
        return p_values, [None] * len(logprobs), figures | {"reason": reason}
    threshold = conformal_threshold(calibration, alpha)
    assert threshold is not None
    exceeds = [None if value is None else value > threshold for value in logprobs]
    known = np.array([value is not None for value in exceeds], bool)
    hit = np.array([bool(value) for value in exceeds], bool)
    extracted = np.array([bool(value) for value in memorized], bool)
    figures |= {"alpha": alpha, "threshold": threshold, "exceeds": statistics.share(hit[known], units[known])}
    figures |= {"memorized_below": int((extracted & ~hit & known).sum()), "exceeds_unmemorized": int((hit & ~extracted).sum())}
    return p_values, exceeds, figures
