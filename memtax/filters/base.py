"""The base class of filters: a frozen dataclass that `datasets.Dataset.map(filter, batched=True)` can call.

A filter declares the columns that it reads (`requires`) and adds (`columns`, typed by `memtax.schema`), and stores parameters
only. Models and tables are loaded on first use, once per process, so that a filter is cheap to hash and to send to worker
processes.
"""

import dataclasses
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from memtax import schema
from memtax.extras import explained
from memtax.provenance import digest, fingerprint_path

if TYPE_CHECKING:
    import datasets
    import numpy.typing as npt
    import pyarrow as pa

Batch = dict[str, list[Any]]
"""Column name to values, one list entry per row: the format of `Dataset.map(batched=True)`."""
Columns = Mapping[str, "list[Any] | pa.Array"]
"""Column name to values: a list, or the Arrow array in which they were computed."""


def list_array(lengths: "npt.ArrayLike", values: "npt.NDArray[Any]", missing: "npt.ArrayLike | None" = None) -> "pa.Array":
    """A column of lists.

    Args:
        lengths: number of values in each row.
        values: the values of all rows, one after another.
        missing: which rows are null, with length 0.
    """
    import numpy as np
    import pyarrow as pa

    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    mask = None if missing is None else pa.array(np.asarray(missing, bool))
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values), mask=mask)


@dataclass(frozen=True)
class Filter(ABC):
    """Base class of all filters. A subclass sets the class variables and implements `compute`.

    Example:
        >>> from memtax.filters import Filter
        >>> class WordFilter(Filter):
        ...     name, requires, columns = "words", ("text",), ("words",)
        ...
        ...     def compute(self, batch):
        ...         return {"words": [len(text.split()) for text in batch["text"]]}
        >>> WordFilter()({"text": ["one two"]})
        {'words': [2]}
    """

    name: ClassVar[str]
    """The catalogue name."""
    requires: ClassVar[tuple[str, ...]]
    """Columns that the filter reads."""
    columns: ClassVar[tuple[str, ...]]
    """Columns that the filter adds, all declared in `memtax.schema`."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Extras without which the filter cannot compute anything, checked before a job starts."""
    neutral: ClassVar[tuple[str, ...]] = ()
    """Parameters that no value depends on, left out of the fingerprint."""
    version: ClassVar[int] = 1
    """Increased whenever the same parameters would give other values, because `datasets` does not notice edited code."""

    def __post_init__(self) -> None:  # noqa: B027 - a filter without parameters has nothing to check
        """Check the parameters; also called in worker processes that receive the filter."""

    def _with_parameters(self, requires: tuple[str, ...] | None = None, columns: tuple[str, ...] | None = None) -> None:
        """Override the class's required or added columns from `__post_init__`, if they depend on the parameters."""
        for name, value in (("requires", requires), ("columns", columns)):
            if value is not None:
                object.__setattr__(self, name, value)

    @abstractmethod
    def compute(self, batch: Batch) -> Columns:
        """Compute the added columns for a batch that has the required columns."""

    def inputs(self) -> Iterable[str]:
        """Paths or Hub names that the filter reads; their contents are part of the fingerprint."""
        return ()

    @property
    def features(self) -> "datasets.Features":
        """Types of the added columns."""
        return schema.features(self.columns)

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits of the filter's name, version, parameters and input files."""
        inputs = [str(path) for path in self.inputs()]
        counted = [field.name for field in dataclasses.fields(self) if field.name not in self.neutral]
        parameters = {name: getattr(self, name) for name in counted}
        # A path represents its contents, so a run that is moved keeps its identity.
        parameters = {name: "input" if _covers(value, inputs) else value for name, value in parameters.items()}
        return digest(self.name, self.version, parameters, [fingerprint_path(path) for path in inputs])

    def __call__(self, batch: Batch) -> Batch:
        """Add the filter's columns to a batch.

        Args:
            batch: column name to list of values, one entry per row; other columns are ignored.

        Returns:
            The added columns only, each as long as the batch. Missing values are None, never a sentinel.

        Raises:
            MemtaxError: a required column is missing.
        """
        added = self.computed(batch)
        return {name: values if isinstance(values, list) else values.to_pylist() for name, values in added.items()}

    def computed(self, batch: Batch) -> Columns:
        """The added columns as they were computed: the engine writes Arrow arrays without making Python objects of them.

        Raises:
            MemtaxError: a required column is missing.
        """
        schema.require(batch, self.requires, f"the batch for filter {self.name!r}")
        rows = len(batch[self.requires[0]])
        with explained():
            added = self.compute({name: batch[name] for name in self.requires})
        wrong = {name: len(values) for name, values in added.items() if len(values) != rows}
        if tuple(added) != tuple(self.columns) or wrong:
            raise AssertionError(f"filter {self.name!r} broke its contract: columns {tuple(added)}, lengths {wrong}")
        return added

    def apply(self, dataset: "datasets.Dataset", batch_size: int = 1000) -> "datasets.Dataset":
        """`dataset.map` with this filter, its column types, and a cache key from its parameters and version.

        Args:
            dataset: rows with the required columns.
            batch_size: rows per call.

        Returns:
            The dataset with the added columns.
        """
        schema.require(dataset.column_names, self.requires, "the dataset")
        return dataset.map(
            self,
            batched=True,
            batch_size=batch_size,
            features=type(dataset.features)({**dataset.features, **self.features}),
            new_fingerprint=digest(dataset._fingerprint, self.fingerprint, batch_size),
            desc=self.name,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Parameters and version only: `datasets` hashes this state, and worker processes receive it."""
        state = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**state, "_fingerprint": self.fingerprint}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            if name != "_fingerprint":
                object.__setattr__(self, name, value)
        self.__post_init__()


def _covers(value: Any, inputs: list[str]) -> bool:
    """Whether a parameter is a local path that equals or contains an input."""
    if not isinstance(value, str) or not os.path.exists(value):
        return False
    return any(path == value or Path(value) in Path(path).parents for path in inputs)
