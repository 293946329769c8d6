"""Base class of the `evaluate` modules in `metrics/`: optional inputs, validation with clear errors, documentation.

Only the modules import this file, because importing `evaluate` takes seconds.
"""

import contextlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import datasets
import evaluate

from memtax.errors import MemtaxError
from memtax.metrics.inputs import check_whole, common_length

DOCUMENTS = {"documents": datasets.Value("large_string")}
"""Input of modules whose intervals resample whole documents. `string` would reject the nulls of an omitted input."""


def texts(function: Callable[..., Any], examples: str) -> dict[str, str]:
    """`description` and `inputs_description` of a module, from the docstring of the function that it calls."""
    lines, _, _ = (inspect.getdoc(function) or "").partition("\n\nRaises:")
    description, _, arguments = lines.partition("\n\nArgs:\n")
    return {"description": f"\n{description}\n", "inputs_description": f"\nArgs:\n{arguments}\n{examples}"}


def documented(function: Callable[..., Any], examples: str) -> Callable[[type[Any]], type[Any]]:
    """Class decorator that documents a module with the docstring of the function that it calls."""
    added: Callable[[type[Any]], type[Any]] = evaluate.utils.file_utils.add_start_docstrings(
        *texts(function, examples).values()
    )
    return added


class Module(evaluate.Metric):
    """An `evaluate.Metric` with optional inputs (omitted ones become columns of nulls) and one-line errors.

    `evaluate` uses the first module class in a script's namespace, so scripts write `import memtax.metrics.module` and derive
    from `memtax.metrics.module.Module`.
    """

    optional: ClassVar[tuple[str, ...]] = ()

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, Any] | None:
        """Compute the module on the added rows, or on the given columns; None on processes other than the first.

        Raises:
            ValueError: columns are missing, empty, of different lengths, or invalid for the module.
        """
        for name in self._feature_names():
            if name not in ("predictions", "references"):
                kwargs.setdefault(name, None)
        try:
            return super().compute(predictions=predictions, references=references, **kwargs)
        except BaseException:
            self._forget()
            raise

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add rows.

        Raises:
            ValueError: a column is missing, empty, of another length than the others, or of the wrong type.
        """
        names = self._feature_names()
        for name in kwargs:
            if name not in names:
                raise MemtaxError(f"{self.name} has no input {name!r}; it takes {', '.join(names)}")
        batch = {name: {"predictions": predictions, "references": references, **kwargs}.get(name) for name in names}
        given = {name: column for name, column in batch.items() if column is not None}
        missing = [name for name in names if name not in given and name not in self.optional]
        if missing or not given:
            raise MemtaxError(f"{self.name} needs {' and '.join(missing) or ' or '.join(names)}")
        rows = common_length(given)
        if "documents" in given:
            given["documents"] = [None if name is None else str(name) for name in given["documents"]]
        for name, column in given.items():
            if self._takes_whole_numbers(name):
                check_whole(column, name)
        try:
            super().add_batch(**{name: given.get(name, [None] * rows) for name in names})
        except (KeyError, TypeError, OverflowError) as error:
            # The message of a KeyError is only a column name that evaluate looks up while composing its own message.
            reason = "" if isinstance(error, KeyError) else f": {error}"
            raise MemtaxError(f"{self.name} takes {self.features}; {', '.join(given)} cannot be read so{reason}") from error

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Add one row; see `add_batch`."""
        row = {"predictions": prediction, "references": reference, **kwargs}
        self.add_batch(**{name: [value] for name, value in row.items() if value is not None})

    def _takes_whole_numbers(self, name: str) -> bool:
        """Whether an input takes integers; `datasets` would silently truncate fractions."""
        kinds = [each[name] for each in (self.features if isinstance(self.features, list) else [self.features])]
        types = {getattr(getattr(kind, "feature", kind), "dtype", None) for kind in kinds}
        return "int64" in types and "float64" not in types

    def _forget(self) -> None:
        """Drop rows and locks after an error, so that the next call starts fresh."""
        state: Any = self
        for lock in (state.filelock, *(state.filelocks or ())):
            if lock is not None:
                lock.release()
        for path in (state.cache_file_name, *(state.file_paths or ())):
            if path is not None:
                with contextlib.suppress(OSError):
                    Path(path).unlink(missing_ok=True)
        state.writer = state.data = state.buf_writer = state.cache_file_name = state.filelock = None
        state.filelocks = state.file_paths = state.selected_feature_format = None
