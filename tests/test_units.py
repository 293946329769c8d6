"""Intervals and tests over documents: against oracles by loops, and their coverage by simulation."""

import itertools

import numpy as np
import pyarrow as pa
import pytest

from memtax import statistics
from memtax.errors import MemtaxError
from memtax.statistics import measures


def documents_of(count: int, spread: float, rng: np.random.Generator, logit: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes and units of documents of lognormal size whose logits differ by `spread`."""
    sizes = np.maximum(1, np.round(30 * np.exp(rng.normal(size=count)))).astype(int)
    chances = 1 / (1 + np.exp(-logit - spread * rng.normal(size=count)))
    return np.repeat(chances, sizes) > rng.random(sizes.sum()), np.repeat(np.arange(count), sizes)


def test_units_are_documents_then_texts_then_tokens_then_rows():
    documents = ["b", None, "a", "b", None, None, None]
    texts = ["x", "x", "y", "z", "x", None, None]
    tokens = [[1], [1], [2], [3], [4], [5, 6], [5, 6]]
    assert statistics.unit_codes(documents, texts, tokens).tolist() == [0, 1, 2, 0, 1, 3, 3]
    arrow = statistics.unit_codes(pa.chunked_array([documents[:3], documents[3:]]), pa.array(texts), pa.array(tokens))
    assert arrow.tolist() == [0, 1, 2, 0, 1, 3, 3]
    assert statistics.unit_codes(documents).tolist() == [0, 1, 2, 0, 3, 4, 5]
    assert statistics.unit_codes(tokens=np.array([[1, 2], [1, 2], [2, 1]])).tolist() == [0, 0, 1]
    assert statistics.unit_codes(rows=3).tolist() == [0, 1, 2]
    assert statistics.count_units([7, 7, 2]) == 2
    with pytest.raises(MemtaxError, match="one length"):
        statistics.unit_codes(documents, texts[:3])


def test_resamples_take_whole_units_within_strata():
    units = np.array([0, 0, 1, 1, 1, 2, 0, 3])
    strata = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    seen = []

    def keep(weights: np.ndarray) -> np.ndarray:
        seen.append(weights.copy())
        return weights.sum(1)

    statistics.resample([keep], len(units), 50, 3, strata, units)
    (weights,) = seen
    for drawn in weights:
        assert drawn[0] == drawn[1]
        assert drawn[2] == drawn[3] == drawn[4]
        assert drawn[0] + drawn[2] + drawn[5] == 3
        assert drawn[6] + drawn[7] == 2
    assert (weights[:, 0] != weights[:, 6]).any(), "a unit with rows in two strata is drawn in each"


def test_each_row_its_own_unit_is_the_ordinary_bootstrap():
    rng = np.random.default_rng(0)
    labels, scores = rng.random(60) < 0.5, rng.random(60)
    evaluate = measures.evaluator(statistics.auroc, labels, scores)
    plain = statistics.resample([evaluate], 60, 40, 1)
    np.testing.assert_array_equal(statistics.resample([evaluate], 60, 40, 1, units=np.arange(60)), plain)


def test_the_variance_of_a_mean_is_that_of_leaving_one_unit_out():
    rng = np.random.default_rng(1)
    values, units = documents_of(12, 1.0, rng)
    interval = statistics.cluster_mean(values, units)
    assert interval is not None
    left_out = np.array([values[units != unit].mean() for unit in range(12)])
    variance = 11 / 12 * ((left_out - values.mean()) ** 2).sum()
    from scipy.stats import t

    half = (interval.high - interval.low) / 2
    freedom = (half / np.sqrt(variance), t.isf(0.025, 11), t.isf(0.025, 1))
    assert freedom[1] <= freedom[0] <= freedom[2], "quantile between those of 11 and of 1 degrees of freedom"
    assert interval.value == pytest.approx(values.mean())


def test_below_ten_units_intervals_are_withheld():
    values, units = np.arange(90) % 2, np.arange(90) // 10
    assert statistics.cluster_rate(values, units) is None
    assert statistics.cluster_mean(values, units) is None
    assert statistics.bootstrap_interval(statistics.brier_score, values, values * 1.0, units=units) is None
    strata = np.arange(90) >= 85
    assert statistics.bootstrap_interval(statistics.brier_score, values, values, units=np.arange(90), strata=strata) is None


def test_a_rate_of_independent_rows_is_that_of_clopper_and_pearson():
    outcomes = np.arange(40) < 7
    assert statistics.cluster_rate(outcomes, np.arange(40)) == statistics.clopper_pearson(7, 40)


def test_a_rate_of_zero_over_documents_is_bounded_by_their_number():
    interval = statistics.cluster_rate(np.zeros(37 * 50), np.arange(37 * 50) // 50)
    assert interval == statistics.clopper_pearson(0, 37)
    assert statistics.cluster_rate(np.ones(37 * 50), np.arange(37 * 50) // 50) == statistics.clopper_pearson(37, 37)


@pytest.mark.parametrize("spread", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("count", [10, 37, 200])
def test_intervals_of_a_rate_cover_over_documents(count: int, spread: float):
    rng = np.random.default_rng(7)
    normal = rng.normal(size=200_000)
    truth = (1 / (1 + np.exp(1 - spread * normal))).mean()
    rates, means = [], []
    for _ in range(400):
        outcomes, units = documents_of(count, spread, rng, logit=-1.0)
        rate, mean = statistics.cluster_rate(outcomes, units), statistics.cluster_mean(outcomes, units)
        assert rate is not None
        assert mean is not None
        rates.append(rate.low <= truth <= rate.high)
        means.append(mean.low <= truth <= mean.high)
    assert np.mean(rates) >= 0.92
    assert np.mean(means) >= 0.91


def test_signs_of_documents_are_flipped_as_an_oracle_flips_them():
    rng = np.random.default_rng(2)
    units = rng.integers(0, 9, 80)
    differences = rng.integers(-1, 2, 80) + (units == 0)
    sums = np.array([differences[units == unit].sum() for unit in range(9)])
    flipped = [abs((np.array(signs) * sums).sum()) for signs in itertools.product((-1, 1), repeat=9)]
    assert statistics.sign_flip_test(differences, units) == pytest.approx(np.mean(np.array(flipped) >= abs(sums.sum())))


def test_sign_flips_of_independent_rows_are_mcnemars_test():
    differences = np.array([1] * 14 + [-1] * 4 + [0] * 30)
    assert statistics.sign_flip_test(differences, np.arange(48)) == pytest.approx(statistics.mcnemar(14, 4))
    assert statistics.sign_flip_test(np.zeros(5), np.arange(5)) == 1.0


def test_sign_flips_hold_their_level_over_documents():
    rng = np.random.default_rng(4)
    below = []
    for _ in range(400):
        units = np.repeat(np.arange(37), rng.integers(5, 60, 37))
        shift = rng.normal(size=37)[units]
        below.append(statistics.sign_flip_test(np.sign(shift + rng.normal(size=len(units))), units, 499) <= 0.05)
    assert 0.02 <= np.mean(below) <= 0.08
