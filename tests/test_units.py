"""Intervals and tests over documents: against oracles by loops, and their coverage by simulation."""

import itertools

import numpy as np
import pyarrow as pa
import pytest

from memtax import statistics
from memtax.errors import MemtaxError
from memtax.statistics import measures, ranking
from memtax.statistics import xi as xi_module


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


def test_a_mean_of_shares_has_the_interval_of_its_units():
    units = statistics.Units(np.arange(60) // 3, "document")
    hits = [None if row % 5 == 0 else row % 2 == 0 for row in range(60)]
    found = statistics.mean_over_units(hits, units)
    known = np.arange(60) % 5 != 0
    expected = statistics.cluster_rate(np.arange(60)[known] % 2 == 0, units.codes[known])
    assert found == {**expected.__dict__, "rows": 48, "unit": "document", "units": 20, "reason": None}
    shares = [None if value is None else value / 2 for value in hits]
    halves = statistics.bounded_mean(np.where(np.arange(60)[known] % 2 == 0, 0.5, 0.0), units.codes[known], 0.0, 1.0)
    assert statistics.mean_over_units(shares, units)["low"] == pytest.approx(halves.low)
    assert statistics.mean_over_units([None, None], units[:2]) is None
    few = statistics.mean_over_units([True, False], units[:2])
    assert (few["low"], few["reason"]) == (None, "1 document, 10 needed: the share is of these only")


def test_a_mean_at_its_bound_is_bounded_by_the_number_of_units():
    codes = np.arange(60) // 3
    top = statistics.bounded_mean(np.full(60, 7.0), codes, 0.0, 7.0)
    assert (top.value, top.high) == (7.0, 7.0)
    assert top.low == pytest.approx(7 * statistics.clopper_pearson(20, 20).low)
    low, high = (statistics.bounded_mean(sign * np.arange(60.0), codes, *sorted((0.0, sign * 99.0))) for sign in (1, -1))
    assert (low.low, low.high) == pytest.approx((-high.high, -high.low))
    with pytest.raises(MemtaxError, match="values from 0 to 59 are not all from 1 to 99"):
        statistics.bounded_mean(np.arange(60.0), codes, 1.0, 99.0)


@pytest.mark.parametrize("distance", [0.0, 2.0, 4.0])
def test_intervals_of_a_mean_exposure_cover_near_its_maximum(distance: float):
    rng = np.random.default_rng(12)

    def bits(number: int, others: np.ndarray) -> np.ndarray:
        scores = distance + rng.normal(size=number)
        return np.log2(101 / (101 - np.searchsorted(others, scores)))

    covered = []
    for _ in range(120):
        others = np.sort(rng.normal(size=100))
        truth, interval = bits(20_000, others).mean(), statistics.bounded_mean(bits(10, others), np.arange(10), 0.0, 6.7)
        covered.append(interval.low <= truth <= interval.high)
    assert np.mean(covered) >= 0.92


def test_an_auroc_of_pairs_within_documents_does_not_narrow_the_interval():
    rng = np.random.default_rng(13)
    units = np.repeat(np.arange(24), 12)
    labels, scores = rng.random(288) < 0.5, rng.normal(size=24)[units] + rng.normal(size=288)
    scores += labels  # within documents labels show; documents themselves add noise
    wins = {True: [], False: []}
    for first in np.flatnonzero(labels):
        for second in np.flatnonzero(~labels):
            wins[bool(units[first] == units[second])].append(scores[first] > scores[second])
    interval = statistics.auroc_interval(labels, scores, units)
    apart = np.mean(wins[False])
    assert apart < interval.value < np.mean(wins[True])
    assert ranking._between(labels, scores, units, interval.value) == pytest.approx(apart)
    assert interval.low < apart < interval.value < interval.high


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


@pytest.mark.parametrize(
    ("count", "logit", "spread", "related"),
    [
        (10, -1.0, 0.0, 0.0),
        (200, -1.0, 2.0, 0.0),
        (10, -4.0, 2.0, 0.0),
        (37, -2.5, 1.0, 0.5),
        (10, -1.0, 1.0, 0.9),
        (10, -3.0, 2.0, 0.0),
        (37, -3.0, 2.0, 0.9),
    ],
)
def test_intervals_of_a_rate_cover_over_documents(count: int, logit: float, spread: float, related: float):
    rng = np.random.default_rng(7)

    def draw(number: int) -> tuple[np.ndarray, np.ndarray]:
        size, other = rng.normal(size=(2, number))
        effects = spread * (related * size + np.sqrt(1 - related**2) * other)
        return np.maximum(1, np.round(30 * np.exp(size))).astype(int), 1 / (1 + np.exp(-logit - effects))

    sizes, chances = draw(100_000)
    truth, rates, means = sizes @ chances / sizes.sum(), [], []
    for _ in range(120):
        sizes, chances = draw(count)
        units = np.repeat(np.arange(count), sizes)
        outcomes = rng.random(len(units)) < chances[units]
        rate, mean = statistics.cluster_rate(outcomes, units), statistics.cluster_mean(outcomes, units)
        assert rate is not None
        assert mean is not None
        rates.append(rate.low <= truth <= rate.high)
        means.append(mean.low <= truth <= mean.high)
    # Where size goes with the rate, the documents that decide it are the rarest.
    assert np.mean(rates) >= (0.92 if related < 0.9 else 0.9)
    if logit == -1.0:
        assert np.mean(means) >= (0.92 if related < 0.9 else 0.88)


@pytest.mark.parametrize("sizes", [[20] * 32, [5] * 20 + [10] * 10 + [120] * 2])
def test_bounds_of_a_rate_are_those_of_johnsons_quantiles(sizes: list[int]):
    from scipy.stats import beta, t

    units = np.repeat(np.arange(32), sizes)
    rank = np.arange(len(units)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    outcomes = rank < np.array([1] * 28 + [9, 3, 15, 16])[units]
    interval, mirrored = statistics.cluster_rate(outcomes, units), statistics.cluster_rate(~outcomes, units)
    assert interval is not None
    assert mirrored is not None
    np.testing.assert_allclose((1 - mirrored.high, 1 - mirrored.low), (interval.low, interval.high))
    rate = outcomes.mean()
    changes = np.array([rate - outcomes[units != unit].mean() for unit in range(32)])
    variance = 31 / 32 * (changes**2).sum()
    skewness = (changes**3).mean() / (changes**2).mean() ** 1.5 / 32**0.5 * (32 * 31) ** 0.5 / 30
    carrying = t.isf(0.025, (changes**2).sum() ** 2 / (changes**4).sum())
    reach = carrying + skewness * (1 + 2 * carrying**2) / 6
    trials = rate * (1 - rate) / variance * (t.isf(0.025, len(units) - 1) / reach) ** 2
    assert interval.high == pytest.approx(beta.ppf(0.975, rate * trials + 1, trials - rate * trials))
    assert interval.high - rate > rate - interval.low
    if len(set(sizes)) == 1:
        trials = rate * (1 - rate) / variance * (t.isf(0.025, 639) / t.isf(0.025, 31)) ** 2
        assert interval.low == pytest.approx(beta.ppf(0.025, rate * trials, trials - rate * trials + 1))


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
    for _ in range(150):
        units = np.repeat(np.arange(37), rng.integers(5, 60, 37))
        shift = rng.normal(size=37)[units]
        below.append(statistics.sign_flip_test(np.sign(shift + rng.normal(size=len(units))), units, 499) <= 0.05)
    assert 0.02 <= np.mean(below) <= 0.08


def test_the_variance_of_an_auroc_of_independent_rows_is_delongs():
    from scipy.stats import beta, norm, t

    rng = np.random.default_rng(5)
    positives, negatives = rng.normal(0.7, 1, 60), rng.normal(0, 1, 80)
    wins = (positives[:, None] > negatives) + 0.5 * (positives[:, None] == negatives)
    first, second = wins.mean(1).var(ddof=1) / 60, wins.mean(0).var(ddof=1) / 80
    area = wins.mean()
    variance = first * 60 / 59 + second * 80 / 79
    freedom = (first + second) ** 2 / (first**2 / 59 + second**2 / 79)
    trials = area * (1 - area) / variance * (norm.isf(0.025) / t.isf(0.025, freedom)) ** 2
    expected = beta.ppf(0.025, area * trials, trials * (1 - area) + 1), beta.ppf(0.975, area * trials + 1, trials * (1 - area))
    labels, scores = np.repeat([1, 0], [60, 80]), np.concatenate([positives, negatives])
    interval = statistics.auroc_interval(labels, scores)
    assert interval is not None
    assert interval.value == pytest.approx(area)
    np.testing.assert_allclose((interval.low, interval.high), expected)


@pytest.mark.parametrize("rows", [10, 20, 100])
def test_a_perfectly_separated_sample_is_bounded_by_its_number_of_rows(rows: int):
    labels = np.repeat([1, 0], rows)
    interval = statistics.auroc_interval(labels, labels)
    assert interval is not None
    assert (interval.value, interval.high) == (1.0, 1.0)
    assert interval.low == pytest.approx(statistics.clopper_pearson(rows, rows).low)
    reverse = statistics.auroc_interval(1 - labels, labels)
    assert reverse is not None
    assert reverse.high == pytest.approx(1 - interval.low)


@pytest.mark.parametrize(("rows", "area"), [(10, 0.5), (10, 0.993), (20, 0.95), (100, 0.8), (100, 0.993)])
def test_intervals_of_an_auroc_cover_for_few_rows(rows: int, area: float):
    from scipy.stats import norm

    rng = np.random.default_rng(6)
    labels, shift = np.repeat([1.0, 0.0], rows), norm.ppf(area) * np.sqrt(2)
    intervals = [statistics.auroc_interval(labels, rng.normal(size=2 * rows) + shift * labels) for _ in range(120)]
    assert np.mean([found is not None and found.low <= area <= found.high for found in intervals]) >= 0.92


@pytest.mark.parametrize("rate", [-1.0, -2.5])
def test_intervals_of_an_auroc_cover_where_documents_have_both_kinds(rate: float):
    rng = np.random.default_rng(14)

    def draw(number: int, largest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        units = np.repeat(np.arange(number), rng.integers(1, largest, number))
        scores = rng.normal(size=len(units))
        chances = 1 / (1 + np.exp(-rate - scores - 2 * rng.normal(size=number)[units]))
        return rng.random(len(units)) < chances, scores, units

    truth = statistics.auroc(*draw(400_000, 2)[:2])
    found = [statistics.auroc_interval(*draw(37, 60)) for _ in range(150)]
    assert np.mean([one.low <= truth <= one.high for one in found if one is not None]) >= 0.92


@pytest.mark.parametrize("spread", [0.0, 2.0])
@pytest.mark.parametrize("documents", [(10, 10), (37, 12)])
def test_intervals_of_an_auroc_cover_over_documents(documents: tuple[int, int], spread: float):
    from scipy.stats import norm

    rng = np.random.default_rng(8)
    labels = np.repeat([1.0, 0.0], documents)
    covered = []
    for _ in range(120):
        units = np.repeat(np.arange(len(labels)), rng.integers(2, 40, len(labels)))
        effects = spread * rng.normal(size=len(labels)) + labels * norm.ppf(0.8) * np.sqrt(2 + 2 * spread**2)
        interval = statistics.auroc_interval(labels[units], effects[units] + rng.normal(size=len(units)), units)
        assert interval is not None
        covered.append(interval.low <= 0.8 <= interval.high)
    assert np.mean(covered) >= 0.92


def test_an_auroc_over_eight_documents_of_a_class_is_withheld():
    units = np.repeat(np.arange(45), 50)
    assert statistics.auroc_interval(units < 37, np.arange(len(units)), units) is None


@pytest.mark.parametrize(("count", "spread"), [(10, 1.0), (37, 0.0)])
def test_intervals_of_correlations_cover_over_documents(count: int, spread: float):
    rng = np.random.default_rng(9)

    def draw(number: int, largest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        units = np.repeat(np.arange(number), rng.integers(1, largest + 1, number))
        x = spread * rng.normal(size=number)[units] + rng.normal(size=len(units))
        y = 0.7 * x + spread * rng.normal(size=number)[units] + rng.normal(size=len(units))
        return x, (y > 0.5).astype(float), units

    x, y, _ = draw(30_000, 1)
    spearman, xi = statistics.spearman(x, y), statistics.chatterjee_xi(x, y)
    covered = []
    for _ in range(40):
        x, y, units = draw(count, 30)
        ours, other = statistics.spearman_interval(x, y, units=units), statistics.xi_interval(x, y, units=units, subsamples=40)
        assert ours is not None
        assert other is not None
        covered.append((ours.low <= spearman <= ours.high, other.low <= xi <= other.high))
    assert np.mean(covered, axis=0).min() >= 0.9


def test_the_interval_of_xi_over_units_is_withheld_for_rare_outcomes():
    units, x = np.arange(600) // 50, np.random.default_rng(3).normal(size=600)
    spread_out, few_rows, few_units = np.arange(600) % 25 == 0, np.arange(600) % 50 == 0, np.arange(600) < 120
    assert statistics.xi_interval(x, spread_out, units=units, subsamples=20) is not None
    for y, rows, having in ((few_rows, 12, 12), (few_units, 120, 3)):
        assert statistics.xi_interval(x, y, units=units, subsamples=20) is None
        assert f"{rows} rows of the rarer outcome in {having} units" in str(statistics.xi_withheld(y, units))
    assert statistics.xi_withheld(x, units) is None


@pytest.mark.parametrize("values", [2, 30])
def test_xi_between_units_is_that_of_pairs_of_different_units(values: int):
    rng = np.random.default_rng(values)
    units, x, y = np.sort(rng.integers(0, 9, 50)), rng.normal(size=50), rng.integers(0, values, 50).astype(float)
    kept = units != 4
    a, b, of = x[kept], y[kept], units[kept]
    ranks, order = (b[None] <= b[:, None]).sum(axis=1), np.argsort(a)
    neighbors = [abs(ranks[i] - ranks[j]) for i, j in itertools.pairwise(order) if of[i] != of[j]]
    pairs = [abs(ranks[i] - ranks[j]) for i, j in itertools.combinations(range(len(b)), 2) if of[i] != of[j]]
    found = xi_module._BetweenUnits(x, y, units, 1, rng).value(np.arange(9) != 4, [0])
    assert found == pytest.approx(1 - np.mean(neighbors) / np.mean(pairs), abs=1e-12)


def test_intervals_of_xi_cover_for_a_factor_of_whole_documents():
    rng, covered = np.random.default_rng(7), []

    def simulate(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        units = np.repeat(np.arange(len(sizes)), sizes)
        x, effects = rng.normal(size=(2, len(sizes)))
        chances = 1 / (1 + np.exp(1 - x - 2 * effects))
        return np.round(x, 1)[units], (rng.random(len(units)) < chances[units]).astype(float), units

    truth = statistics.chatterjee_xi(*simulate(np.ones(400_000, int))[:2])
    for _ in range(40):
        x, y, units = simulate(np.maximum(1, np.round(15 * np.exp(0.8 * rng.normal(size=37)))).astype(int))
        found = statistics.xi_interval(x, y, units=units, subsamples=40)
        covered.append(found.low <= truth <= found.high)
    # Neighbors of one document have one effect: bounds around the value of all pairs covered 24%.
    assert np.mean(covered) >= 0.9


@pytest.mark.parametrize("spread", [0.0, 2.0])
@pytest.mark.parametrize("count", [10, 37])
def test_intervals_of_a_paired_difference_cover_over_documents(count: int, spread: float):
    rng = np.random.default_rng(10)

    def chances(number: int) -> tuple[np.ndarray, np.ndarray]:
        logit = -2 + spread * rng.normal(size=number)
        return 1 / (1 + np.exp(-logit)), 1 / (1 + np.exp(-logit - 0.8))

    before, after = chances(100_000)
    truth, covered = (after - before).mean(), []
    for _ in range(120):
        units = np.repeat(np.arange(count), rng.integers(1, 60, count))
        before, after = chances(count)
        draws = rng.random((2, len(units)))
        interval = statistics.cluster_difference(draws[0] < before[units], draws[1] < after[units], units)
        assert interval is not None
        covered.append(interval.low <= truth <= interval.high)
    assert np.mean(covered) >= 0.92


def test_the_paired_difference_of_independent_rows_is_newcombes():
    first, second = np.repeat([1, 1, 0, 0], [12, 3, 8, 20]), np.repeat([1, 0, 1, 0], [12, 3, 8, 20])
    assert statistics.cluster_difference(first, second, np.arange(43)) == statistics.paired_difference(12, 3, 8, 20)
    nothing = statistics.cluster_difference(np.zeros(300), np.zeros(300), np.arange(300) // 10)
    assert nothing == statistics.paired_difference(0, 0, 0, 30)
