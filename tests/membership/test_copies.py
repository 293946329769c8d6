"""Copies of a text are no further evidence of membership."""

import numpy as np
import pyarrow as pa

from memtax.membership.estimates import figures


def table(rows):
    """Rows of (text, member, score)."""
    texts, members, scores = zip(*rows, strict=True)
    nothing = pa.nulls(len(rows), pa.int64())
    columns = {"domain": ["one"] * len(rows), "is_member": list(members), "text": list(texts)}
    columns |= {"tokens": [[1, 2, 3]] * len(rows), "chunk_start": nothing, "chunk_end": nothing}
    return pa.table({**columns, "attack_loss": list(scores)})


def test_copies_change_no_figure():
    rng = np.random.default_rng(0)
    rows = [
        (f"text {number} {word}", number % 2 == 0, rng.normal(number % 2 == 0)) for number, word in enumerate("abcdefgh" * 10)
    ]
    copied = [row for row in rows for _ in range(12 if row[1] else 1)]
    once, often = (figures(table(each), ["attack_loss"], resamples=100)["one"] for each in (rows, copied))
    assert (once.pop("copies"), often.pop("copies")) == (0, 40 * 11)
    assert (often["members"], often["nonmembers"]) == (40, 40)
    assert once == often


def test_a_text_on_both_sides_counts_on_neither():
    rows = [("same", True, 1.0), ("same", False, 1.0), ("seen", True, 1.0), ("unseen", False, 0.5)]
    domain = figures(table(rows * 2), ["attack_loss"], resamples=10)["one"]
    assert (domain["members"], domain["nonmembers"], domain["shared"]) == (1, 1, 1)
