"""Shared code of the `evaluate` modules in `metrics/`: optional inputs, validation with clear errors, and intervals.

Only the modules import this file, because importing `evaluate` takes seconds.
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray

from memtax.errors import MemtaxError
from memtax.hub.similarity import known
from memtax.progress import numbered
from memtax.statistics import (
    FEWEST_UNITS,
    Interval,
    Units,
    auroc_interval,
    count_units,
    expanded_level,
    fewest_negatives,
    fewest_units,
    percentile_interval,
    resample,
    share,
    unit_codes,
)
from memtax.statistics.measures import Evaluator, auroc, evaluator, once
from memtax.statistics.operating import operating_evaluators

DOCUMENTS = {"documents": datasets.Value("large_string")}
"""Input of modules whose intervals resample whole documents. `string` would reject the nulls of an omitted input."""


class Module(evaluate.Metric):
    """An `evaluate.Metric` with optional inputs (omitted ones become columns of nulls) and one-line errors.

    `evaluate` uses the first module class in a script's namespace, so scripts write `import memtax.hub.modules` and derive
    from `memtax.hub.modules.Module`.
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
        rows = _common_length(given)
        if "documents" in given:
            given["documents"] = [None if name is None else str(name) for name in given["documents"]]
        for name, column in given.items():
            if self._takes_whole_numbers(name):
                _check_whole(column, name)
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


def _common_length(given: Mapping[str, Any]) -> int:
    """Number of rows in every given input, at least one."""
    for name, column in given.items():
        if isinstance(column, str) or not hasattr(column, "__len__"):
            raise MemtaxError(f"{name} must be a list with one entry per row, not {type(column).__name__}")
    lengths = {name: len(column) for name, column in given.items()}
    if len(set(lengths.values())) > 1:
        raise MemtaxError(f"inputs differ in length: {', '.join(f'{name} {rows}' for name, rows in lengths.items())}")
    rows = next(iter(lengths.values()))
    if not rows:
        raise MemtaxError(f"{', '.join(given)} is empty; at least one row is needed")
    return rows


def _check_whole(column: Sequence[Any], name: str) -> None:
    for row, value in enumerate(column):
        if isinstance(value, str) or getattr(getattr(value, "dtype", None), "kind", None) in ("i", "u"):
            continue
        for entry in value if hasattr(value, "__iter__") else (value,):
            if isinstance(entry, (float, np.floating)) and not float(entry).is_integer():
                raise MemtaxError(f"{name} must be whole numbers, not {entry} in row {row}")


def given(column: Sequence[Any] | None) -> Sequence[Any] | None:
    """The column, or None if it was omitted."""
    return None if column is None or all(value is None for value in column) else column


def flags(column: Sequence[float | None], name: str) -> list[bool]:
    """A column of 0 and 1 as booleans.

    Raises:
        MemtaxError: a value is missing or is not 0 or 1.
    """
    for row, value in enumerate(column):
        if value not in (0, 1):
            raise MemtaxError(f"{name} must be 0 or 1, not {value} in row {row}")
    return [bool(value) for value in column]


def units_of(documents: Sequence[str | None] | None) -> Units | None:
    """Resampling units from the input `documents`: a row without one is its own unit; None if the input was omitted."""
    return None if given(documents) is None else Units(unit_codes(documents), "document")


def counted(units: Units | None) -> dict[str, int]:
    """`documents`: their number, if given."""
    return {} if units is None else {"documents": units.count}


def interval(name: str, found: Interval) -> dict[str, float | None]:
    """An estimate as `name`, `name_low` and `name_high`."""
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def bootstrap(
    evaluators: Mapping[str, Evaluator],
    labels: Sequence[bool],
    resamples: int,
    level: float,
    seed: int,
    stratified: bool = True,
    units: Units | None = None,
) -> dict[str, Any]:
    """Several statistics with percentile bootstrap intervals on shared resamples.

    Args:
        evaluators: name to a statistic of the rows, from `memtax.statistics`.
        labels: one per row.
        resamples: number of resamples; 0: only the statistics.
        level: coverage of the intervals.
        seed: random seed.
        stratified: whether each class keeps its size in every resample.
        units: resample whole units; with fewer than 10 (per class) intervals are null with a reason. None: independent rows.
    """
    array = np.asarray(labels, np.float64)
    values = {name: once(evaluate, array) for name, evaluate in evaluators.items()}
    if not resamples:
        return dict(values)
    strata, codes = array if stratified else None, None if units is None else units.codes
    if codes is not None and (fewest := fewest_units(codes, strata)) < FEWEST_UNITS:
        return {key: value for name, number in values.items() for key, value in withheld(name, number, fewest).items()}
    level = level if codes is None else expanded_level(level, codes, strata)
    draws = resample(list(evaluators.values()), len(array), resamples, seed, strata, codes)
    result: dict[str, Any] = {}
    for (name, value), drawn in zip(values.items(), draws, strict=True):
        result |= interval(name, percentile_interval(value, drawn, level))
    return result


def withheld(name: str, value: float, documents: int) -> dict[str, Any]:
    """An estimate whose interval is null because there are too few documents."""
    reason = f"no interval: {numbered(documents, 'document')} where {FEWEST_UNITS} are needed"
    return {name: value, f"{name}_low": None, f"{name}_high": None, f"{name}_reason": reason}


def area(
    name: str, labels: Sequence[bool], values: Sequence[float], resamples: int, level: float, units: Units | None = None
) -> dict[str, Any]:
    """AUROC with its interval (`auroc_interval`), unless no resamples are requested, or the reason why it is withheld."""
    result: dict[str, Any] = {name: once(evaluator(auroc, labels, values), np.asarray(labels, np.float64))}
    if resamples:
        found = auroc_interval(labels, values, None if units is None else units.codes, level)
        result |= {f"{name}_low": found.low if found else None, f"{name}_high": found.high if found else None}
        if found is None:
            kind = "" if units is None else "documents of "
            result[f"{name}_reason"] = f"no interval: fewer than {FEWEST_UNITS} {kind}members or non-members"
    return result


def operating(
    labels: Sequence[bool],
    values: Sequence[float],
    fprs: Sequence[float],
    tprs: Sequence[float],
    resamples: int,
    level: float,
    seed: int,
    units: Units | None = None,
) -> dict[str, Any]:
    """AUROC, TPR at each of `fprs` and FPR at each of `tprs`, with intervals, or the reasons why they are withheld."""
    outside = ~np.asarray(labels, bool)
    others = int(outside.sum()) if units is None else count_units(units.codes[outside])
    result = area("auroc", labels, values, resamples, level, units)
    names = [*(f"tpr_at_fpr_{fpr:g}" for fpr in fprs), *(f"fpr_at_tpr_{tpr:g}" for tpr in tprs)]
    points = dict(zip(names, operating_evaluators(labels, values, tuple(fprs), tuple(tprs)), strict=True))
    for name, fpr in zip(names, fprs, strict=False):
        needed = fewest_negatives(fpr)
        if needed is None or others < needed:
            least = "no number is enough" if needed is None else f"{needed:,} are needed"
            del points[name]
            result |= {name: None, **({f"{name}_low": None, f"{name}_high": None} if resamples else {})}
            kind = "" if units is None else "documents of "
            result[f"{name}_reason"] = f"withheld: {others:,} {kind}non-members; {least}"
    return {**result, **bootstrap(points, labels, resamples, level, seed, units=units)} if points else result


def separation(
    labels: Sequence[bool],
    values: Sequence[float],
    resamples: int,
    level: float,
    seed: int,
    units: Units | None = None,
) -> dict[str, Any]:
    """AUROC, TPR at 5% FPR and FPR at 95% TPR of scores that are larger for members, with intervals."""
    return operating(labels, values, (0.05,), (0.95,), resamples, level, seed, units)


def aurocs(
    scores: Mapping[str, Sequence[float | None]],
    references: Sequence[float],
    resamples: int,
    level: float,
    units: Units | None = None,
) -> dict[str, Any]:
    """AUROC of each score, over the rows that have it, as `auroc_{score}` with its interval."""
    result: dict[str, Any] = {}
    for name, column in scores.items():
        rows, values = known(column)
        labels = flags([references[row] for row in rows], "references")
        result |= area(f"auroc_{name}", labels, values, resamples, level, None if units is None else units[rows])
    return result


def rate(name: str, outcomes: Sequence[bool] | NDArray[np.bool_], level: float, units: Units | None = None) -> dict[str, Any]:
    """A rate with its interval, over documents if given, otherwise for independent rows (Clopper & Pearson 1934)."""
    array = np.asarray(outcomes, bool)
    return rate_of(name, share(array, units or Units.of_rows(len(array)), level), units)


def rate_of(name: str, row: Mapping[str, Any], units: Units | None) -> dict[str, Any]:
    """A row of `statistics.share` as `name`, `name_low`, `name_high` and, if its interval is withheld, `name_reason`."""
    low, high = ("low_independent", "high_independent") if units is None else ("low", "high")
    reason = {f"{name}_reason": row["reason"]} if units is not None and row["reason"] else {}
    return {name: row["rate"], f"{name}_low": row[low], f"{name}_high": row[high], **reason}


def token_ids(rows: Sequence[Any], tokenizer: str | None, name: str) -> list[list[int]]:
    """Token ids of rows that are token ids, or of texts with the given tokenizer.

    Raises:
        MemtaxError: texts without a tokenizer, or a row without tokens.
    """
    if any(isinstance(row, str) for row in rows):
        if tokenizer is None:
            raise MemtaxError(f"{name} are texts; give tokenizer=NAME to compare tokens, or lists of token ids")
        from transformers import AutoTokenizer

        loaded = AutoTokenizer.from_pretrained(tokenizer)
        rows = [loaded(row, add_special_tokens=False)["input_ids"] if row else [] for row in rows]
    found = []
    for number, row in enumerate(rows):
        if row is None or any(token is None for token in row):
            raise MemtaxError(f"{name} have a null in row {number}; drop rows without tokens first")
        found.append([int(token) for token in row])
    return found


def texts(column: Sequence[str | None], name: str) -> list[str]:
    """A column of texts, none missing.

    Raises:
        MemtaxError: a text is missing.
    """
    for row, text in enumerate(column):
        if text is None:
            raise MemtaxError(f"{name} have no text in row {row}; drop rows without a text first")
    return [text for text in column if text is not None]
