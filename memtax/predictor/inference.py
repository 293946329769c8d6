"""Inference on coefficients: unpenalized, unweighted fits, and Wald tests that hold where rows share a document.

The predictor's fits are penalized and weighted, so nothing follows from their curvature. Here every test comes from a plain
maximum-likelihood fit by `statsmodels`; where none exists (separation), the reason is given instead of the numbers.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memtax import statistics
from memtax.errors import MemtaxError
from memtax.predictor import factors as declared
from memtax.predictor.copies import units_of
from memtax.predictor.factors import FACTORS
from memtax.predictor.logistic import MINIMUM, Array, Scaler
from memtax.predictor.robust import RobustFit
from memtax.predictor.usable_rows import few_units, usable
from memtax.progress import numbered
from memtax.schema import CATEGORIES

DEPENDENT = 1e-6
"""A column is a combination of others if what they leave of it is this small, relative to its length."""
MOST_ROWS_CHECKED = 50_000
"""Up to this many rows, separation is proved by a linear program; beyond, only that a fit does not converge is reported."""


def infer(
    table: pa.Table,
    factors: Sequence[str] = FACTORS,
    target: str = "is_memorized",
    category: str = "taxonomy",
    *,
    memorized_only: bool = False,
    level: float = 0.95,
) -> dict[str, Any]:
    """Coefficients with robust intervals for all sequences and each category, and tests of whether categories differ.

    Factors are standardized over all rows, so that coefficients are log odds per standard deviation and compare across
    models. Standard errors leave out one document after another (CR3; else one unit as `memtax.statistics.Units` finds them),
    and tests have the degrees of freedom of these errors: see `memtax.predictor.robust`. A test restricts as many
    coefficients as the models' ranks differ by, not as columns were named: templating is constant in two categories.

    Args:
        table: rows with the target, the category and the factors' columns; `document`, `text` or `tokens` name the units.
        factors: columns, or `is_templating`.
        target: boolean column.
        category: column of indices into `memtax.schema.CATEGORIES`.
        memorized_only: whether memorized sequences were added to a representative sample. Slopes stand, intercepts do not
            (Prentice & Pyke 1979) and are withheld.
        level: coverage of the intervals.

    Returns:
        JSON-ready: `rows`, `dropped`, `unit` and `units` (what errors are over, and how many), `models` (name to `n`,
            `positives`, `units`, `reason` or None, `left_out`, `coefficients`, `intercept`, `log_likelihood`), `compared` (the
            categories that have a fit) and `tests` of these (`test`, `factor`, `statistic` F, `df`, `df_residual`, `p`,
            `reason`). A coefficient has `error`, `t`, `df`, `p`, `low` and `high`. Below 10 units they are None, and the
            model's `interval_reason` says so.

    Raises:
        MemtaxError: a column is missing or of the wrong type.
    """
    chosen = declared.resolve(factors, target)
    names = tuple(factor.name for factor in chosen)
    rows = usable(table, chosen, target, category)
    units = units_of(table)[rows.kept]
    found: dict[str, Any] = {
        "rows": len(rows.labels),
        "unit": units.name,
        "units": units.count,
        "dropped": rows.dropped,
        "level": level,
    }
    found |= {"models": {}, "compared": [], "tests": []}
    if not len(rows.labels):
        return found
    values = Scaler.fit(rows.values)(rows.values)
    groups = {"baseline": np.ones(len(values), bool)}
    groups |= {name: rows.categories == code for code, name in enumerate(CATEGORIES)}
    for name, own in groups.items():
        found["models"][name] = _model(values[own], rows.labels[own], units[own], names, memorized_only, level)
    # A category without a fit of its own would leave the joint fits without one too.
    compared = [code for code, name in enumerate(CATEGORIES) if found["models"][name]["reason"] is None]
    own = np.isin(rows.categories, compared)
    found["compared"] = [CATEGORIES[code] for code in compared]
    found["tests"] = _tests(values[own], rows.labels[own], rows.categories[own], units[own], names)
    return found


@dataclass(frozen=True, eq=False)
class Likelihood:
    """A maximum-likelihood fit: the estimate, the log-likelihood and the design's rank; or a reason."""

    estimate: Array | None
    value: float | None
    rank: int
    reason: str | None


def fit(design: Array, labels: NDArray[np.bool_], names: Sequence[str] = ()) -> Likelihood:
    """Fit a design of independent columns (rows, columns), with what is wrong with it in words.

    Args:
        design: the intercept is one of its columns.
        labels: (rows,) the target.
        names: of the columns, for the reason.
    """
    import statsmodels.api as sm
    from statsmodels.tools.sm_exceptions import PerfectSeparationError

    rank = design.shape[1]
    needed = max(MINIMUM, rank)
    for count, which in ((int(labels.sum()), "positive"), (int((~labels).sum()), "negative")):
        if count < needed:
            return Likelihood(None, None, rank, f"{numbered(count, which)}, {needed} needed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = sm.Logit(labels.astype(np.float64), design)
            start = _start(design, labels)
            result = model.fit(start_params=start, method="newton", maxiter=50, disp=0, warn_convergence=False)
        except (PerfectSeparationError, np.linalg.LinAlgError):
            result = None
    failed = result is None or not result.mle_retvals["converged"] or not np.isfinite(result.params).all()
    # Some versions call a perfect fit converged.
    failed = failed or result.llf > -1e-6 * len(labels)
    if failed or np.abs(result.params).max() > 15 or _is_flat(design, np.asarray(result.params)):
        reason = _separation(design, labels, names)
        if reason is None and failed:
            reason = "the fit does not converge"
        if reason is not None:
            return Likelihood(None, None, rank, reason)
    return Likelihood(np.asarray(result.params), float(result.llf), rank, None)


def _is_flat(design: Array, estimate: Array) -> bool:
    """Whether the likelihood hardly changes in some direction at an estimate, as where the optimum lies at infinity.

    There the iteration stops at a coefficient that depends on versions and processors, often as converged.
    """
    from scipy.special import expit

    p = expit(design @ estimate)
    curvature = np.linalg.eigvalsh((design.T * (p * (1 - p))) @ design)
    return bool(curvature[0] <= 1e-9 * curvature[-1])


def _start(design: Array, labels: NDArray[np.bool_]) -> Array | None:
    """Our own optimum, where statsmodels needs one or two steps; None if there is none, so that it goes its own way."""
    from memtax.predictor import newton

    intercept = int((design == 1).all(axis=0).argmax())
    others = [column for column in range(design.shape[1]) if column != intercept]
    try:
        found = newton.fit(
            np.ascontiguousarray(design[:, others]), labels.astype(np.uint8), np.arange(len(labels)), penalty=0.0, most=25
        )
    except (MemtaxError, np.linalg.LinAlgError):
        return None
    return np.insert(found.coefficients, intercept, found.intercept)


def independent(design: Array) -> NDArray[np.int64]:
    """Columns that no earlier ones add up to: as many as the design's rank."""
    gram = design.T @ design
    lengths = np.sqrt(np.diag(gram))
    scaled = gram / np.outer(np.where(lengths > 0, lengths, 1), np.where(lengths > 0, lengths, 1))
    kept: list[int] = []
    factor = np.zeros((0, 0))
    for column in range(design.shape[1]):
        if lengths[column] == 0:
            continue
        # Cholesky, one column at a time: what the kept ones leave of this one.
        part = np.linalg.solve(factor, scaled[kept, column]) if kept else np.zeros(0)
        left = scaled[column, column] - part @ part
        if left > DEPENDENT**2 * 100:
            kept.append(column)
            factor = np.block([[factor, np.zeros((len(kept) - 1, 1))], [part[None], np.sqrt(left)[None, None]]])
    return np.array(kept, np.int64)


def _model(
    values: Array,
    labels: NDArray[np.bool_],
    units: statistics.Units,
    names: tuple[str, ...],
    memorized_only: bool,
    level: float,
) -> dict[str, Any]:
    """One model's coefficients, or why there are none."""
    facts: dict[str, Any] = {"n": len(labels), "positives": int(labels.sum()), "units": units.count if len(labels) else 0}
    empty: dict[str, Any] = {"interval_reason": None, "left_out": {}, "coefficients": [], "intercept": None}
    empty["log_likelihood"] = None
    if not len(labels):
        return {**facts, "reason": "no rows", **empty}
    design = np.column_stack([np.ones(len(values)), values])
    kept = independent(design)
    left_out = {}
    for place, name in enumerate(names, 1):
        if place not in kept:
            constant = values[:, place - 1].min() == values[:, place - 1].max()
            left_out[name] = "constant" if constant else "a combination of other factors"
    columns = [("intercept", *names)[place] for place in kept]
    design = np.ascontiguousarray(design[:, kept])
    fitted = fit(design, labels, columns)
    if fitted.estimate is None:
        return {**facts, "reason": fitted.reason, **empty, "left_out": left_out}
    few = few_units(units)
    robust = None if few else RobustFit(fitted.estimate, design, labels, _codes(units))
    intercept, *rows = _coefficients(columns, fitted.estimate, robust, level)
    return {
        **facts,
        "reason": None,
        "interval_reason": few,
        "left_out": left_out,
        "coefficients": rows,
        "intercept": None if memorized_only else {name: value for name, value in intercept.items() if name != "factor"},
        "log_likelihood": fitted.value,
    }


def _coefficients(columns: Sequence[str], estimates: Array, robust: RobustFit | None, level: float) -> list[dict[str, Any]]:
    """Estimate, error, test and interval of each column; the estimate alone without a covariance."""
    from scipy.stats import t as student

    rows: list[dict[str, Any]] = []
    for place, (name, estimate) in enumerate(zip(columns, estimates.tolist(), strict=True)):
        row: dict[str, Any] = {
            "factor": name,
            "coefficient": estimate,
            **dict.fromkeys(("error", "t", "df", "p", "low", "high")),
        }
        if robust is not None:
            error = float(np.sqrt(robust.covariance[place, place]))
            freedom = robust.freedom(np.eye(len(columns))[place])
            reach = float(student.isf((1 - level) / 2, freedom)) * error
            row |= {"error": error, "t": estimate / error, "df": freedom}
            row |= {
                "p": float(2 * student.sf(abs(estimate / error), freedom)),
                "low": estimate - reach,
                "high": estimate + reach,
            }
        rows.append(row)
    return rows


def _codes(units: statistics.Units) -> NDArray[np.int64]:
    """Codes (rows,) from 0 without gaps."""
    return np.unique(units.codes, return_inverse=True)[1].ravel().astype(np.int64)


def _tests(
    values: Array,
    labels: NDArray[np.bool_],
    categories: NDArray[np.int64],
    units: statistics.Units,
    names: tuple[str, ...],
) -> list[dict[str, Any]]:
    """Wald tests over units: category intercepts, all interactions with the category, and each factor's."""
    codes = np.unique(categories)
    if len(codes) < 2:
        return []
    intercepts = (categories[:, None] == codes[1:]).astype(np.float64)
    others = len(codes) - 1
    additive = np.column_stack([np.ones(len(values)), values, intercepts])
    crossed = np.column_stack([values[:, [place]] * intercepts for place in range(len(names))])
    full = _WaldFit.of(np.column_stack([additive, crossed]), labels, units)
    first = 1 + len(names)
    found = [
        _WaldFit.of(additive, labels, units).test("category intercepts", None, range(first, first + others)),
        full.test("interactions with the category", None, range(first + others, first + others + crossed.shape[1])),
    ]
    for place, name in enumerate(names):
        start = first + others * (1 + place)
        found.append(full.test("interaction with the category", name, range(start, start + others)))
    return found


@dataclass(frozen=True, eq=False)
class _WaldFit:
    """A fit of the independent columns of a design, whose restrictions are tested.

    Attributes:
        design: (rows, columns), all columns.
        labels: (rows,) the target.
        units: what the covariance is over.
        columns: numbers of the columns that were fitted.
        robust: the fit; None without one.
        reason: why there is none.
    """

    design: Array
    labels: NDArray[np.bool_]
    units: statistics.Units
    columns: NDArray[np.int64]
    robust: RobustFit | None
    reason: str | None

    @classmethod
    def of(cls, design: Array, labels: NDArray[np.bool_], units: statistics.Units) -> "_WaldFit":
        columns = independent(design)
        chosen = np.ascontiguousarray(design[:, columns])
        fitted = fit(chosen, labels)
        reason = fitted.reason or few_units(units)
        robust = None if reason or fitted.estimate is None else RobustFit(fitted.estimate, chosen, labels, _codes(units))
        return cls(design, labels, units, columns, robust, reason)

    def test(self, test: str, factor: str | None, restricted: Iterable[int]) -> dict[str, Any]:
        """The test that the given columns add nothing to the others: as many restrictions as the rank falls by."""
        tested = np.array(list(restricted), np.int64)
        others = np.setdiff1d(np.arange(self.design.shape[1]), tested)
        basis = others[independent(self.design[:, others])]
        rank = len(self.columns) - len(basis)
        row: dict[str, Any] = {"test": test, "factor": factor, "statistic": None, "df": rank, "df_residual": None, "p": None}
        reason = self.reason
        if reason is None and rank == 0:
            reason = "the models are the same: the interaction is constant, or a combination of other terms"
        if reason is None and self.robust is not None:
            places = np.flatnonzero(~np.isin(self.columns, basis))
            if len(places) > rank:
                # A tested column stands for one of the others: fitted last, it stands for itself.
                last = np.arange(len(others), len(others) + len(tested)).tolist()
                again = self.of(self.design[:, [*others, *tested]], self.labels, self.units)
                return again.test(test, factor, last)
            statistic, freedom, p = self.robust.wald(places)
            row["df_residual"] = freedom if freedom > 0 else None
            if freedom > 0:
                row |= {"statistic": statistic, "p": p}
            else:
                reason = (
                    f"{self.robust.number} {self.units.name}s of unequal weight are too few to test {rank} coefficients at once"
                )
        return {**row, "reason": reason}


def _separation(design: Array, labels: NDArray[np.bool_], names: Sequence[str]) -> str | None:
    """Whether a combination of columns never gets the side of a row wrong (Albert & Anderson 1984), in words."""
    from scipy.optimize import linprog

    for place, name in enumerate(names):
        low, high = design[:, place].min(), design[:, place].max()
        if low < high and np.isin(design[:, place], (low, high)).all():
            for value, side in ((low, "smaller"), (high, "larger")):
                own = labels[design[:, place] == value]
                if own.all() or not own.any():
                    what = "all" if own.all() else "none"
                    return f"separation: {what} of the {len(own)} rows with the {side} value of {name} are positive"
    if len(labels) > MOST_ROWS_CHECKED:
        return "the fit does not converge: the factors seem to separate positives from negatives"
    signed = np.where(labels[:, None], design, -design)
    signed = signed / np.abs(signed).max(axis=0)
    solved = linprog(-signed.mean(axis=0), A_ub=-signed, b_ub=np.zeros(len(signed)), bounds=(-1, 1), method="highs")
    if solved.status == 0 and solved.fun is not None and float(solved.fun) < -1e-7:
        return "separation: a combination of the factors separates positives from negatives, so no finite estimate exists"
    return None
