"""The partition search: every two-rule partition scored on validation rows, the best one judged once on test rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import expit

from memtax import statistics
from memtax.checksums import Parts
from memtax.engine.once import MANIFEST, check
from memtax.errors import MemtaxError
from memtax.files import write_json, write_parquet
from memtax.predictor.evaluation import Prediction, evaluate
from memtax.predictor.groups import Problem
from memtax.predictor.partitions import QUANTILES, Partition, all_partitions
from memtax.progress import progress_bar
from memtax.provenance import digest

CRITERIA = ("log_loss", "brier", "roc_auc", "pr_auc", "f1")
SMALLER = ("log_loss", "brier")
"""Criteria of which less is better."""
GROUPS = ("A", "B", "C")
SLICE = 54
"""Partitions of one file: what is lost at most when a search is interrupted."""


@dataclass(frozen=True)
class SearchConfig:
    """The search space and its criterion.

    Attributes:
        factors: of the models.
        split_on: factors that the rules ask about.
        quantiles: of the memorized training rows.
        target: boolean column.
        criterion: chooses the partition on validation rows. The log loss is the default: it is a proper score, and it needs
            no threshold. F1 is at the threshold that is best on those rows.
        validation: share of the rows.
        test: share of the rows.
        seed: of the split and the bootstrap.
        resamples: bootstrap resamples of each interval on the test rows.
        category: column of categories, whose models are judged beside the partition's; None for no such comparison.
    """

    factors: tuple[str, ...]
    split_on: tuple[str, ...]
    quantiles: tuple[float, ...] = QUANTILES
    target: str = "is_memorized"
    criterion: str = "log_loss"
    validation: float = 0.2
    test: float = 0.2
    seed: int = 1024
    resamples: int = 1000
    category: str | None = None

    def __post_init__(self) -> None:
        if self.criterion not in CRITERIA:
            raise MemtaxError(f"criterion is one of {', '.join(CRITERIA)}, not {self.criterion!r}")
        if len(self.split_on) < 2:
            raise MemtaxError(f"a partition asks about two factors; split_on names {len(self.split_on)}")

    def prepare(self, table: pa.Table) -> Problem:
        """Read the table; see `Problem.prepare`."""
        return Problem.prepare(
            table,
            factors=self.factors,
            split_on=self.split_on,
            quantiles=self.quantiles,
            target=self.target,
            validation=self.validation,
            test=self.test,
            seed=self.seed,
            category=self.category,
        )

    @property
    def partitions(self) -> list[Partition]:
        """All partitions, in the order of their numbers."""
        return all_partitions(len(self.split_on), len(self.quantiles))


def score(
    problem: Problem, partitions: Iterable[tuple[int, Partition]], criterion: str, threads: int | None = None
) -> list[dict[str, Any]]:
    """Fit and score partitions on the validation rows.

    Args:
        problem: the prepared rows.
        partitions: number and partition.
        criterion: computed besides log loss and Brier score, which are sums over groups and come for free.
        threads: at most so many at once; None takes all processors.

    Returns:
        One row per partition: `partition` (number), `factor_1`, `quantile_1`, `threshold_1`, `factor_2`, ..., training rows
        `rows_a`, `rows_b`, `rows_c`, validation `log_loss` and `brier` (means), the criterion, and `silent`: groups for which
        the baseline answers, with the reason.
    """
    partitions = list(partitions)
    fits = problem.fit_groups((group for _, one in partitions for group in one.groups), threads)
    labels = problem.parts["validation"].labels
    rows = []
    for number, one in partitions:
        own = [fits[group] for group in one.groups]
        row: dict[str, Any] = {"partition": number}
        for rank, (factor, quantile) in enumerate((one.first, one.second), 1):
            row[f"factor_{rank}"] = problem.split_on[factor]
            row[f"quantile_{rank}"] = problem.quantiles[quantile]
            row[f"threshold_{rank}"] = float(problem.bounds[factor, quantile])
        row |= {f"rows_{name.lower()}": fit.rows for name, fit in zip(GROUPS, own, strict=True)}
        row["log_loss"] = sum(fit.log_loss for fit in own) / len(labels)
        row["brier"] = sum(fit.brier for fit in own) / len(labels)
        if criterion not in SMALLER:
            row[criterion] = _ranking(criterion, labels, expit(problem.log_odds("validation", one.groups)))
        reasons = [f"{name}: {fit.reason}" for name, fit in zip(GROUPS, own, strict=True) if fit.reason and fit.rows]
        row["silent"] = "; ".join(reasons) or None
        rows.append(row)
    return rows


def _ranking(criterion: str, labels: Any, probabilities: Any) -> float:
    if criterion == "f1":
        return statistics.f1_score(labels, probabilities >= statistics.best_threshold(labels, probabilities))
    return {"roc_auc": statistics.auroc, "pr_auc": statistics.average_precision}[criterion](labels, probabilities)


def search_slice(
    problem: Problem, config: SearchConfig, folder: Path, identity: dict[str, Any], start: int = 0, stop: int | None = None
) -> None:
    """Score partitions `start` to `stop` into `folder/partitions`, in files that a later call reuses.

    Raises:
        StaleOutputError: the folder belongs to other data or another configuration.
        MemtaxError: the slice is empty or out of range.
    """
    partitions = config.partitions
    stop = len(partitions) if stop is None else stop
    if not 0 <= start < stop <= len(partitions):
        raise MemtaxError(f"slice {start} to {stop} is not inside the partitions 0 to {len(partitions)}")
    claim(folder, identity)
    parts = _parts(folder, identity)
    for name in sorted(path.name for path in parts.folder.glob("*.parquet")):
        if not parts.is_usable(name) and name in parts.names():
            # The file that takes its place may have another name.
            parts.remove(name)
    done = finished(folder, identity)
    with progress_bar("partitions", stop - start, "partitions", unit_scale=False) as bar:
        for first in range(start, stop, SLICE):
            numbers = [number for number in range(first, min(first + SLICE, stop)) if number not in done]
            if numbers:
                rows = score(problem, ((number, partitions[number]) for number in numbers), config.criterion)
                parts.write_parquet(f"{numbers[0]:06d}-{numbers[-1] + 1:06d}.parquet", _table(rows))
            bar.update(min(first + SLICE, stop) - first)


def claim(folder: Path, identity: dict[str, Any]) -> None:
    """Make the folder ours, or see that it is.

    Raises:
        StaleOutputError: it holds results of other data or another configuration.
    """
    if folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        check(folder, identity, _parts(folder, identity))
    else:
        write_json(folder / MANIFEST, identity)


def merge(folder: Path, others: Sequence[Path], identity: dict[str, Any]) -> None:
    """Copy the finished partitions of other folders, made elsewhere from the same data and configuration.

    Raises:
        StaleOutputError: a folder belongs to another search.
    """
    claim(folder, identity)
    for other in others:
        check(other, identity)
        done = finished(folder, identity)
        rows = [row for number, row in sorted(finished(other, identity).items()) if number not in done]
        if rows:
            name = digest([row["partition"] for row in rows])[:16]
            _parts(folder, identity).write_parquet(f"merged-{name}.parquet", _table(rows))


def _parts(folder: Path, identity: dict[str, Any]) -> Parts:
    return Parts.of(folder / "partitions", identity)


def finished(folder: Path, identity: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Rows of the partitions that were scored for this search, by number; a file that does not match its checksum is none."""
    parts = _parts(folder, identity)
    usable = [name for name in parts.names() if parts.is_usable(name)]
    rows = [row for name in usable for row in pq.read_table(parts.folder / name).to_pylist()]
    return {row["partition"]: row for row in rows}


def conclude(problem: Problem, config: SearchConfig, folder: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Choose the best partition and judge it once on the test rows; None while partitions are missing.

    Returns:
        JSON-ready `chosen` (its row), `models` (coefficients of the groups), `metrics` (on the test rows, the partition's
        models against the baseline, with intervals and paired differences), `ranked` (all partitions, best first).
    """
    rows = finished(folder, identity)
    if len(rows) < len(config.partitions):
        return None
    sign = 1 if config.criterion in SMALLER else -1
    # Among equals the one with the smallest number: no accident of order decides.
    ranked = sorted(rows.values(), key=lambda row: (sign * row[config.criterion], row["partition"]))
    partition = config.partitions[ranked[0]["partition"]]
    baseline = problem.fit_groups([()])[()]
    validation = len(problem.parts["validation"].labels)
    found = {
        "criterion": config.criterion,
        "partitions": len(rows),
        "chosen": ranked[0],
        "validation_log_loss_baseline": baseline.log_loss / validation,
        "models": _coefficients(problem, partition),
        "rows": {name: len(part.labels) for name, part in problem.parts.items()},
        "dropped": problem.dropped,
        "split": problem.described,
        "metrics": judge(problem, {"partition": partition.groups}, partition.assign(problem.parts["test"].codes), config),
    }
    write_json(folder / "search.json", found)
    write_parquet(folder / "partitions.parquet", _table(ranked))
    return {**found, "ranked": ranked}


def judge(problem: Problem, models: dict[str, Any], groups: Any, config: SearchConfig) -> dict[str, Any]:
    """Metrics on the test rows of the baseline, of the categories and of others (name to groups), in aggregate and by group."""
    predictions = {}
    known = {"taxonomic": problem.taxonomy} if config.category is not None else {}
    for name, own in {"baseline": [()], **known, **models}.items():
        judged, chosen = (expit(problem.log_odds(part, own)) for part in ("test", "validation"))
        threshold = statistics.best_threshold(problem.parts["validation"].labels, chosen)
        predictions[name] = Prediction(judged, judged >= threshold, {})
    labels = problem.parts["test"].labels.astype(bool)
    names = [chr(ord("A") + code) for code in range(int(groups.max()) + 1)]
    found = evaluate(labels, groups, predictions, config.resamples, config.seed, names, problem.parts["test"].units)
    return {"models": found["models"], "differences": found["differences"]}


def _coefficients(problem: Problem, partition: Partition) -> dict[str, Any]:
    fits = problem.fit_groups([(), *partition.groups])
    named = zip(("baseline", *GROUPS), ((), *partition.groups), strict=True)
    return {
        name: {
            "coefficients": dict(zip(problem.factors, fits[group].fit.coefficients.tolist(), strict=True)),
            "intercept": fits[group].fit.intercept,
            "rows": fits[group].rows,
            "reason": fits[group].reason,
        }
        for name, group in named
    }


def _table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    table = pa.Table.from_pylist(list(rows))
    place = table.column_names.index("silent")
    return table.set_column(place, "silent", table.column("silent").cast(pa.string()))
