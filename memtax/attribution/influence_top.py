"""The most influential training examples for each test example, with their quotable texts."""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from memtax.attribution.influence_functions import Influence
from memtax.privacy import mask_text

Side = tuple[Sequence[int], Sequence[str | None]]
"""Ids of examples, and their texts if they have any."""


def top_table(found: Mapping[str, Influence], train: Side, test: Side, most: int, *, mask: bool) -> pa.Table:
    """The most influential training examples of each test example, by each method.

    Args:
        found: method to its influences (train, test).
        train: training examples.
        test: test examples.
        most: number of training examples listed for each test example.
        mask: whether to mask personal data in the texts.

    Returns:
        `test_id`, `method`, `rank` from 1, `train_id`, `influence`, `test_text`, `train_text`.
    """
    # Cached, because the same few training examples are in many lists.
    # Examples may themselves be cut from longer texts.
    shown = functools.cache(functools.partial(mask_text, open_ends=True) if mask else str)

    def text(side: Side, row: int) -> str | None:
        whole = side[1][row]
        return None if whole is None else shown(whole)

    rows = []
    for method, one in found.items():
        for column, best in enumerate(one.top(most)):
            for rank, row in enumerate(best):
                value = one.values[row, column]
                if np.isfinite(value):
                    ids = {"test_id": test[0][column], "method": method, "rank": rank + 1, "train_id": train[0][row]}
                    texts = {"test_text": text(test, column), "train_text": text(train, row)}
                    rows.append({**ids, "influence": float(value), **texts})
    kinds = {"test_id": pa.int64(), "method": pa.string(), "rank": pa.int32(), "train_id": pa.int64()}
    kinds |= {"influence": pa.float32(), "test_text": pa.string(), "train_text": pa.string()}
    return pa.Table.from_pylist(rows, schema=pa.schema(kinds))
