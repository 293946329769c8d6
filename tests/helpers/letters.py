"""A small filter for the engine's tests, importable by the processes that they start."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import datasets

from memtax.filters.base import Filter


@dataclass(frozen=True)
class FirstToken(Filter):
    """Adds the sum of a row's tokens as `match_length`, and notes each call in a file."""

    name: ClassVar[str] = "first_token"
    requires: ClassVar[tuple[str, ...]] = ("tokens",)
    columns: ClassVar[tuple[str, ...]] = ("match_length",)
    log: str = ""
    fail_from: int | None = None

    @property
    def fingerprint(self) -> str:
        return "first_token"

    def compute(self, batch):
        with Path(self.log).open("a") as handle:
            handle.write(f"{os.environ.get('RANK', '0')}:{len(batch['tokens'])}\n")
        if self.fail_from is not None and any(self.fail_from in row for row in batch["tokens"]):
            raise RuntimeError("killed")
        return {"match_length": [sum(row) if row else None for row in batch["tokens"]]}


def rows(count: int) -> datasets.Dataset:
    tokens = [[*list(range(i % 5)), i] if i % 7 else [] for i in range(count)]
    features = datasets.Features({"sequence_id": datasets.Value("int64"), "tokens": datasets.List(datasets.Value("int32"))})
    return datasets.Dataset.from_dict({"sequence_id": list(range(100, 100 + count)), "tokens": tokens}, features=features)
