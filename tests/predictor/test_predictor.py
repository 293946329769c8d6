import functools
import json

import numpy as np
import pyarrow as pa
import pytest
import sklearn.linear_model
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from helpers import simulated
from memtax import statistics
from memtax.errors import MemtaxError
from memtax.predictor import factors as declared
from memtax.predictor.evaluation import METRICS, Prediction, evaluate
from memtax.predictor.predictor import Predictor
from memtax.predictor.split import stratified_split
from memtax.schema import CATEGORIES

simulated.declare("leak", "flat")
NAMES = ("a", "b", "sequence_duplicates", "is_templating")


@functools.cache
def fitted(**options):
    """A predictor of a simulated table, and the table."""
    data = simulated.table(**options)
    return Predictor.fit(data, factors=NAMES, resamples=100), data


def split_of(data, seed=1024):
    """The parts that `fit` makes of a table without nulls."""
    strata = np.array(data["taxonomy"]) * 2 + np.array(data["is_memorized"])
    return stratified_split(strata, 0.2, 0.2, seed)


class TestSplit:
    @given(st.lists(st.integers(0, 5), min_size=0, max_size=80), st.integers(0, 5))
    def test_parts_are_all_rows_once_and_stratified(self, strata, seed):
        strata = np.array(strata, np.int64)
        split = stratified_split(strata, 0.2, 0.2, seed)
        joined = np.concatenate([split.train, split.validation, split.test])
        assert sorted(joined) == list(range(len(strata)))
        for stratum in set(strata.tolist()):
            rows = int((strata == stratum).sum())
            assert (strata[split.train] == stratum).sum() >= 1
            for part in (split.validation, split.test):
                assert abs((strata[part] == stratum).sum() - 0.2 * rows) <= 0.5 + 1e-9

    @pytest.mark.parametrize(("validation", "test"), [(0.5, 0.5), (0, 0.2), (0.2, -0.1)])
    def test_refuses(self, validation, test):
        with pytest.raises(MemtaxError, match="validation"):
            stratified_split(np.zeros(9, np.int64), validation, test, 0)


class TestFit:
    def test_recovers_known_coefficients(self):
        # a and b are N(0, 1), so coefficients per standard deviation are the simulated 1 and -.7; the standard error with
        # 12,000 training rows and about a quarter positive is below .03, balanced weights add a little: tolerance .1.
        predictor, data = fitted(rows=20_000, beta=(1.0, -0.7, 0.0))
        found = {(row["model"], row["factor"]): row["coefficient"] for row in predictor.metrics["coefficients"]}
        for model in ("baseline", *CATEGORIES):
            assert found[model, "a"] == pytest.approx(1.0, abs=0.15)
            assert found[model, "b"] == pytest.approx(-0.7, abs=0.15)
        assert found["baseline", "sequence_duplicates"] == pytest.approx(0.0, abs=0.15)
        # The intercept, with the prior shift undone and at the factors' means, is the simulated -1.5.
        baseline = predictor.models["baseline"]
        shift = predictor.scaler.mean / predictor.scaler.scale @ baseline.coefficients
        assert baseline.intercept - baseline.prior_shift - shift == pytest.approx(-1.5, abs=0.15)
        # So are the probabilities themselves: calibration is honest although the fit was balanced.
        truth = 1 / (1 + np.exp(-(-1.5 + np.array(data["a"]) - 0.7 * np.array(data["b"]))))
        assert np.abs(np.array(predictor.predict(data)) - truth).mean() < 0.02
        assert predictor.metrics["models"]["baseline"]["aggregate"]["ece"]["value"] < 0.03

    def test_equals_a_pipeline_of_scikit_learn(self):
        """Every figure of the baseline from an independent float64 pipeline on the same rows."""
        predictor, data = fitted()
        split, y = split_of(data), np.array(data["is_memorized"])
        templating = np.array(data["is_incrementing"]) | np.array(data["is_repeating"])
        x = np.stack([data["a"], data["b"], np.log1p(np.array(data["sequence_duplicates"])), templating], axis=1)
        x = (x - x[split.train].mean(0)) / x[split.train].std(0)
        model = sklearn.linear_model.LogisticRegression(C=1, class_weight="balanced", tol=1e-10, max_iter=10_000)
        model.fit(x[split.train], y[split.train])
        np.testing.assert_allclose(predictor.models["baseline"].coefficients, model.coef_[0], atol=1e-6)
        rate = y[split.train].mean()
        p = 1 / (1 + np.exp(-(model.decision_function(x) - np.log((1 - rate) / rate))))
        np.testing.assert_allclose(np.array(predictor.predict(data, model="baseline")), p, atol=1e-6)

        found = predictor.metrics["models"]["baseline"]["aggregate"]
        truth, score = y[split.test], np.array(predictor.predict(data, model="baseline"))[split.test]
        assert (found["n"], found["positives"], found["reason"]) == (len(truth), truth.sum(), None)
        assert found["roc_auc"]["value"] == pytest.approx(sklearn.metrics.roc_auc_score(truth, score))
        assert found["pr_auc"]["value"] == pytest.approx(sklearn.metrics.average_precision_score(truth, score))
        assert found["brier"]["value"] == pytest.approx(sklearn.metrics.brier_score_loss(truth, score))
        # The threshold is the best one on validation rows, not on test rows.
        validation = np.array(predictor.predict(data, model="baseline"))[split.validation]
        best = max(validation, key=lambda t: sklearn.metrics.f1_score(y[split.validation], validation >= t))
        assert predictor.metrics["thresholds"]["baseline"] == best
        assert found["f1"]["value"] == pytest.approx(sklearn.metrics.f1_score(truth, score >= best))

    def test_taxonomic_probabilities_are_those_of_the_category_models(self):
        predictor, data = fitted()
        split, y, category = split_of(data), np.array(data["is_memorized"]), np.array(data["taxonomy"])
        p = np.array(predictor.predict(data))
        values = declared.matrix(data, declared.resolve(NAMES, "is_memorized"))
        for code, name in enumerate(CATEGORIES):
            own = category == code
            np.testing.assert_array_equal(p[own], predictor.models[name].probability(predictor.scaler(values[own])))
            test = split.test[category[split.test] == code]
            found = predictor.metrics["models"]["taxonomic"][name]
            assert found["n"] == len(test)
            assert found["roc_auc"]["value"] == pytest.approx(sklearn.metrics.roc_auc_score(y[test], p[test]))
            decided = p[test] >= predictor.models[name].threshold
            assert found["f1"]["value"] == pytest.approx(sklearn.metrics.f1_score(y[test], decided))
        aggregate = predictor.metrics["models"]["taxonomic"]["aggregate"]
        assert aggregate["roc_auc"]["value"] == pytest.approx(sklearn.metrics.roc_auc_score(y[split.test], p[split.test]))

    def test_differences_and_curves(self):
        predictor, _ = fitted()
        metrics = predictor.metrics
        groups = ("aggregate", *CATEGORIES)
        assert [(row["category"], row["metric"]) for row in metrics["differences"]] == [
            (group, metric) for group in groups for metric in METRICS
        ]
        for row in metrics["differences"]:
            taxonomic, baseline = (metrics["models"][m][row["category"]][row["metric"]] for m in ("taxonomic", "baseline"))
            assert row["value"] == taxonomic["value"] - baseline["value"]
            assert row["low"] <= row["high"]
            # Paired: never wider than the two intervals together.
            assert row["high"] - row["low"] <= sum(i["high"] - i["low"] for i in (taxonomic, baseline))
        assert {(c["model"], c["category"]) for c in metrics["curves"]} == {
            (model, group) for model in ("baseline", "taxonomic") for group in groups
        }
        for curve in metrics["curves"]:
            found = metrics["models"][curve["model"]][curve["category"]]
            area = np.trapezoid(curve["roc"]["tpr"], curve["roc"]["fpr"])
            assert area == pytest.approx(found["roc_auc"]["value"], abs=0.005)
            assert sum(curve["reliability"]["count"]) == found["n"]

    def test_a_difference_of_calibration_errors_covers_where_one_model_is_calibrated(self):
        rng = np.random.default_rng(0)

        def simulate(documents, largest):
            units = np.repeat(np.arange(documents), rng.integers(1, largest, documents))
            odds = rng.normal(size=len(units)) - 1
            labels = rng.random(len(units)) < 1 / (1 + np.exp(-odds))
            chances = {"right": 1 / (1 + np.exp(-odds)), "shrunk": 1 / (1 + np.exp(-odds / 2))}
            return labels, {name: Prediction(one, one >= 0.5, {}) for name, one in chances.items()}, units

        labels, models, _ = simulate(500_000, 2)
        truth = statistics.expected_calibration_error(labels, models["shrunk"].probabilities)
        covered = []
        for _ in range(20):
            labels, models, units = simulate(37, 30)
            places, units = np.zeros(len(labels), int), statistics.Units(units, "document")
            found = evaluate(labels, places, models, 60, 1, ("all",), units)["differences"]
            (row,) = [one for one in found if (one["metric"], one["category"]) == ("ece", "aggregate")]
            covered.append(row["low"] <= truth <= row["high"])
        assert np.mean(covered) >= 0.9

    def test_category_models_win_where_categories_differ(self):
        # In recitation the factor a raises the odds, in recollection it lowers them: one model for all cannot tell.
        data = simulated.table(rows=4000, beta=(2.0, 0.0, 0.0), shares=(0.5, 0.0, 0.5))
        turned = np.where(np.array(data["taxonomy"]) == 2, -1, 1) * np.array(data["a"])
        predictor = Predictor.fit(simulated.with_column(data, "a", turned), factors=["a", "b"], resamples=100)
        gain = predictor.metrics["differences"][0]
        assert (gain["metric"], gain["category"]) == ("roc_auc", "aggregate")
        assert gain["low"] > 0.1

    def test_same_seed_same_predictor(self):
        predictor, data = fitted()
        again = Predictor.fit(data, factors=NAMES, resamples=100)
        assert again.metrics == predictor.metrics
        other = Predictor.fit(data, factors=NAMES, resamples=100, seed=1)
        assert other.metrics["models"] != predictor.metrics["models"]

    def test_metrics_are_json(self):
        metrics = fitted()[0].metrics
        assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
        assert metrics["rows"]["train"] + metrics["rows"]["validation"] + metrics["rows"]["test"] == 4000


class TestLeakage:
    def test_a_column_that_only_tells_in_test_rows_does_not_help(self):
        data = simulated.table(beta=(0.0, 0.0, 0.0), intercept=0.0)
        split = split_of(data)
        leak = np.random.default_rng(5).normal(size=data.num_rows)
        leak[split.test] = 4.0 * np.array(data["is_memorized"])[split.test]
        predictor = Predictor.fit(simulated.with_column(data, "leak", leak), factors=["a", "leak"], resamples=50)
        weights = {row["factor"]: row["coefficient"] for row in predictor.metrics["coefficients"] if row["model"] == "baseline"}
        # Noise in training: its weight is that of noise (standard error 2 / sqrt(2400) = .04 at balanced classes).
        assert abs(weights["leak"]) < 0.15
        # And the test rows are indeed the ones that were judged: there the column alone ranks without a fault.
        column = leak[split.test]
        assert sklearn.metrics.roc_auc_score(np.array(data["is_memorized"])[split.test], column) == 1.0

    def test_test_rows_reach_nothing_that_is_fitted(self):
        predictor, data = fitted()
        split = split_of(data)
        moved = np.array(data["a"]).copy()
        moved[split.test] = moved[split.test] * 1e6 + 1e9
        other = Predictor.fit(simulated.with_column(data, "a", moved), factors=NAMES, resamples=20)
        np.testing.assert_array_equal(other.scaler.mean, predictor.scaler.mean)
        np.testing.assert_array_equal(other.scaler.scale, predictor.scaler.scale)
        for name, model in predictor.models.items():
            np.testing.assert_array_equal(other.models[name].coefficients, model.coefficients)
            assert other.models[name].threshold == model.threshold
        train = np.array(data["a"])[split.train]
        assert predictor.scaler.mean[0] == pytest.approx(train.mean(), abs=1e-12)
        assert predictor.scaler.scale[0] == pytest.approx(train.std(), abs=1e-12)

    @pytest.mark.parametrize(
        "name",
        [
            *("is_memorized", "match_length", "memorization_score", "memorized_probability", "exact_memorization"),
            *(
                "extraction_strength",
                "continuation_logprob",
                "decoding_logprob",
                "extraction_queries",
                "extraction_queries:log",
            ),
            *("memorization_score_12b", "match_length_50_100"),
        ],
    )
    def test_outcomes_are_no_factors(self, name):
        with pytest.raises(MemtaxError, match=f"{name.removesuffix(':log')!r} says whether"):
            Predictor.fit(simulated.table(rows=100), factors=["a", name])

    @pytest.mark.parametrize("name", ["attack_loss", "attack_min_k_0.2", "gradient_alignment", "counterfactual_memorization"])
    def test_scores_of_the_same_tokens_are_no_factors(self, name):
        with pytest.raises(MemtaxError, match=f"{name!r} is measured by a model on the tokens"):
            declared.resolve([name], "is_memorized")

    def test_an_undeclared_column_is_read_on_the_scale_that_is_named(self):
        data = simulated.with_column(simulated.table(rows=3), "own", [0.0, 1.0, 3.0])
        found = declared.matrix(data, declared.resolve(["own:log", "b"], "is_memorized"))
        np.testing.assert_allclose(found[:, 0], np.log1p([0.0, 1.0, 3.0]))


class TestScarcity:
    def test_a_category_without_positives(self):
        predictor, data = fitted(rows=3000, category_rates=(None, None, 0.0))
        reason = "0 positives among the training rows, 10 needed; the baseline model answers for recollection"
        assert predictor.silent == {"recollection": reason}
        empty = {"roc_auc": None, "pr_auc": None, "ece": None, "brier": None, "f1": None}
        found = predictor.metrics["models"]["taxonomic"]["recollection"]
        assert found.items() >= {"positives": 0, "reason": "0 positives among the test rows, 10 needed", **empty}.items()
        assert not [row for row in predictor.metrics["coefficients"] if row["model"] == "recollection"]
        assert not [row for row in predictor.metrics["differences"] if row["category"] == "recollection"]
        assert not [row for row in predictor.metrics["curves"] if row["category"] == "recollection"]
        own = np.array(data["taxonomy"]) == 2
        baseline, taxonomic = (np.array(predictor.predict(data, model=model)) for model in ("baseline", "taxonomic"))
        np.testing.assert_array_equal(taxonomic[own], baseline[own])
        assert (taxonomic[~own] != baseline[~own]).any()

    def test_a_category_that_cannot_be_recalibrated(self):
        data = simulated.table(rows=2000)
        labels, own = np.array(data["is_memorized"]), np.array(data["taxonomy"]) == 1
        labels[own] = np.array(data["a"])[own] > 0
        data = simulated.with_column(data, "is_memorized", labels)
        predictor = Predictor.fit(data, factors=NAMES, resamples=20, calibration="recalibration")
        assert "separates the validation rows" in predictor.silent["reconstruction"]
        assert set(predictor.models) == {"baseline", "recitation", "recollection"}

    def test_no_figure_on_fewer_than_ten_test_positives(self):
        data = simulated.table(rows=2000, category_rates=(None, None, 0.0))
        labels = np.array(data["is_memorized"])
        labels[np.flatnonzero(np.array(data["taxonomy"]) == 2)[:35]] = True
        predictor = Predictor.fit(simulated.with_column(data, "is_memorized", labels), factors=NAMES, resamples=50)
        # 35 positives: 7 for test, 7 for validation, 21 for training, enough to fit but not to judge.
        for model in ("baseline", "taxonomic"):
            found = predictor.metrics["models"][model]["recollection"]
            assert found["positives"] == 7
            assert found["reason"] == "7 positives among the test rows, 10 needed"
            assert found["roc_auc"] is found["pr_auc"] is found["ece"] is found["brier"] is found["f1"] is None
        assert "recollection" in predictor.models

    def test_negatives_are_counted_too(self):
        data = simulated.table(rows=2000, category_rates=(None, 1.0, None))
        predictor = Predictor.fit(data, factors=NAMES, resamples=50)
        assert predictor.silent["reconstruction"].startswith("0 negatives among the training rows")

    def test_a_table_without_positives(self):
        data = simulated.with_column(simulated.table(rows=200), "is_memorized", [False] * 200)
        with pytest.raises(
            MemtaxError, match=r"no predictor of 'is_memorized' .* 0 positives among the training rows, 10 needed"
        ):
            Predictor.fit(data, factors=NAMES)
        with pytest.raises(MemtaxError, match=r"0 positives .*left out: 200 rows because a is null"):
            Predictor.fit(simulated.with_null(data, "a", range(200)), factors=NAMES)

    def test_constant_factors_are_left_out_and_named(self):
        predictor, _ = fitted()
        # By the rules no recollection is templated and every reconstruction is.
        constant = {"baseline": [], "recitation": [], "reconstruction": ["is_templating"], "recollection": ["is_templating"]}
        assert predictor.metrics["constant"] == constant
        named = {(row["model"], row["factor"]) for row in predictor.metrics["coefficients"]}
        assert ("recitation", "is_templating") in named
        assert not named & {("reconstruction", "is_templating"), ("recollection", "is_templating")}

    def test_only_constant_factors_give_the_base_rate(self):
        data = simulated.with_column(simulated.table(rows=1000), "flat", [3.3] * 1000)
        predictor = Predictor.fit(data, factors=["flat"], resamples=20)
        rate = np.array(data["is_memorized"])[split_of(data).train].mean()
        np.testing.assert_allclose(np.array(predictor.predict(data, model="baseline")), rate, rtol=1e-12)
        assert predictor.metrics["models"]["baseline"]["aggregate"]["roc_auc"]["value"] == 0.5


class TestNulls:
    def test_rows_are_dropped_and_counted_by_first_reason(self):
        data = simulated.table(rows=2000)
        data = simulated.with_null(data, "is_memorized", [0, 1])
        data = simulated.with_null(data, "taxonomy", [1, 2, 3])
        data = simulated.with_null(data, "a", [3, 4, 5, 6])
        b = np.array(data["b"]).copy()
        b[10] = np.inf
        data = simulated.with_null(simulated.with_column(data, "b", b), "is_repeating", range(20, 30))
        predictor = Predictor.fit(data, factors=NAMES, resamples=20)
        # is_templating is known where the text increments, so only the others of rows 20..29 are lost.
        lost = sum(not data["is_incrementing"][row].as_py() for row in range(20, 30))
        assert 0 < lost < 10
        assert predictor.metrics["dropped"] == {
            "is_memorized is null": 2, "taxonomy is null": 2, "a is null": 3, "b is infinite": 1, "is_templating is null": lost
        }  # fmt: skip
        assert sum(predictor.metrics["rows"].values()) == 2000 - 8 - lost
        # The same rows are null in a prediction; of the category only the taxonomic model needs to know.
        nulls = {model: predictor.predict(data, model=model).is_null().to_pylist() for model in ("taxonomic", "baseline")}
        assert np.flatnonzero(nulls["baseline"])[:5].tolist() == [3, 4, 5, 6, 10]
        assert sum(nulls["baseline"]) == 5 + lost
        assert np.flatnonzero(nulls["taxonomic"])[:7].tolist() == [1, 2, 3, 4, 5, 6, 10]
        assert sum(nulls["taxonomic"]) == 7 + lost

    def test_a_dropped_row_leaves_no_trace(self):
        data = simulated.table(rows=1000)
        longer = pa.concat_tables([data, simulated.with_null(simulated.table(rows=500, seed=9), "b", range(500))])
        one, two = (Predictor.fit(table, factors=NAMES, resamples=20) for table in (data, longer))
        assert one.metrics["models"] == two.metrics["models"]
        assert two.metrics["dropped"] == {"b is null": 500}

    def test_sentinels_are_refused(self):
        data = simulated.table(rows=300)
        count = np.array(data["sequence_duplicates"]).copy()
        count[17] = -1
        with pytest.raises(MemtaxError, match="'sequence_duplicates' of the table is -1 in row 17"):
            Predictor.fit(simulated.with_column(data, "sequence_duplicates", count), factors=NAMES)

    def test_a_prediction_does_not_depend_on_the_other_rows(self):
        predictor, data = fitted()
        whole = predictor.predict(data)
        assert whole.type == pa.float64()
        parts = [predictor.predict(data.slice(start, 37)) for start in range(0, 370, 37)]
        assert pa.concat_arrays(parts) == whole.slice(0, 370)
        assert len(predictor.predict(data.slice(0, 0))) == 0


class TestStorage:
    def test_round_trip_to_the_bit(self, tmp_path):
        predictor, data = fitted(rows=3000, category_rates=(None, None, 0.0))
        predictor.save_pretrained(tmp_path / "predictor")
        loaded = Predictor.from_pretrained(tmp_path / "predictor")
        assert loaded.predict(data) == predictor.predict(data)
        assert loaded.metrics == predictor.metrics
        assert (loaded.factors, loaded.target, loaded.category, loaded.silent) == (
            predictor.factors, predictor.target, predictor.category, predictor.silent
        )  # fmt: skip
        assert loaded.scaler.mean.tobytes() == predictor.scaler.mean.tobytes()
        for name, model in predictor.models.items():
            other = loaded.models[name]
            assert other.coefficients.tobytes() == model.coefficients.tobytes()
            assert (other.intercept, other.prior_shift, other.threshold, other.constant) == (
                model.intercept, model.prior_shift, model.threshold, model.constant
            )  # fmt: skip
        loaded.save_pretrained(tmp_path / "again")
        files = sorted(path.name for path in (tmp_path / "predictor").iterdir())
        assert files == ["README.md", "model.safetensors", "predictor.json"]
        for name in files:
            content = (tmp_path / "predictor" / name).read_bytes()
            # The card names the folder that it lies in.
            again = (tmp_path / "again" / name).read_bytes().replace(b"/again", b"/predictor")
            assert again == content
            # A pickle of protocol 2 or later starts with 0x80 and its number, a zip of them (torch.save) with PK.
            assert not content.startswith((b"\x80", b"PK"))

    def test_saving_leaves_other_files_alone(self, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        fitted()[0].save_pretrained(tmp_path)
        assert (tmp_path / "notes.txt").read_text() == "mine"

    def test_card_shows_the_figures_and_the_reasons(self, tmp_path):
        predictor, _ = fitted(rows=3000, category_rates=(None, None, 0.0))
        predictor.save_pretrained(tmp_path)
        card = (tmp_path / "README.md").read_text()
        auc = predictor.metrics["models"]["baseline"]["aggregate"]["roc_auc"]
        assert f"{auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})" in card
        assert "- recollection: 0 positives among the test rows, 10 needed." in card

    def test_refuses_what_is_no_predictor(self, tmp_path):
        with pytest.raises(MemtaxError, match="holds no predictor"):
            Predictor.from_pretrained(tmp_path / "absent")
        (tmp_path / "predictor.json").write_text("{}")
        (tmp_path / "model.safetensors").write_bytes(b"")
        with pytest.raises(MemtaxError, match="is not a memtax predictor of format 2"):
            Predictor.from_pretrained(tmp_path)
        fitted()[0].save_pretrained(tmp_path)
        weights = tmp_path / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-8])
        with pytest.raises(MemtaxError, match=r"model\.safetensors is not the file"):
            Predictor.from_pretrained(tmp_path)
        fitted()[0].save_pretrained(tmp_path)
        config = json.loads((tmp_path / "predictor.json").read_text())
        (tmp_path / "predictor.json").write_text(json.dumps({**config, "factors": ["a"]}))
        with pytest.raises(MemtaxError, match="damaged predictor"):
            Predictor.from_pretrained(tmp_path)


class TestArguments:
    @pytest.mark.parametrize(
        ("factors", "message"),
        [
            ([], "at least one column"),
            ("a", "is a list"),
            (["a", "a"], "named twice"),
            (["own:log", "own:linear"], "named twice"),
            (["absent"], "'absent' is not declared as a factor; .* absent:linear"),
            (["absent:linear"], "no column 'absent'"),
            (["a:log"], "has a declared scale"),
            (["sequence_id"], r"is not a factor \(its role is key\)"),
        ],
    )
    def test_factors(self, factors, message):
        with pytest.raises(MemtaxError, match=message):
            Predictor.fit(simulated.table(rows=100), factors=factors)

    def test_types(self):
        data = simulated.with_column(simulated.table(rows=100), "text", ["x"] * 100)
        with pytest.raises(MemtaxError, match="'text' is not a factor"):
            Predictor.fit(data, factors=["text"])
        with pytest.raises(MemtaxError, match="'taxonomic' or 'baseline', not 'best'"):
            fitted()[0].predict(data, model="best")

    def test_lists_of_factors_are_these(self):
        frequencies = [f"{name}_frequency" for name in ("max", "avg", "min", "median", "p25", "p75")]
        halves = ["prompt_perplexity", "continuation_perplexity"]
        assert list(declared.FACTORS) == [
            "sequence_duplicates", *frequencies, *halves, "sequence_perplexity", "huffman_coding_length", "is_templating",
        ]  # fmt: skip
        assert list(declared.PUBLISHED) == [
            "sequence_duplicates", *frequencies, *halves[::-1], "sequence_perplexity", "textual_matches_0_8",
            "semantic_matches_0_8", "huffman_coding_length", "is_templating",
        ]  # fmt: skip
        assert list(declared.BEFORE_TRAINING) == [
            "sequence_duplicates", *frequencies, "semantic_matches_0_8", "textual_matches_0_8", "huffman_coding_length",
            "is_templating", "nl_score",
        ]  # fmt: skip
        assert list(declared.FROM_SCORES) == [*halves, "sequence_perplexity"]
        matches = [f"{kind}_matches_0_{level}" for kind in ("semantic", "textual") for level in (8, 9)]
        counts = ["sequence_duplicates", *frequencies, *matches]
        others = ["sequence_perplexity", *halves, "huffman_coding_length", "is_templating", "shannon_coding_length", "nl_score"]
        for factor in declared.resolve([*counts, *others], "x"):
            is_log = factor.name in counts or factor.name.endswith("perplexity")
            assert factor.scale == ("log1p" if is_log else "identity"), factor
