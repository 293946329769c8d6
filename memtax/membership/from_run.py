"""Membership figures of a main run, computed from its single forward pass."""

from typing import Any

import numpy as np
import pyarrow as pa

from memtax.membership.column_scores import score_rows
from memtax.membership.estimates import figures

MOST = 2_000
"""Maximum number of members and of non-members; the blind baseline reads every word five times."""
SHARES = (0.2,)
RESAMPLES = 200
SEED = 1024


def membership_of_run(table: pa.Table, resamples: int = RESAMPLES) -> dict[str, Any] | None:
    """Loss, zlib and Min-K% of members and held-out sequences, beside the blind baseline.

    Args:
        table: `is_member`, `token_logprobs`, `text` and `tokens`, and `document` where known.
        resamples: number of bootstrap resamples.

    Returns:
        One domain of `memtax.membership.estimates.figures`; None if there are no members or no non-members.
    """
    labels = np.array(table.column("is_member").to_pylist(), bool)
    rng = np.random.default_rng(SEED)
    rows = np.concatenate([np.sort(rng.permutation(np.flatnonzero(labels == kind))[:MOST]) for kind in (True, False)])
    if not labels.any() or labels.all():
        return None
    kept = ["is_member", "text", "tokens", *(name for name in ("document",) if name in table.column_names)]
    chosen = table.select([*kept, "token_logprobs"]).take(pa.array(rows))
    logprobs = [
        None if row is None else [value for value in row if value is not None]
        for row in chosen.column("token_logprobs").to_pylist()
    ]
    scores = score_rows(logprobs, texts=chosen.column("text").to_pylist(), k=SHARES)
    nothing = pa.nulls(len(rows), pa.int64())
    columns = {f"attack_{name}": pa.array(values, pa.float64()) for name, values in scores.items()}
    whole = {"domain": pa.array(["run"] * len(rows)), "chunk_start": nothing, "chunk_end": nothing}
    whole |= {name: chosen.column(name) for name in kept}
    return figures(pa.table(whole | columns), list(columns), resamples)["run"]
