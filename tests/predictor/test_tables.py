import numpy as np
import pyarrow as pa
import pytest
import scipy.stats

from helpers import simulated
from memtax import statistics
from memtax.errors import MemtaxError
from memtax.predictor.correlations import correlations
from memtax.predictor.extraction_rates import extraction_rates


def test_correlations_equal_scipy():
    data = simulated.table(rows=1500)
    data = simulated.with_null(data, "a", range(0, 1500, 7))
    data = simulated.with_null(data, "is_memorized", [1, 2])
    found = correlations(data, ["a", "sequence_duplicates"])
    assert [(row["factor"], row["group"]) for row in found[:5]] == [
        ("a", "all"), ("a", "recitation"), ("a", "reconstruction"), ("a", "recollection"), ("sequence_duplicates", "all")
    ]  # fmt: skip
    frame = data.to_pandas()
    for row in found:
        code = ("recitation", "reconstruction", "recollection", "all").index(row["group"])
        own = frame[(frame.taxonomy == code) | (code == 3)].dropna(subset=[row["factor"], "is_memorized"])
        x, y = own[row["factor"]].astype(float), own["is_memorized"].astype(float)
        assert row["n"] == len(own)
        assert row["spearman"] == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-12)
        assert row["pearson"] == pytest.approx(scipy.stats.pearsonr(x, y).statistic, abs=1e-12)
        assert row["low"] < row["spearman"] < row["high"]
        assert row["reason"] is None
        xi = scipy.stats.chatterjeexi(x, y).statistic if row["factor"] == "a" else row["xi"]
        assert row["xi"] == pytest.approx(xi, abs=1e-12)
        assert row["xi_low"] < row["xi"] < row["xi_high"]
    # a raises the log odds by 1 a standard deviation: its interval excludes 0.
    assert found[0]["low"] > 0


def test_correlations_give_reasons():
    data = simulated.table(rows=900, category_rates=(None, None, 0.0))
    by_group = {row["group"]: row for row in correlations(data, ["is_templating"])}
    empty = dict.fromkeys(("spearman", "low", "high", "pearson", "xi", "xi_low", "xi_high"))
    reconstruction, recollection = by_group["reconstruction"], by_group["recollection"]
    assert reconstruction.items() >= {**empty, "reason": "the factor is 1 in every row"}.items()
    assert recollection.items() >= {**empty, "reason": "0 positives among the usable rows, 10 needed"}.items()
    assert by_group["all"]["reason"] is None
    rare = simulated.with_column(data, "rare", np.arange(900) == 3)
    reason = "the factor differs from 0 in 1 row only, 10 needed"
    assert correlations(rare, ["rare:linear"])[0].items() >= {**empty, "reason": reason}.items()


def test_correlations_of_nl_and_code():
    data = simulated.table(rows=2000)
    kinds = np.random.default_rng(0).choice(["natural language", "code", "uncertain"], 2000)
    found = correlations(simulated.with_column(data, "text_kind", kinds), ["a"])
    sizes = {row["group"]: row["n"] for row in found}
    assert list(sizes) == ["all", "nl", "code", "recitation", "reconstruction", "recollection"]
    assert (sizes["nl"], sizes["code"]) == ((kinds == "natural language").sum(), (kinds == "code").sum())
    # A score without the classifier's thresholds says nothing of the kind.
    found = correlations(simulated.with_column(data, "nl_score", np.random.default_rng(0).random(2000)), ["a"])
    assert "nl" not in {row["group"] for row in found}


def test_extraction_rates_by_hand():
    data = pa.table(
        {
            "is_memorized": [True, True, False, True, None, True, False],
            "taxonomy": pa.array([0, 0, 0, 2, 0, None, None], pa.int64()),
        }
    )
    found = extraction_rates(data)
    assert list(found) == ["all", "recitation", "reconstruction", "recollection"]
    # Six rows have a target; of recitation's four one has none; the two rows without a category count in `all` only.
    interval = statistics.clopper_pearson(2, 3)
    assert found["recitation"] == {
        "sequences": 3,
        "memorized": 2,
        "unit": "sequence",
        "units": 3,
        "rate": 2 / 3,
        "low": None,
        "high": None,
        "low_independent": interval.low,
        "high_independent": interval.high,
        "reason": "3 sequences, 10 needed: the share is of these only",
    }
    assert (found["all"]["sequences"], found["all"]["memorized"]) == (6, 4)
    assert found["reconstruction"]["sequences"] == found["reconstruction"]["units"] == 0
    assert found["reconstruction"]["rate"] is found["reconstruction"]["low"] is None
    assert (found["recollection"]["rate"], found["recollection"]["high_independent"]) == (1.0, 1.0)
    # One success in one trial: the lower bound p solves p = .025.
    assert found["recollection"]["low_independent"] == pytest.approx(0.025)


def test_tables_are_checked():
    data = simulated.table(rows=50)
    with pytest.raises(MemtaxError, match="holds 3; categories are 0 to 2"):
        extraction_rates(simulated.with_column(data, "taxonomy", [3] * 50))
    with pytest.raises(MemtaxError, match="'taxonomy' of the table is string"):
        extraction_rates(simulated.with_column(data, "taxonomy", ["recitation"] * 50))
    with pytest.raises(MemtaxError, match="'is_memorized' of the table is int64; the target must be boolean"):
        extraction_rates(simulated.with_column(data, "is_memorized", [1] * 50))
    with pytest.raises(MemtaxError, match="no column 'taxonomy'"):
        extraction_rates(data.drop_columns(["taxonomy"]))
