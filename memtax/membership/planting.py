"""Canaries to plant: random token sequences that a text gives again, fair coins, and the record of both."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memtax.files import write_text
from memtax.lm.special_tokens import text_ids
from memtax.membership.canaries import FILES

_DRAWS = 64
"""Random canaries that are tried for one that its text gives again."""


def draw(rng: np.random.Generator, ordinary: Sequence[int], count: int, tokenizer: Any) -> list[int]:
    """At most `count` random tokens that are read back from their text; some tokenizers never do, whose last draw is taken.

    Args:
        rng: source of randomness.
        ordinary: token ids to draw from.
        count: number of tokens.
        tokenizer: a `transformers` tokenizer.
    """
    ids: list[int] = []
    for _ in range(_DRAWS):
        ids = text_ids(tokenizer, [tokenizer.decode(rng.choice(ordinary, count).tolist())])[0][:count]
        if text_ids(tokenizer, [tokenizer.decode(ids)])[0] == ids:
            break
    return ids


def ordinary_ids(tokenizer: Any) -> list[int]:
    """Ids of a tokenizer that are not special tokens."""
    special = set(tokenizer.all_special_ids)
    return [number for number in range(len(tokenizer)) if number not in special]


def toss(count: int, seed: int) -> list[bool]:
    """Fair coins, independent of each other and of the canaries; the seed must be known to the owner alone."""
    return (np.random.default_rng(seed).random(count) < 1 / 2).tolist()


def write_record(folder: Path, canaries: Sequence[Mapping[str, Any]]) -> None:
    """Write the planted and the held-out canaries, which the owner alone may read, for `read_record`.

    Args:
        folder: the record's folder.
        canaries: `text`, `tokens`, `repetitions` (0: held out) and, where known, `coin` and `start`.
    """
    for planted, name in FILES.items():
        lines = [json.dumps(canary) + "\n" for canary in canaries if bool(canary["repetitions"]) is planted]
        if lines:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_text(folder / name, "".join(lines), private=True)
