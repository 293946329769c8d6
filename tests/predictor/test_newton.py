import numpy as np
import pytest
import scipy.special
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from memtax.errors import MemtaxError
from memtax.predictor import newton


def problem(rows=3000, columns=5, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, columns))
    odds = scale * values @ rng.normal(size=columns) - 1
    return values, (rng.random(rows) < scipy.special.expit(odds)).astype(np.uint8)


def oracle(values, labels, beta, ridge):
    """Loss, gradient and Hessian by matrices in float64."""
    design = np.column_stack([values, np.ones(len(values))])
    eta = design @ beta
    p = scipy.special.expit(eta)
    loss = (np.logaddexp(0, eta) - labels * eta).sum() + (ridge * beta**2).sum() / 2
    return loss, design.T @ (p - labels) + ridge * beta, (design.T * (p * (1 - p))) @ design + np.diag(ridge)


@settings(max_examples=25, deadline=None)  # the first call compiles
@given(st.integers(1, 9000), st.integers(1, 16), st.sampled_from([0.01, 1.0, 30.0]), st.integers(0, 9))
def test_derivatives_equal_matrices(rows, columns, scale, seed):
    values, labels = problem(rows, columns, seed)
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(rows, rng.integers(1, rows + 1), replace=False))
    beta, ridge = scale * rng.normal(size=columns + 1), rng.random(columns + 1)
    found = newton._derivatives(values, labels, chosen, beta, ridge)
    for ours, theirs in zip(found, oracle(values[chosen], labels[chosen], beta, ridge), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9 * max(1, np.abs(theirs).max()))


def test_logits_far_out_are_finite():
    values, labels = np.array([[1000.0], [-1000.0], [0.0], [1.0]]), np.array([0, 1, 0, 1], np.uint8)
    loss, gradient, hessian = newton._derivatives(values, labels, np.arange(4), np.array([3.0, 0.0]), np.zeros(2))
    # Two rows are wrong by 3000 nats each; the others add log 2 and log(1 + exp(-3)).
    assert loss == pytest.approx(6000 + np.log(2) + np.log1p(np.exp(-3)), rel=1e-12)
    assert np.isfinite(gradient).all()
    assert np.isfinite(hessian).all()


@pytest.mark.parametrize("seed", range(4))
def test_equals_scikit_learn(seed):
    values, labels = problem(seed=seed, columns=14)
    rows = np.flatnonzero(values[:, 0] < 0.3)
    for start in (None, newton.fit(values, labels, np.arange(len(values)))):
        found = newton.fit(values, labels, rows, start)
        model = LogisticRegression(tol=1e-10, max_iter=100_000).fit(values[rows], labels[rows])
        np.testing.assert_allclose(found.coefficients, model.coef_[0], atol=1e-6)
        assert found.intercept == pytest.approx(model.intercept_[0], abs=1e-6)


def test_without_penalty_equals_statsmodels():
    values, labels = problem()
    found = newton.fit(values, labels, np.arange(len(values)), penalty=0.0)
    params = sm.Logit(labels, np.column_stack([values, np.ones(len(values))])).fit(disp=0).params
    np.testing.assert_allclose([*found.coefficients, found.intercept], params, atol=1e-8)


def test_separated_rows_have_a_penalized_optimum():
    values = np.linspace(-1, 1, 40)[:, None]
    labels = (values[:, 0] > 0).astype(np.uint8)
    found = newton.fit(values, labels, np.arange(40))
    model = LogisticRegression(tol=1e-10, max_iter=100_000).fit(values, labels)
    np.testing.assert_allclose(found.coefficients, model.coef_[0], atol=1e-6)


def test_a_constant_column_gets_nothing():
    values, labels = problem()
    values[:, 2] = 1.7
    # The intercept is not penalized and takes over all that a constant column could do.
    assert newton.fit(values, labels, np.arange(len(values))).coefficients[2] == pytest.approx(0, abs=1e-9)


def test_refusals():
    values, labels = problem(50)
    with pytest.raises(MemtaxError, match="0 of 0 rows are positive"):
        newton.fit(values, labels, np.arange(0))
    with pytest.raises(MemtaxError, match="both classes"):
        newton.fit(values, np.ones(50, np.uint8), np.arange(50))
    values[3, 0] = np.nan
    with pytest.raises(MemtaxError, match="does not converge"):
        newton.fit(values, labels, np.arange(50))
