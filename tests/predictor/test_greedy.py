import numpy as np
import pyarrow as pa
import pytest
import scipy.special

from memtax.predictor import greedy
from memtax.predictor.groups import losses
from memtax.predictor.partition_search import SearchConfig
from tests.predictor.test_search import NAMES, planted


def config(**options):
    return SearchConfig(NAMES, NAMES, greedy.GRID, resamples=30, **options)


def plain(rows, seed):
    """One model for all: no partition is right."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4))
    odds = -1 + x[:, 0] - 0.5 * x[:, 1]
    return pa.table({**dict(zip(NAMES, x.T, strict=True)), "is_memorized": rng.random(rows) < scipy.special.expit(odds)})


def test_finds_the_planted_rules_and_stops():
    problem = config().prepare(planted(12_000))
    found = greedy.grow(problem, config())
    first, second = found["rules"][:2]
    assert (first["factor"], second["factor"]) == ("f2", "f3")
    assert first["threshold"] == pytest.approx(0.5, abs=0.15)
    assert second["threshold"] == pytest.approx(-0.2, abs=0.15)
    assert all(rule["p"] <= 0.05 and rule["gain"] > 0 for rule in found["rules"])
    assert len(found["rules"]) <= 3  # a grid of quantiles misses the planted place a little, which one more rule may mend
    assert found["stopped"]["p"] > 0.05
    assert sum(group["rows"] for group in found["groups"]) == len(problem.parts["train"].labels)
    assert found["metrics"]["differences"][0]["low"] > 0.05


def test_grows_nothing_where_one_model_is_right():
    # At level .05 a simulation goes wrong with probability .05 at most: of 20, four or more have probability .016.
    wrong = 0
    for seed in range(20):
        small = SearchConfig(NAMES, NAMES, resamples=10)
        found = greedy.grow(small.prepare(plain(1500, seed)), small, most=1)
        wrong += bool(found["rules"])
    assert wrong <= 3


def test_gains_equal_a_direct_computation():
    problem = config().prepare(planted(3000))
    candidates = greedy._candidates(problem, [()])
    gains = greedy._gains(problem, [()], candidates, 0)
    part = problem.parts["validation"]
    rows = np.arange(len(part.labels))
    base = losses(part.values @ problem.baseline.coefficients + problem.baseline.intercept, part.labels)[0]
    for place in range(0, len(candidates), 9):
        odds = problem.log_odds("validation", [candidates[place].upper, candidates[place].lower])
        expected = (base - losses(odds, part.labels)[0]).mean()
        assert gains.mean[place] == pytest.approx(expected, abs=1e-12)
    assert gains.best == gains.mean.argmax()
    assert len(rows) > 0


def test_depth_is_bounded_on_request():
    found = greedy.grow(config().prepare(planted(6000)), config(), most=1)
    assert len(found["rules"]) == 1
    assert [group["conditions"] for group in found["groups"]] == [
        [f"f2 >= {found['rules'][0]['threshold']:.6g}"], [f"f2 < {found['rules'][0]['threshold']:.6g}"]
    ]  # fmt: skip
