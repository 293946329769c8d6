"""The exact inverse against a dense Hessian in float64, and what it refuses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memtax.attribution.influence_exact import RESOLUTION, exact, exact_damping
from memtax.attribution.influence_functions import damping, from_products, lissa
from memtax.attribution.influence_table import InfluenceSettings
from memtax.errors import MemtaxError, ModelError


def dense(train, test, weight):
    """-V H^-1 G^T with H (numbers, numbers) written out."""
    n, size = train.shape
    hessian = sum(np.outer(g, g) for g in train) / n + weight * np.eye(size)
    return np.array([[-(np.linalg.inv(hessian) @ v) @ g for v in test] for g in train])


@given(n=st.integers(1, 8), m=st.integers(1, 4), size=st.integers(1, 12), seed=st.integers(0, 999), power=st.integers(-4, 2))
@settings(max_examples=60, deadline=None)
def test_the_solve_in_the_span_equals_the_dense_inverse(n, m, size, seed, power):
    """More numbers than examples, fewer, and as many: the identity holds for all."""
    rng = np.random.default_rng(seed)
    train, test = rng.normal(size=(n, size)), rng.normal(size=(m, size))
    weight = 10.0**power
    expected = dense(train, test, weight)
    found = exact(train @ train.T, train @ test.T, weight)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7 * np.abs(expected).max())


def test_equal_training_examples_share_their_influence_equally():
    """K is singular here; only the damping makes the solve possible."""
    rng = np.random.default_rng(1)
    one = rng.normal(size=(1, 5))
    train, test = np.repeat(one, 4, axis=0), rng.normal(size=(2, 5))
    found = exact(train @ train.T, train @ test.T, 1e-3)
    np.testing.assert_allclose(found, dense(train, test, 1e-3), rtol=1e-6)
    np.testing.assert_allclose(found, np.repeat(found[:1], 4, axis=0), rtol=1e-9)


def test_lissa_goes_to_the_exact_inverse_of_the_same_hessian():
    rng = np.random.default_rng(2)
    train, test = rng.normal(size=(12, 4)), rng.normal(size=(3, 4))
    gram, cross = train @ train.T, train @ test.T
    found = exact(gram, cross, damping(gram, 4))
    # Eigenvalues of H lie within a factor of a few: 400 steps leave nothing.
    np.testing.assert_allclose(lissa(gram, cross, 4, iterations=400), found, rtol=1e-6, atol=1e-8)
    far = lissa(gram, cross, 4, iterations=10, weight=0.5)
    assert np.abs(far - exact(gram, cross, 0.5)).max() < np.abs(far - found).max()


def test_rounding_to_float32_does_not_decide_the_default():
    """Fewer examples than numbers and DataInf's lambda far below float32's precision, as for a head of a large vocabulary."""
    rng = np.random.default_rng(3)
    # Two examples of three are nearly the same direction: K has an eigenvalue near 0.
    train = rng.normal(size=(30, 400)) * np.geomspace(1, 1e-4, 400)
    test = rng.normal(size=(5, 400)) * np.geomspace(1, 1e-4, 400)
    gram, cross = train @ train.T, train @ test.T
    weight = exact_damping(gram, damping(gram, 10**9))
    assert weight == pytest.approx(RESOLUTION * np.trace(gram) / 30)
    rounded = (gram.astype(np.float32).astype(float), cross.astype(np.float32).astype(float))
    whole, float32 = exact(gram, cross, weight), exact(*rounded, weight)
    assert np.abs(whole - float32).max() < 0.2 * np.abs(whole).max()
    # Small tensors keep DataInf's lambda.
    assert exact_damping(gram, 1.0) == 1.0


@pytest.mark.parametrize("weight", [0.0, -1e-3, float("nan"), float("inf"), -float("inf")])
def test_no_lambda_that_is_not_above_zero_and_finite(weight):
    with pytest.raises(MemtaxError, match=rf"damping={weight} must be a finite number above 0"):
        exact(np.eye(3), np.ones((3, 2)), weight)
    with pytest.raises(MemtaxError, match="must be a finite number above 0"):
        InfluenceSettings("m", damping=weight)


def test_inner_products_that_are_not_finite_and_matrices_without_inverse_are_refused():
    for gram, cross in ((np.full((2, 2), np.nan), np.ones((2, 1))), (np.eye(2), np.full((2, 1), np.inf))):
        with pytest.raises(ModelError, match="not finite"):
            exact(gram, cross, 1.0)
    # Not a Gram matrix: rounding beyond what lambda covers.
    with pytest.raises(MemtaxError, match=r"below the precision .*; use at least 1e-06, or dtype float32"):
        exact(np.array([[1.0, 2.0], [2.0, 1.0]]), np.ones((2, 1)), 1e-9)


def test_tensors_without_gradients_count_nothing_and_lambda_reaches_every_method():
    rng = np.random.default_rng(4)
    train, test = rng.normal(size=(6, 5)), rng.normal(size=(2, 5))
    gram = {"a": train @ train.T, "b": np.zeros((6, 6))}
    cross = {"a": train @ test.T, "b": np.zeros((6, 2))}
    has = np.ones(6, bool), np.ones(2, bool)
    sizes = {"a": 5, "b": 7}
    methods = ("datainf", "lissa", "exact")
    plain = from_products(methods, gram, cross, sizes, has)["exact"]
    assert not plain.tensors["b"].any()
    np.testing.assert_allclose(plain.values, dense(train, test, damping(gram["a"], 5)), rtol=1e-6)
    strong = from_products(methods, gram, cross, sizes, has, weight=1e6)
    # H is lambda I then: every method gives gradient match over lambda (LiSSA up to its ten steps of full size).
    for method in methods:
        np.testing.assert_allclose(strong[method].values, -cross["a"] / 1e6, rtol=1e-3, err_msg=method)
