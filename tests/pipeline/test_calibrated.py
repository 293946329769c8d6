"""Split-conformal thresholds against published values and a loop, and the guarantee over documents in simulations."""

import math

import numpy as np
import pytest
from scipy.stats import beta

from memtax.errors import MemtaxError
from memtax.pipeline.calibrated import compare
from memtax.statistics import Units
from memtax.statistics.conformal import conformal_p_values, conformal_threshold, fewest_calibration, largest_of_units

KNOWN = [-3, -5, -5, -8, -9, -12, -20, -21, -30]


def test_known_values():
    assert conformal_threshold(KNOWN, 0.2) == -5
    assert conformal_p_values(KNOWN, [-4, -5, -2, None, -math.inf]) == pytest.approx([0.2, 0.4, 0.1, None, 1.0], nan_ok=True)
    assert conformal_threshold(range(50), 0.01) is None
    assert [fewest_calibration(alpha) for alpha in (0.001, 0.01, 0.05, 0.3)] == [999, 99, 19, 3]
    with pytest.raises(MemtaxError, match="above 0"):
        fewest_calibration(0.0)
    with pytest.raises(MemtaxError, match="NaN"):
        conformal_threshold([math.nan], 0.5)


def test_a_claim_is_a_p_value_of_at_most_alpha():
    rng = np.random.default_rng(0)
    for _ in range(200):
        # Rounded, so that there are ties; -inf is a continuation that sampling never gives.
        held_out = np.round(rng.normal(size=int(rng.integers(1, 130))), 1)
        held_out[rng.random(len(held_out)) < 0.1] = -np.inf
        scores, alpha = np.round(rng.normal(size=20), 1).tolist(), float(rng.choice([0.01, 0.05, 0.1, 0.3]))
        slow = [(1 + sum(other >= score for other in held_out)) / (len(held_out) + 1) for score in scores]
        assert conformal_p_values(held_out, scores) == pytest.approx(slow)
        threshold = conformal_threshold(held_out, alpha)
        assert (threshold is None) == (len(held_out) < fewest_calibration(alpha))
        if threshold is not None:
            assert [score > threshold for score in scores] == [value <= alpha + 1e-12 for value in slow]


def test_unseen_documents_exceed_at_the_rate_said():
    # 99 held-out documents of 6 rows with a common effect; without ties the rate of new ones is exactly 1%, and given the
    # calibration it is Beta(1, 99). 400 calibrations: the mean has a standard error of .01 / 20.
    rng = np.random.default_rng(1)

    def documents(count):
        return (rng.normal(size=(count, 1)) + rng.normal(size=(count, 6))).ravel(), np.repeat(np.arange(count), 6)

    rates = []
    fresh = largest_of_units(*documents(20_000))
    for _ in range(400):
        threshold = conformal_threshold(largest_of_units(*documents(99)), 0.01)
        rates.append((fresh > threshold).mean())
    assert np.mean(rates) == pytest.approx(0.01, abs=0.0025)
    assert np.quantile(rates, 0.95) == pytest.approx(beta.ppf(0.95, 1, 99), abs=0.01)


def test_too_few_documents_withhold_whatever_the_number_of_rows():
    # 18 documents of 50 rows: 19 are needed for 5%.
    units = Units(np.repeat(np.arange(18), 50), "document")
    p_values, exceeds, figures = compare([0.0, None], [True, None], Units.of_rows(2), [-5.0] * 900, units)
    assert exceeds == [None, None]
    assert p_values == [1 / 19, None]
    assert (figures["measurable"], figures["units"], figures["needed"]) == (False, 18, 19)
    assert "18 held-out documents" in figures["reason"]


def test_the_threshold_is_that_of_the_documents_largest_rows():
    # 40 documents, the largest of document i is -i: 5% of 41 is 2, so the second largest, -1.
    units = Units(np.tile(np.arange(40), 2), "document")
    held_out = [*(-float(place) for place in range(40)), *[-100.0] * 40]
    own = [0.5, -0.5, -1.0, -2.0, None]
    p_values, exceeds, figures = compare(own, [True, False, True, False, None], Units.of_rows(5), held_out, units)
    assert (figures["alpha"], figures["threshold"]) == (0.05, -1.0)
    assert exceeds == [True, True, False, False, None]
    assert p_values == pytest.approx([1 / 41, 2 / 41, 3 / 41, 4 / 41, None], nan_ok=True)
    assert (figures["exceeds"]["memorized"], figures["exceeds"]["sequences"]) == (2, 4)
    assert (figures["memorized_below"], figures["exceeds_unmemorized"]) == (1, 1)
