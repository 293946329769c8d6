"""What can be said of coefficients: unpenalised, unweighted fits, robust Wald tests and likelihood-ratio tests.

The predictor's fits are penalised and weighted, so nothing follows from their curvature. Here every test comes from a plain
maximum-likelihood fit by `statsmodels`; where none exists (separation), the reason stands in place of the numbers.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from memtax.errors import MemtaxError
from memtax.schema import CATEGORIES
from memtax.taxonomy import factors as declared
from memtax.taxonomy.factors import FACTORS
from memtax.taxonomy.logistic import MINIMUM, Array, Scaler
from memtax.taxonomy.rows import usable

if TYPE_CHECKING:
    import pyarrow as pa

DEPENDENT = 1e-6
"""A column is a combination of others if what they leave of it is this small, relative to its length."""
MOST_ROWS_CHECKED = 50_000
"""Rows up to which separation is proved by a linear program; beyond, a fit that does not converge is reported as such."""


def infer(
    table: "pa.Table",
    factors: Sequence[str] = FACTORS,
    target: str = "is_memorized",
    category: str = "taxonomy",
    *,
    memorized_only: bool = False,
    level: float = 0.95,
) -> dict[str, Any]:
    """Coefficients with robust intervals for all sequences and each category, and tests of whether categories differ.

    Factors are standardised over all rows, so that coefficients are log odds per standard deviation and compare across
    models. Standard errors are heteroskedasticity-consistent (HC0; White 1980). A likelihood-ratio statistic has as many
    degrees of freedom as the models' ranks differ by, not as columns were named: templating is constant in two categories.

    Args:
        table: rows with the target, the category and the factors' columns; independent of each other.
        factors: columns, or `is_templating`.
        target: boolean column.
        category: column of indices into `memtax.schema.CATEGORIES`.
        memorized_only: whether memorized sequences were added to a representative sample. Slopes stand, intercepts do not
            (Prentice & Pyke 1979) and are withheld.
        level: coverage of the intervals.

    Returns:
        JSON-ready: `rows`, `dropped`, `models` (name to `n`, `positives`, `reason` or None, `left_out`, `coefficients`,
            `intercept`, `log_likelihood`), `compared` (the categories that have a fit) and `tests` of these (`test`,
            `factor`, `statistic`, `df`, `p`, `reason`).

    Raises:
        MemtaxError: a column is missing or of the wrong type.
    """
    chosen = declared.resolve(factors, target)
    names = tuple(factor.name for factor in chosen)
    rows = usable(table, chosen, target, category)
    found: dict[str, Any] = {
        "rows": len(rows.labels),
        "dropped": rows.dropped,
        "level": level,
        "models": {},
        "compared": [],
        "tests": [],
    }
    if not len(rows.labels):
        return found
    values = Scaler.fit(rows.values)(rows.values)
    groups = {"baseline": np.ones(len(values), bool)}
    groups |= {name: rows.categories == code for code, name in enumerate(CATEGORIES)}
    for name, own in groups.items():
        found["models"][name] = _model(values[own], rows.labels[own], names, memorized_only, level)
    # A category without a fit of its own would leave the joint fits without one too.
    compared = [code for code, name in enumerate(CATEGORIES) if found["models"][name]["reason"] is None]
    own = np.isin(rows.categories, compared)
    found["compared"] = [CATEGORIES[code] for code in compared]
    found["tests"] = _tests(values[own], rows.labels[own], rows.categories[own], names)
    return found


@dataclass(frozen=True, eq=False)
class Likelihood:
    """A maximum-likelihood fit: the estimate, its robust errors, the log-likelihood and the design's rank; or a reason."""

    estimate: Array | None
    errors: Array | None
    value: float | None
    rank: int
    reason: str | None


def fit(design: Array, labels: NDArray[np.bool_], robust: bool, names: Sequence[str] = ()) -> Likelihood:
    """Fit a design of independent columns (rows, columns), with what is wrong with it in words.

    Args:
        design: the intercept is one of its columns.
        labels: (rows,) the target.
        robust: whether to compute HC0 errors.
        names: of the columns, for the reason.
    """
    import statsmodels.api as sm
    from statsmodels.tools.sm_exceptions import PerfectSeparationError

    rank = design.shape[1]
    needed = max(MINIMUM, rank)
    for count, which in ((int(labels.sum()), "positive"), (int((~labels).sum()), "negative")):
        if count < needed:
            return Likelihood(None, None, None, rank, f"{count} {which}{'' if count == 1 else 's'}, {needed} needed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            options = {"cov_type": "HC0"} if robust else {}
            model = sm.Logit(labels.astype(np.float64), design)
            start = _start(design, labels)
            result = model.fit(start_params=start, method="newton", maxiter=50, disp=0, warn_convergence=False, **options)
        except (PerfectSeparationError, np.linalg.LinAlgError):
            result = None
    failed = result is None or not result.mle_retvals["converged"] or not np.isfinite(result.params).all()
    if failed or np.abs(result.params).max() > 15:
        reason = _separation(design, labels, names)
        if reason is None and failed:
            reason = "the fit does not converge"
        if reason is not None:
            return Likelihood(None, None, None, rank, reason)
    errors = np.asarray(result.bse) if robust else None
    return Likelihood(np.asarray(result.params), errors, float(result.llf), rank, None)


def _start(design: Array, labels: NDArray[np.bool_]) -> Array | None:
    """Our own optimum, where statsmodels needs one or two steps; None if there is none, so that it goes its own way."""
    from memtax.taxonomy import newton

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
    values: Array, labels: NDArray[np.bool_], names: tuple[str, ...], memorized_only: bool, level: float
) -> dict[str, Any]:
    """One model's coefficients, or why there are none."""
    from scipy.special import ndtr, ndtri

    facts: dict[str, Any] = {"n": len(labels), "positives": int(labels.sum())}
    empty: dict[str, Any] = {"left_out": {}, "coefficients": [], "intercept": None, "log_likelihood": None}
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
    fitted = fit(np.ascontiguousarray(design[:, kept]), labels, True, columns)
    if fitted.estimate is None or fitted.errors is None:
        return {**facts, "reason": fitted.reason, **empty, "left_out": left_out}
    reach = float(ndtri((1 + level) / 2))
    rows = []
    for name, estimate, error in zip(columns, fitted.estimate.tolist(), fitted.errors.tolist(), strict=True):
        p = float(2 * ndtr(-abs(estimate / error)))
        bounds = {"low": estimate - reach * error, "high": estimate + reach * error}
        rows.append({"factor": name, "coefficient": estimate, "error": error, "z": estimate / error, "p": p, **bounds})
    intercept = rows.pop(0)
    return {
        **facts,
        "reason": None,
        "left_out": left_out,
        "coefficients": rows,
        "intercept": None if memorized_only else {name: value for name, value in intercept.items() if name != "factor"},
        "log_likelihood": fitted.value,
    }


def _tests(
    values: Array, labels: NDArray[np.bool_], categories: NDArray[np.int64], names: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Likelihood-ratio tests: category intercepts, all interactions with the category, and each factor's."""
    codes = np.unique(categories)
    if len(codes) < 2:
        return []
    intercepts = (categories[:, None] == codes[1:]).astype(np.float64)
    plain = np.column_stack([np.ones(len(values)), values])
    additive = np.column_stack([plain, intercepts])
    crossed = [values[:, [place]] * intercepts for place in range(len(names))]
    full_design = np.column_stack([additive, *crossed])
    small, middle, full = (_likelihood(design, labels) for design in (plain, additive, full_design))
    found = [
        _ratio("category intercepts", None, middle, small),
        _ratio("interactions with the category", None, full, middle),
    ]
    for place, name in enumerate(names):
        others = [block for other, block in enumerate(crossed) if other != place]
        restricted = full if full.reason else _likelihood(np.column_stack([additive, *others]), labels)
        found.append(_ratio("interaction with the category", name, full, restricted))
    return found


def _likelihood(design: Array, labels: NDArray[np.bool_]) -> Likelihood:
    return fit(np.ascontiguousarray(design[:, independent(design)]), labels, False)


def _ratio(test: str, factor: str | None, full: Likelihood, restricted: Likelihood) -> dict[str, Any]:
    from scipy.special import chdtrc

    row: dict[str, Any] = {"test": test, "factor": factor, "statistic": None, "df": full.rank - restricted.rank, "p": None}
    reason = full.reason or restricted.reason
    if reason is None and row["df"] == 0:
        reason = "the models are the same: the interaction is constant, or a combination of other terms"
    if reason is None and full.value is not None and restricted.value is not None:
        row["statistic"] = max(0.0, 2 * (full.value - restricted.value))
        row["p"] = float(chdtrc(row["df"], row["statistic"]))
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
        return "separation: a combination of the factors tells positives from negatives, so that no finite estimate exists"
    return None
