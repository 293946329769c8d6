import json

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats
import statsmodels.api as sm

from helpers import simulated
from memtax.predictor import inference, newton
from memtax.predictor.inference import independent, infer
from memtax.predictor.robust import RobustFit
from memtax.schema import CATEGORIES

NAMES = ("a", "b", "sequence_duplicates", "is_templating")
simulated.declare("tell", "flag", "twice", "flat")


def design_of(data, names=("a", "b")):
    x = np.stack([np.array(data[name]) for name in names], axis=1)
    return (x - x.mean(0)) / x.std(0), np.array(data["is_memorized"]).astype(float)


def test_wald_tests_by_hand():
    """Estimate from Newton's method, errors from leaving out one row after another, to first order (HC3)."""
    data = simulated.table(rows=2500)
    found = infer(data, ("a", "b"))["models"]["baseline"]
    x, y = design_of(data)
    x = np.column_stack([np.ones(len(x)), x])
    beta = np.zeros(3)
    for _ in range(30):
        p = 1 / (1 + np.exp(-x @ beta))
        hessian = (x.T * (p * (1 - p))) @ x
        beta += np.linalg.solve(hessian, x.T @ (y - p))
    bread = np.linalg.inv(hessian)
    leverage = np.einsum("ij,jk,ik->i", x, bread, x) * p * (1 - p)
    meat = (x.T * ((y - p) / (1 - leverage)) ** 2) @ x
    errors = np.sqrt(np.diag(bread @ meat @ bread) * (len(y) - 1) / len(y))
    for row, estimate, error in zip(found["coefficients"], beta[1:], errors[1:], strict=True):
        assert row["coefficient"] == pytest.approx(estimate, abs=1e-8)
        assert row["error"] == pytest.approx(error, rel=2e-5)
        assert row["p"] == pytest.approx(2 * scipy.stats.t.sf(abs(estimate / error), row["df"]), rel=0.01, abs=1e-300)
        reach = scipy.stats.t.isf(0.025, row["df"]) * error
        assert (row["low"], row["high"]) == pytest.approx((estimate - reach, estimate + reach), abs=1e-4 * error)
    assert found["intercept"]["coefficient"] == pytest.approx(beta[0], abs=1e-8)


def documents(rows_of, seed, sd, by_document=True, slope=0.7):
    """A factor without effect, one with, and effects of documents with standard deviation sd."""
    rng = np.random.default_rng(seed)
    unit = np.repeat(np.arange(len(rows_of)), rows_of)
    null = rng.normal(size=len(rows_of))[unit] if by_document else rng.normal(size=len(unit))
    real = rng.normal(size=len(unit))
    logit = -1 + slope * real + sd * rng.normal(size=len(rows_of))[unit]
    columns = {"is_memorized": rng.random(len(unit)) < 1 / (1 + np.exp(-logit)), "a": null, "b": real}
    return pa.table({**columns, "taxonomy": rng.integers(0, 2, len(unit)), "document": [f"d{u}" for u in unit]})


def test_errors_over_documents_are_those_of_leaving_each_out():
    data = documents([30, 80, 50, 5, 120, 60, 40, 70, 20, 90, 50, 10], seed=1, sd=1.0)
    model = infer(data, ("a", "b"))["models"]["baseline"]
    x, y = design_of(data)
    x = np.column_stack([np.ones(len(x)), x])
    beta = sm.Logit(y, x).fit(disp=0).params
    unit = np.unique(data.column("document").to_pylist(), return_inverse=True)[1]
    p = 1 / (1 + np.exp(-x @ beta))
    moves = []
    for one in range(12):
        left = unit != one
        information = (x[left].T * (p * (1 - p))[left]) @ x[left]
        moves.append(np.linalg.solve(information, x[~left].T @ (y - p)[~left]))
    errors = np.sqrt(11 / 12 * np.square(moves).sum(axis=0))
    for row, error in zip(model["coefficients"], errors[1:], strict=True):
        assert row["error"] == pytest.approx(error, rel=2e-3)
    assert (model["units"], model["interval_reason"]) == (12, None)


@pytest.mark.parametrize("by_document", [False, True])
@pytest.mark.parametrize("number", [10, 37])
def test_a_factor_without_effect_is_rarely_rejected(number, by_document):
    rejected = []
    for seed in range(200):
        sizes = np.maximum(3, np.random.default_rng(1000 + seed).lognormal(3.4, 0.8, number).astype(int))
        data = documents(sizes, seed, sd=seed % 3, by_document=by_document)
        x, y = design_of(data)
        fitted = newton.fit(np.ascontiguousarray(x), y.astype(np.uint8), np.arange(len(y)), penalty=0.0)
        design = np.column_stack([np.ones(len(y)), x])
        estimate = np.append(fitted.intercept, fitted.coefficients)
        robust = RobustFit(estimate, design, y.astype(bool), np.repeat(np.arange(number), sizes))
        t = estimate[1] / np.sqrt(robust.covariance[1, 1])
        rejected.append(2 * scipy.stats.t.sf(abs(t), robust.freedom(np.eye(3)[1])) < 0.05)
    assert np.mean(rejected) <= 0.08


def test_fewer_than_ten_documents_show_estimates_without_errors():
    found = infer(documents([60] * 9, seed=0, sd=1.0), ("a", "b"))
    model = found["models"]["baseline"]
    assert model["interval_reason"] == "9 documents, 10 needed"
    assert model["reason"] is None
    assert all(row["error"] is None and row["p"] is None and row["coefficient"] != 0 for row in model["coefficients"])
    assert {row["reason"] for row in found["tests"]} == {"9 documents, 10 needed"}


def test_tests_of_restrictions_by_hand():
    data = simulated.table(rows=2500)
    found = infer(data, ("a", "b"))
    x, y = design_of(data)
    category = np.array(data["taxonomy"])
    dummies = np.stack([category == 1, category == 2], axis=1).astype(float)
    crossed = [x[:, [0]] * dummies, x[:, [1]] * dummies]

    def wald(blocks, last):
        full = np.column_stack([np.ones(len(y)), x, *blocks])
        fitted = sm.Logit(y, full).fit(disp=0, cov_type="HC0")
        part = slice(full.shape[1] - last, None)
        covariance = np.asarray(fitted.cov_params())[part, part]
        return fitted.params[part] @ np.linalg.solve(covariance, fitted.params[part]) / last

    expected = [
        ("category intercepts", None, wald([dummies], 2), 2),
        ("interactions with the category", None, wald([dummies, *crossed], 4), 4),
        ("interaction with the category", "a", wald([dummies, crossed[1], crossed[0]], 2), 2),
        ("interaction with the category", "b", wald([dummies, *crossed], 2), 2),
    ]
    for row, (test, factor, statistic, df) in zip(found["tests"], expected, strict=True):
        assert (row["test"], row["factor"], row["df"], row["reason"]) == (test, factor, df, None)
        assert row["statistic"] == pytest.approx(statistic, rel=0.03)
        assert row["p"] == pytest.approx(scipy.stats.f.sf(row["statistic"], df, row["df_residual"]), rel=1e-6)


def test_degrees_of_freedom_are_a_difference_of_ranks():
    # Templating is 0 in recollection and 1 in reconstruction: its products with the category's columns are a column that is
    # there already, so all interactions have 3 x 2 degrees of freedom, not 4 x 2.
    rows = infer(simulated.table(rows=3000), NAMES)["tests"]
    by_test = {(row["test"], row["factor"]): row for row in rows}
    assert by_test["interactions with the category", None]["df"] == 6
    templating = by_test["interaction with the category", "is_templating"]
    assert (templating["df"], templating["statistic"], templating["p"]) == (0, None, None)
    assert "is constant" in templating["reason"]


def test_95_percent_intervals_cover():
    hits = dict.fromkeys(("a", "b"), 0)
    p_values = []
    for seed in range(100):
        data = simulated.table(rows=800, seed=seed, beta=(1.0, -0.7, 0.0), intercept=-1.0)
        found = infer(data, ("a", "b"))
        p_values.append(found["tests"][1]["p"])
        for row, truth in zip(found["models"]["baseline"]["coefficients"], (1.0, -0.7), strict=True):
            truth *= np.array(data[row["factor"]]).std()
            hits[row["factor"]] += row["low"] <= truth <= row["high"]
    # 100 x .95 = 95, standard deviation 2.2.
    assert all(0.89 <= count / 100 <= 0.99 for count in hits.values()), hits
    # No category differs in truth: p-values are uniform.
    assert scipy.stats.kstest(p_values, "uniform").pvalue > 0.001


def test_a_category_without_positives_gets_a_reason():
    found = infer(simulated.table(rows=2000, category_rates=(None, None, 0.0)), NAMES)
    model = found["models"]["recollection"]
    assert model["reason"] == "0 positives, 10 needed"
    assert (model["coefficients"], model["intercept"], model["log_likelihood"]) == ([], None, None)
    assert found["models"]["reconstruction"]["reason"] is None
    assert found["compared"] == ["recitation", "reconstruction"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_separation_is_reported_not_estimated():
    data = simulated.table(rows=1500)
    labels = np.array(data["is_memorized"])
    complete = simulated.with_column(data, "tell", labels * 2.0 + np.random.default_rng(0).random(1500))
    found = infer(complete, ("a", "tell"))["models"]["baseline"]
    assert "separation: a combination of the factors" in found["reason"]
    assert found["coefficients"] == []
    # Quasi-complete: every row with the flag is memorized, some without it are too.
    quasi = simulated.with_column(data, "flag", labels & (np.arange(1500) % 3 == 0))
    count = int((labels & (np.arange(1500) % 3 == 0)).sum())
    reason = infer(quasi, ("a", "flag"))["models"]["baseline"]["reason"]
    assert reason == f"separation: all of the {count} rows with the larger value of flag are positive"


def test_left_out_columns_are_named():
    data = simulated.table(rows=1500)
    data = simulated.with_column(data, "twice", 2 * np.array(data["a"]) + 3)
    data = simulated.with_column(data, "flat", [3.3] * 1500)
    model = infer(data, ("a", "twice", "flat", "b"))["models"]["baseline"]
    assert model["left_out"] == {"twice": "a combination of other factors", "flat": "constant"}
    assert [row["factor"] for row in model["coefficients"]] == ["a", "b"]


def test_the_intercept_is_withheld_where_memorized_rows_were_added():
    data = simulated.table(rows=1500)
    plain, added = (infer(data, ("a",), memorized_only=flag)["models"]["baseline"] for flag in (False, True))
    assert plain["intercept"] is not None
    assert added["intercept"] is None
    assert added["coefficients"] == plain["coefficients"]


def test_independent_columns_are_as_many_as_the_rank():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(60, 4))
    design = np.column_stack([base, base @ rng.normal(size=(4, 3)), np.zeros(60), base[:, 0] * 1e6])
    assert independent(design).tolist() == [0, 1, 2, 3]
    assert np.linalg.matrix_rank(design) == 4


def test_a_table_without_rows():
    empty = infer(simulated.table(rows=50).slice(0, 0), ("a",))
    assert (empty["rows"], empty["models"], empty["tests"]) == (0, {}, [])
    lonely = infer(simulated.table(rows=40, shares=(0, 0, 1)), ("a",))
    assert lonely["models"]["recitation"]["reason"] == "no rows"
    assert lonely["tests"] == []
    assert set(lonely["models"]) == {"baseline", *CATEGORIES}


def test_an_optimum_at_infinity_is_flat_wherever_the_iteration_stopped():
    rng = np.random.default_rng(0)
    design = np.column_stack([np.ones(1000), rng.normal(size=1000), rng.uniform(size=1000) < 0.1])
    assert not inference._is_flat(design, np.array([-2.0, 1.5, 3.0]))
    # Where all rows with the flag are positive, its coefficient grows for ever.
    assert inference._is_flat(design, np.array([0.3, 0.8, 26.0]))
    assert inference._is_flat(design, np.array([0.3, 0.8, 60.0]))
