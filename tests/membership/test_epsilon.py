"""The lower bound on epsilon from one run, against published values, closed forms, a loop, and simulated mechanisms."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from memtax.errors import MemtaxError
from memtax.membership.epsilon import from_one_run, guess, lower_bound, p_value


@pytest.mark.parametrize(
    ("guesses", "right", "expected"),
    [
        (10, 10, 1.0519),
        (20, 20, 1.8227),
        (50, 50, 2.7847),
        (100, 100, 3.4930),
        (100, 95, 2.1724),
        (100, 90, 1.6308),
        (100, 75, 0.7022),
        (100, 60, 0.0519),
        (1000, 600, 0.2975),
    ],
)
def test_known_bounds(guesses, right, expected):
    assert lower_bound(guesses, guesses, right) == pytest.approx(expected, abs=6e-5)


def test_known_values_with_delta():
    assert lower_bound(1000, 100, 100, 1e-5) == pytest.approx(3.4654, abs=6e-5)
    assert lower_bound(1000, 100, 90, 1e-5) == pytest.approx(1.6261, abs=6e-5)
    assert p_value(10, 10, 9, 1.0) == pytest.approx(0.20401201235612004, rel=1e-12)
    assert p_value(1000, 100, 90, 1.0, 1e-6) == pytest.approx(1.0875117135e-4, rel=1e-9)


@pytest.mark.parametrize("guesses", [1, 5, 10, 73])
def test_all_right_has_a_closed_form(guesses):
    # (e^eps / (1 + e^eps))^r = a, so e^eps / (1 + e^eps) = a^(1/r); with r = 1 not even eps = 0 is rejected.
    share = 0.05 ** (1 / guesses)
    assert lower_bound(guesses, guesses, guesses) == pytest.approx(max(0.0, math.log(share / (1 - share))), abs=1e-9)


def test_the_p_value_is_that_of_a_loop():
    rng = np.random.default_rng(0)
    for _ in range(30):
        r = int(rng.integers(1, 40))
        v, m, eps, delta = int(rng.integers(0, r + 1)), r + int(rng.integers(50)), rng.exponential(), 10 ** rng.uniform(-8, -3)
        q = math.exp(eps) / (1 + math.exp(eps))
        pmf = [math.comb(r, k) * q**k * (1 - q) ** (r - k) for k in range(r + 1)]
        alpha = max((sum(pmf[v - i : v]) / i for i in range(1, v + 1)), default=0)
        assert p_value(m, r, v, eps, delta) == pytest.approx(min(1, sum(pmf[v:]) + 2 * m * delta * alpha), rel=1e-9)


def test_the_bound_holds_for_randomized_response():
    # Each coin is reported truly with probability e^eps / (1 + e^eps), which is exactly eps-private. With confidence 95% at
    # most 5% of the bounds exceed eps; 400 runs have a standard error of 1.1%.
    rng = np.random.default_rng(1)
    for eps in (0.0, 1.0):
        rights = rng.binomial(200, math.exp(eps) / (1 + math.exp(eps)), 400)
        bounds = {right: lower_bound(200, 200, right) for right in set(rights.tolist())}
        above = np.mean([bounds[right] > eps for right in rights.tolist()])
        assert above <= 0.05 + 3 * 0.011
        # The exact tail: the smallest rejected count has a probability of at most 5%.
        least = min(right for right in range(201) if lower_bound(200, 200, right) > eps)
        assert binom.sf(least - 1, 200, math.exp(eps) / (1 + math.exp(eps))) <= 0.05


def test_taking_the_best_number_of_guesses_is_corrected():
    # Scores without information: at least one of three bounds above 0 in at most 5% of 500 runs (standard error 1%).
    rng = np.random.default_rng(2)
    found = [from_one_run(rng.normal(size=64), rng.random(64) < 0.5)["epsilon"] > 0 for _ in range(500)]
    assert np.mean(found) <= 0.08


def test_guesses_are_counted():
    # Highest two: in, out (one right); lowest two: out, out (two right).
    assert guess([4, 3, 2, 1, 0.5], [True, False, True, False, False], 2) == 3
    found = from_one_run(list(range(40)), [False] * 20 + [True] * 20)
    assert (found["canaries"], found["guesses"], found["right"]) == (40, 40, 40)
    # Bonferroni over three: a = .05 / 3.
    share = (0.05 / 3) ** (1 / 40)
    assert found["epsilon"] == found["ceiling"] == pytest.approx(math.log(share / (1 - share)), abs=1e-9)


@pytest.mark.parametrize("wrong", [(5, 6, 4, 0.0), (5, 4, 5, 0.0), (5, 4, 3, -1.0), (5, 4, 3, math.nan), (5, 4, 3, 1.0, 2.0)])
def test_impossible_arguments(wrong):
    with pytest.raises(MemtaxError):
        p_value(*wrong)
