import functools

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from memtax import statistics
from memtax.errors import MemtaxError


def drawn(rows=400, seed=0, decimals=1):
    """Labels, scores with many ties, probabilities."""
    rng = np.random.default_rng(seed)
    scores = np.round(rng.normal(size=rows), decimals)
    probabilities = 1 / (1 + np.exp(-scores))
    return (rng.random(rows) < probabilities).astype(int), scores, probabilities


columns = st.integers(2, 40).flatmap(
    lambda rows: st.tuples(
        st.lists(st.integers(0, 1), min_size=rows, max_size=rows),
        st.lists(st.integers(-4, 4), min_size=rows, max_size=rows),
    )
)


class TestValues:
    @given(columns)
    def test_auroc_is_the_share_of_ordered_pairs(self, data):
        labels, scores = data
        assume(0 < sum(labels) < len(labels))
        positives = [s for y, s in zip(labels, scores, strict=True) if y]
        negatives = [s for y, s in zip(labels, scores, strict=True) if not y]
        wins = sum((p > n) + 0.5 * (p == n) for p in positives for n in negatives)
        assert statistics.auroc(labels, scores) == pytest.approx(wins / (len(positives) * len(negatives)), abs=1e-12)

    @given(columns)
    def test_ranking_metrics_equal_scikit_learn(self, data):
        labels, scores = data
        assume(0 < sum(labels) < len(labels))
        assert statistics.auroc(labels, scores) == pytest.approx(sklearn.metrics.roc_auc_score(labels, scores), abs=1e-12)
        expected = sklearn.metrics.average_precision_score(labels, scores)
        assert statistics.average_precision(labels, scores) == pytest.approx(expected, abs=1e-12)
        decisions = np.array(scores) > 0
        assert statistics.f1_score(labels, decisions) == pytest.approx(sklearn.metrics.f1_score(labels, decisions), abs=1e-12)

    @given(columns)
    def test_correlations_equal_scipy(self, data):
        x, y = data
        assume(len(set(x)) > 1 and len(set(y)) > 1)
        assert statistics.pearson(x, y) == pytest.approx(scipy.stats.pearsonr(x, y).statistic, abs=1e-9)
        assert statistics.spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-9)

    def test_correlation_survives_extreme_scales(self):
        x = np.array([1.0, 2.0, 3.0, 5.0])
        assert statistics.pearson(x * 1e200, x * 1e-200) == pytest.approx(1.0)

    def test_by_hand(self):
        # Scores fall .9 .8 .3 .1 with labels 1 0 1 0: of the four pairs (.9,.8) (.9,.1) (.3,.8) (.3,.1) three are ordered.
        labels, scores = [1, 0, 1, 0], [0.9, 0.8, 0.3, 0.1]
        assert statistics.auroc(labels, scores) == 0.75
        # Recall rises to 1/2 at precision 1/1, then to 1 at precision 2/3.
        assert statistics.average_precision(labels, scores) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
        # (.1^2 + .8^2 + .7^2 + .1^2) / 4 = (.01 + .64 + .49 + .01) / 4
        assert statistics.brier_score(labels, scores) == pytest.approx(1.15 / 4)

    def test_calibration_error_by_hand(self):
        # Two bins of width .5: {.1, .3} with labels 0, 1 has gap |.2 - .5| = .3 and half the rows; {.5, 1.0} with labels
        # 1, 1 (.5 and 1 both belong to the upper bin) has gap |.75 - 1| = .25 and half the rows.
        labels, probabilities = [0, 1, 1, 1], [0.1, 0.3, 0.5, 1.0]
        found = statistics.expected_calibration_error(labels, probabilities, bins=2)
        assert found == pytest.approx(0.5 * 0.3 + 0.5 * 0.25)
        predicted, observed, count = statistics.reliability_curve(labels, probabilities, bins=2)
        np.testing.assert_allclose(predicted, [0.2, 0.75])
        np.testing.assert_allclose(observed, [0.5, 1.0])
        assert count.tolist() == [2, 2]

    def test_calibration_error_is_the_weighted_gap_of_the_reliability_curve(self):
        labels, _, probabilities = drawn(seed=3, decimals=4)
        predicted, observed, count = statistics.reliability_curve(labels, probabilities)
        expected = np.sum(count * np.abs(predicted - observed)) / len(labels)
        assert statistics.expected_calibration_error(labels, probabilities) == pytest.approx(expected, abs=1e-12)
        assert count.sum() == len(labels)

    def test_calibration_and_brier_accept_one_class(self):
        assert statistics.expected_calibration_error([0, 0], [0.25, 0.25]) == pytest.approx(0.25)
        assert statistics.brier_score([0, 0], [0.5, 0.5]) == 0.25


class TestRefusals:
    ranking = (statistics.auroc, statistics.average_precision, statistics.f1_score, statistics.roc_curve, statistics.pr_curve)
    probability = (statistics.brier_score, statistics.expected_calibration_error, statistics.reliability_curve)
    pairs = (statistics.pearson, statistics.spearman, statistics.spearman_interval)

    @pytest.mark.parametrize("function", ranking + probability + pairs)
    def test_length_nan_empty(self, function):
        with pytest.raises(MemtaxError, match=r"differ in length: .* 2, .* 3"):
            function([0, 1], [0, 1, 1])
        with pytest.raises(MemtaxError, match="NaN in row 1"):
            function([0, 1], [0, np.nan])
        with pytest.raises(MemtaxError, match="at least one row"):
            function([], [])

    @pytest.mark.parametrize("function", ranking)
    def test_one_class(self, function):
        with pytest.raises(MemtaxError, match="all 2 labels are 1"):
            function([1, 1], [0, 1])

    @pytest.mark.parametrize("function", ranking + probability)
    def test_labels_beyond_binary(self, function):
        with pytest.raises(MemtaxError, match="labels must be 0 or 1, not 2"):
            function([0, 2], [0, 1])

    @pytest.mark.parametrize("function", probability)
    def test_no_probability(self, function):
        with pytest.raises(MemtaxError, match=r"must be in \[0, 1\], got 1\.5"):
            function([0, 1], [0, 1.5])

    @pytest.mark.parametrize("function", pairs)
    def test_constant_column(self, function):
        with pytest.raises(MemtaxError, match="constant"):
            function([3, 3, 3], [0, 1, 2])

    def test_others(self):
        with pytest.raises(MemtaxError, match="decisions must be 0 or 1"):
            statistics.f1_score([0, 1], [0, 0.5])
        with pytest.raises(MemtaxError, match="bin"):
            statistics.expected_calibration_error([0, 1], [0, 1], bins=0)
        with pytest.raises(MemtaxError, match="at least 1 resample"):
            statistics.bootstrap_interval(statistics.auroc, [0, 1], [0, 1], resamples=0)
        with pytest.raises(MemtaxError, match="level"):
            statistics.bootstrap_interval(statistics.auroc, *drawn()[:2], level=95)
        with pytest.raises(MemtaxError, match="strata"):
            statistics.bootstrap_interval(statistics.auroc, *drawn()[:2], strata=[0, 1])
        with pytest.raises(MemtaxError, match=r"lengths \[2, 1\]"):
            statistics.bootstrap_interval(lambda a, b: 0.0, [0, 1], [0])


class TestCurves:
    def test_unthinned_points_equal_scikit_learn(self):
        labels, scores, _ = drawn(rows=60, seed=1)
        fpr, tpr = statistics.roc_curve(labels, scores)
        expected_fpr, expected_tpr, _ = sklearn.metrics.roc_curve(labels, scores, drop_intermediate=False)
        np.testing.assert_allclose(fpr, expected_fpr)
        np.testing.assert_allclose(tpr, expected_tpr)
        recall, precision = statistics.pr_curve(labels, scores)
        # scikit-learn lists thresholds from the lowest up and ends at (0, 1), where ours begins with the first precision.
        expected_precision, expected_recall, _ = sklearn.metrics.precision_recall_curve(labels, scores)
        np.testing.assert_allclose(recall[1:], expected_recall[:-1][::-1])
        np.testing.assert_allclose(precision[1:], expected_precision[:-1][::-1])
        assert (recall[0], precision[0]) == (0.0, precision[1])

    def test_thinning_keeps_the_shape(self):
        labels, scores, _ = drawn(rows=20_000, seed=2, decimals=9)
        for curve in (statistics.roc_curve, statistics.pr_curve):
            x, y = curve(labels, scores)
            full_x, full_y = curve(labels, scores, points=10**6)
            assert len(x) <= 200 < len(full_x)
            assert (x[0], y[0], x[-1], y[-1]) == (full_x[0], full_y[0], full_x[-1], full_y[-1])
            # Away from the noisy first percent no point of the full curve is off the thinned one by more than 2%.
            late = full_x > 0.01
            assert np.abs(np.interp(full_x, x, y) - full_y)[late].max() < 0.02
            assert np.trapezoid(y, x) == pytest.approx(np.trapezoid(full_y, full_x), abs=0.003)

    def test_too_few_points(self):
        with pytest.raises(MemtaxError, match="at least 2 points"):
            statistics.roc_curve([0, 1], [0, 1], points=1)


class TestClopperPearson:
    def test_by_hand(self):
        # No success in n trials: the upper bound p solves (1 - p)^n = .025.
        found = statistics.clopper_pearson(0, 10)
        assert (found.value, found.low) == (0.0, 0.0)
        assert found.high == pytest.approx(1 - 0.025**0.1)
        # All n succeed: the lower bound solves p^n = .025.
        assert statistics.clopper_pearson(10, 10).low == pytest.approx(0.025**0.1)
        assert statistics.clopper_pearson(10, 10).high == 1.0

    @given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.8, 0.95, 0.99]))
    @settings(max_examples=50)
    def test_equals_scipy(self, data, level):
        successes, trials = data
        expected = scipy.stats.binomtest(successes, trials).proportion_ci(level, method="exact")
        found = statistics.clopper_pearson(successes, trials, level)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)

    @pytest.mark.parametrize("trials", [1, 7, 30])
    def test_covers_at_least_its_level(self, trials):
        # Exact: for each true rate p, sum the binomial probabilities of the outcomes whose interval holds p.
        intervals = [statistics.clopper_pearson(k, trials) for k in range(trials + 1)]
        for rate in np.linspace(0.001, 0.999, 999):
            covered = sum(scipy.stats.binom.pmf(k, trials, rate) for k, i in enumerate(intervals) if i.low <= rate <= i.high)
            assert covered >= 0.95 - 1e-12

    @pytest.mark.parametrize(("successes", "trials"), [(1, 0), (-1, 5), (6, 5)])
    def test_refuses(self, successes, trials):
        with pytest.raises(MemtaxError, match=f"{successes} successes in {trials} trials"):
            statistics.clopper_pearson(successes, trials)


class TestBootstrap:
    @pytest.mark.parametrize("name", ["auroc", "average_precision", "f1_score", "brier_score", "expected_calibration_error",
                                      "pearson", "spearman"])  # fmt: skip
    @pytest.mark.parametrize("decimals", [1, 9])
    def test_weights_equal_repeated_rows(self, name, decimals):
        """The fast path on weights against the statistic of scikit-learn or scipy on the resampled rows themselves."""
        labels, scores, probabilities = drawn(rows=150, seed=5, decimals=decimals)
        oracles = {
            "auroc": (scores, sklearn.metrics.roc_auc_score),
            "average_precision": (scores, sklearn.metrics.average_precision_score),
            "f1_score": (scores > 0, sklearn.metrics.f1_score),
            "brier_score": (probabilities, lambda y, p: np.mean((y - p) ** 2)),
            "expected_calibration_error": (probabilities, statistics.expected_calibration_error),
            "pearson": (scores, lambda y, s: scipy.stats.pearsonr(y, s).statistic),
            "spearman": (scores, lambda y, s: scipy.stats.spearmanr(y, s).statistic),
        }
        column, oracle = oracles[name]
        rng = np.random.default_rng(7)
        picks = rng.integers(0, 150, (20, 150))
        weights = np.stack([np.bincount(pick, minlength=150) for pick in picks]).astype(float)
        found = statistics.evaluator(getattr(statistics, name), labels, column)(weights)
        np.testing.assert_allclose(found, [oracle(labels[pick], column[pick]) for pick in picks], atol=1e-10)

    def test_any_function_goes_the_slow_way_to_the_same_interval(self):
        labels, scores, _ = drawn(rows=100)
        fast = statistics.bootstrap_interval(statistics.auroc, labels, scores, resamples=50)
        slow = statistics.bootstrap_interval(sklearn.metrics.roc_auc_score, labels, scores, resamples=50)
        assert (fast.value, fast.low, fast.high) == pytest.approx((slow.value, slow.low, slow.high), abs=1e-12)
        other = functools.partial(statistics.expected_calibration_error, bins=5)
        assert statistics.bootstrap_interval(other, labels, labels * 0.5, resamples=20).value == other(labels, labels * 0.5)

    def test_result_does_not_depend_on_the_chunk(self, monkeypatch):
        labels, scores, _ = drawn(rows=100)
        before = statistics.bootstrap_interval(statistics.auroc, labels, scores, resamples=50)
        monkeypatch.setattr("memtax.statistics.intervals._CHUNK", 300)
        assert statistics.bootstrap_interval(statistics.auroc, labels, scores, resamples=50) == before
        assert statistics.bootstrap_interval(statistics.auroc, labels, scores, resamples=50, seed=1) != before

    def test_standard_error_of_a_mean(self):
        # The bootstrap distribution of a mean has variance (population variance) / n: its 95% interval is about
        # mean +- 1.96 s / sqrt(n); with 4,000 resamples a percentile is known to a few percent of s / sqrt(n).
        values = np.random.default_rng(1).normal(size=500)
        found = statistics.bootstrap_interval(np.mean, values, resamples=4000)
        half = 1.96 * values.std() / np.sqrt(500)
        assert found.value == values.mean()
        assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)

    def test_strata_keep_their_sizes(self):
        labels = np.array([0] * 30 + [1] * 5)
        found = statistics.bootstrap_interval(lambda y: float(np.mean(y)), labels, resamples=50, strata=labels)
        assert found == statistics.Interval(5 / 35, 5 / 35, 5 / 35)
        free = statistics.bootstrap_interval(lambda y: float(np.mean(y)), labels, resamples=50)
        assert free.low < 5 / 35 < free.high

    def test_covers_the_true_auroc(self):
        # Scores N(1,1) against N(0,1): AUROC = Phi(1 / sqrt(2)). 200 intervals at 95%: fewer than 180 covering has
        # probability below .002 when the coverage is .95.
        truth = scipy.stats.norm.cdf(1 / np.sqrt(2))
        rng = np.random.default_rng(11)
        labels = np.repeat([0, 1], 100)
        found = [
            statistics.bootstrap_interval(statistics.auroc, labels, rng.normal(size=200) + labels, resamples=300, seed=i)
            for i in range(200)
        ]
        covered = sum(interval.low <= truth <= interval.high for interval in found)
        assert 180 <= covered <= 199

    def test_undefined_resamples_are_refused(self):
        # One positive among 20: a free resample misses it with probability (19/20)^20 = .36.
        labels, scores = [1] + [0] * 19, list(range(20))
        with pytest.raises(MemtaxError, match=r"undefined on .* of 200 resamples"):
            statistics.bootstrap_interval(statistics.auroc, labels, scores, resamples=200)
        statistics.bootstrap_interval(statistics.auroc, labels, scores, resamples=200, strata=labels)

    def test_paired_difference(self):
        labels, scores, _ = drawn(seed=4)
        noisy = scores + np.random.default_rng(2).normal(size=len(scores))
        found = statistics.paired_bootstrap_difference(statistics.auroc, labels, scores, noisy)
        assert found.value == statistics.auroc(labels, scores) - statistics.auroc(labels, noisy)
        assert 0 < found.low < found.value < found.high
        same = statistics.paired_bootstrap_difference(statistics.auroc, labels, scores, scores)
        assert same == statistics.Interval(0.0, 0.0, 0.0)
        # Pairing matters: the difference is known better than from two separate intervals.
        apart = [statistics.bootstrap_interval(statistics.auroc, labels, column) for column in (scores, noisy)]
        assert found.high - found.low < sum(interval.high - interval.low for interval in apart)


@given(columns)
@settings(max_examples=30)
def test_best_threshold_is_the_best_of_all(data):
    labels, scores = data
    assume(0 < sum(labels) < len(labels))
    found = statistics.best_threshold(labels, scores)
    by_threshold = {t: sklearn.metrics.f1_score(labels, np.array(scores) >= t) for t in scores}
    best = max(by_threshold.values())
    assert found == max(t for t, f1 in by_threshold.items() if f1 > best - 1e-12)


class TestSpearmanInterval:
    @given(columns)
    def test_value_and_error_equal_the_infinitesimal_jackknife(self, data):
        """The influence of each row by a finite difference of the weighted correlation, which knows no formula for it."""
        x, y = data
        assume(len(set(x)) > 1 and len(set(y)) > 1)
        expected = scipy.stats.spearmanr(x, y).statistic
        assume(abs(expected) < 0.999)
        found = statistics.spearman_interval(x, y)
        assert found.value == pytest.approx(expected, abs=1e-12)
        rows, step = len(x), 1e-4
        correlation = statistics.evaluator(statistics.spearman, x, y)
        # Central difference in the direction of row i: weights 1 + step n (delta_i - 1/n).
        direction = rows * np.eye(rows) - 1
        influence = (correlation(1 + step * direction) - correlation(1 - step * direction)) / (2 * step)
        half = 1.959963984540054 * np.sqrt(np.mean(influence**2) / rows) / (1 - expected**2)
        bounds = np.tanh(np.arctanh(expected) + np.array([-half, half]))
        assert (found.low, found.high) == pytest.approx(tuple(bounds), abs=1e-4)

    @pytest.mark.parametrize("kind", ["independent", "binary", "tied"])
    def test_covers_the_truth(self, kind):
        # The truth is the correlation of 400,000 rows (standard error below .002 against half-widths near .1). Of 300
        # intervals at 95%, fewer than 272 covering has probability below .001 when the coverage is .95.
        rng = np.random.default_rng(3)

        def draw(rows):
            x = rng.normal(size=rows)
            if kind == "independent":
                return x, rng.normal(size=rows)
            if kind == "binary":
                return np.exp(x), rng.random(rows) < 1 / (1 + np.exp(2 - 2 * x))
            return np.round(x), np.round(x + rng.normal(size=rows))

        truth = statistics.spearman(*draw(400_000))
        intervals = [statistics.spearman_interval(*draw(300)) for _ in range(300)]
        assert 272 <= sum(i.low <= truth <= i.high for i in intervals) <= 298

    def test_agrees_with_the_bootstrap(self):
        labels, scores, _ = drawn(rows=2000, seed=8)
        found = statistics.spearman_interval(scores, labels)
        expected = statistics.bootstrap_interval(statistics.spearman, scores, labels, resamples=4000)
        width = expected.high - expected.low
        assert found.value == pytest.approx(expected.value)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.05 * width)

    def test_perfect_order(self):
        assert statistics.spearman_interval([1, 2, 3], [10, 20, 30]) == statistics.Interval(1.0, 1.0, 1.0)


class TestDecisions:
    @given(columns)
    def test_precision_and_recall_equal_scikit_learn(self, data):
        labels, scores = data
        assume(0 < sum(labels) < len(labels))
        decisions = np.array(scores) > 0
        expected = sklearn.metrics.precision_score(labels, decisions, zero_division=0)
        assert statistics.precision_score(labels, decisions) == pytest.approx(expected, abs=1e-12)
        expected = sklearn.metrics.recall_score(labels, decisions)
        assert statistics.recall_score(labels, decisions) == pytest.approx(expected, abs=1e-12)

    def test_log_loss_equals_scikit_learn(self):
        labels, _, probabilities = drawn()
        probabilities[:3] = 0.0, 1.0, 0.5
        assert statistics.log_loss(labels, probabilities) == pytest.approx(sklearn.metrics.log_loss(labels, probabilities))
        # Certain and right costs nothing, even odds cost log 2.
        assert statistics.log_loss([1, 0], [1.0, 0.0]) == pytest.approx(0.0, abs=1e-15)
        assert statistics.log_loss([1, 1], [0.5, 0.5]) == pytest.approx(np.log(2))


class TestCalibrationInterval:
    @pytest.mark.parametrize(("shift", "slope"), [(0.0, 1.0), (0.5, 1.0), (0.0, 0.7)])
    def test_covers_also_where_the_error_is_zero(self, shift, slope):
        rng = np.random.default_rng(0)

        def simulate(rows):
            odds = rng.normal(scale=1.5, size=rows) - 1
            labels = rng.random(rows) < 1 / (1 + np.exp(-shift - slope * odds))
            return labels.astype(int), 1 / (1 + np.exp(-odds))

        # A sample of a million is off by about .001; a calibrated model's error is 0.
        truth = statistics.expected_calibration_error(*simulate(1_000_000)) if shift or slope != 1 else 0.0
        hits = 0
        for _ in range(60):
            found = statistics.bootstrap_interval(statistics.expected_calibration_error, *simulate(500), resamples=100)
            assert found.low <= found.value <= found.high
            hits += found.low - 1e-3 <= truth <= found.high + 1e-3
        assert hits >= 53  # of 60 x .95 = 57, standard deviation 1.7


def xi_by_definition(x, y, order):
    n = len(y)
    y = np.array(y)[order]
    r = [(y <= v).sum() for v in y]
    l = [(y >= v).sum() for v in y]  # noqa: E741 - the paper's letter
    return 1 - n * sum(abs(r[i + 1] - r[i]) for i in range(n - 1)) / (2 * sum(v * (n - v) for v in l))


class TestXi:
    @given(st.lists(st.integers(0, 5), min_size=3, max_size=30), st.integers(0, 99))
    def test_equals_the_definition_without_ties(self, y, seed):
        assume(len(set(y)) > 1)
        x = np.random.default_rng(seed).permutation(len(y)).astype(float)
        assert statistics.chatterjee_xi(x, y) == pytest.approx(xi_by_definition(x, y, np.argsort(x)), abs=1e-12)

    def test_equals_scipy(self):
        rng = np.random.default_rng(0)
        x = rng.normal(size=300)
        for y in (x**2 + 0.1 * rng.normal(size=300), (x + rng.normal(size=300) > 0).astype(float)):
            assert statistics.chatterjee_xi(x, y) == pytest.approx(scipy.stats.chatterjeexi(x, y).statistic, abs=1e-12)

    @pytest.mark.parametrize("classes", [2, 3])
    def test_ties_are_averaged_over_random_orders(self, classes):
        rng = np.random.default_rng(0)
        x = rng.integers(0, 4, 40)
        y = rng.integers(0, classes, 40)
        draws = [xi_by_definition(x, y, np.lexsort((rng.random(40), x))) for _ in range(3000)]
        error = np.std(draws) / np.sqrt(3000)
        found = statistics.chatterjee_xi(x, y, orders=3000)
        assert found == pytest.approx(np.mean(draws), abs=6 * error)
        assert statistics.chatterjee_xi(x, y) == statistics.chatterjee_xi(x, y)

    def test_direction_matters(self):
        x = np.linspace(-1, 1, 501)
        # y is a function of x, x is none of y.
        assert statistics.chatterjee_xi(x, x**2) > 0.97
        assert statistics.chatterjee_xi(x**2, x) < 0.6

    @pytest.mark.parametrize("rounded", [False, True])
    def test_subsampling_intervals_cover(self, rounded):
        rng = np.random.default_rng(1)

        def simulate(rows):
            x = rng.normal(size=rows)
            x = np.round(2 * x) if rounded else x
            return x, rng.random(rows) < 1 / (1 + np.exp(2 - 1.5 * x))

        truth = statistics.chatterjee_xi(*simulate(1_000_000))
        hits = 0
        for _ in range(80):
            found = statistics.xi_interval(*simulate(1500), subsamples=80)
            hits += found.low <= truth <= found.high
        assert hits >= 70  # of 80 x .95 = 76, standard deviation 1.9

    def test_refusals(self):
        with pytest.raises(MemtaxError, match="xi needs a y that varies"):
            statistics.chatterjee_xi([1, 2, 3], [1, 1, 1])
        with pytest.raises(MemtaxError, match="at least 20 rows, not 3"):
            statistics.xi_interval([1, 2, 3], [1, 0, 1])
        with pytest.raises(MemtaxError, match="at least 1 order"):
            statistics.chatterjee_xi([1, 2, 3], [1, 0, 1], orders=0)
