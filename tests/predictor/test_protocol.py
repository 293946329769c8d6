"""Memorized-only rows in training, prior shift and recalibration."""

import numpy as np
import pyarrow as pa
import pytest
import scipy.special

from helpers import simulated
from memtax.errors import MemtaxError
from memtax.predictor.logistic import LogisticModel, recalibrate
from memtax.predictor.predictor import Predictor

NAMES = ("a", "b")
simulated.declare(*NAMES)


def population(rows=60_000, seed=0, intercept=-3.0):
    """Log odds = intercept + a - .7 b + a category's own shift."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, rows))
    category = rng.choice(3, rows)
    truth = scipy.special.expit(intercept + a - 0.7 * b + np.array([0.0, 0.7, -0.5])[category])
    return pa.table(
        {
            "sequence_id": np.arange(rows),
            "is_memorized": rng.random(rows) < truth,
            "taxonomy": pa.array(category, pa.int64()),
            "a": a,
            "b": b,
            "truth": truth,
        }
    )


def parts():
    """A representative sample of a quarter, and all memorized sequences."""
    everything = population()
    return everything.slice(0, 15_000), everything.filter(everything["is_memorized"])


def fit(**options):
    sample, memorized = parts()
    return Predictor.fit(sample, factors=NAMES, memorized_only=memorized, resamples=40, **options), sample, memorized


def test_memorized_only_rows_train_and_nothing_else():
    predictor, sample, memorized = fit()
    how = predictor.metrics["memorized_only"]
    shared = int(np.array(sample["is_memorized"]).sum())
    assert how == {
        "rows": memorized.num_rows - shared, "in_the_sample": shared, "repeated": 0, "copies_of_judged": 0,
        "not_memorized": 0, "dropped": {}
    }  # fmt: skip
    # Validation and test rows come from the sample alone.
    assert sum(predictor.metrics["rows"].values()) == sample.num_rows
    alone = Predictor.fit(sample, factors=NAMES, resamples=40)
    for group in ("aggregate", "recitation"):
        ours, theirs = (one.metrics["models"]["baseline"][group] for one in (predictor, alone))
        assert (ours["n"], ours["positives"]) == (theirs["n"], theirs["positives"])


def test_the_prior_shift_is_undone():
    predictor, sample, memorized = fit()
    truth = np.array(sample["truth"])
    found = np.array(predictor.predict(sample))
    assert found.mean() == pytest.approx(truth.mean(), rel=0.08)
    assert np.abs(found - truth).mean() < 0.01
    # By hand: s1 / s0 is all positives / sampled positives, w1 / w0 is negatives / positives of the training rows.
    from memtax.predictor.split import stratified_split

    labels, category = np.array(sample["is_memorized"]), np.array(sample["taxonomy"])
    train = stratified_split(category * 2 + labels, 0.2, 0.2, 1024).train
    new = ~np.isin(np.array(memorized["sequence_id"]), np.array(sample["sequence_id"]))
    for name, inside in (("baseline", (0, 1, 2)), ("reconstruction", (1,))):
        own = train[np.isin(category[train], inside)]
        sampled = labels[own].sum()
        positives = sampled + (new & np.isin(np.array(memorized["taxonomy"]), inside)).sum()
        negatives = len(own) - sampled
        shift = np.log(positives / sampled * negatives / positives)
        assert predictor.models[name].prior_shift == pytest.approx(shift, abs=1e-12)


def test_recalibration_replaces_the_shift():
    predictor, sample, _ = fit(calibration="recalibration")
    assert all(model.prior_shift == 0 and model.recalibration is not None for model in predictor.models.values())
    truth = np.array(sample["truth"])
    assert np.abs(np.array(predictor.predict(sample)) - truth).mean() < 0.015
    assert predictor.metrics["models"]["taxonomic"]["aggregate"]["ece"]["value"] < 0.02


def test_without_correction_probabilities_are_those_of_balanced_classes():
    predictor, sample, _ = fit(calibration="none")
    assert all(model.prior_shift == 0 and model.recalibration is None for model in predictor.models.values())
    assert np.array(predictor.predict(sample)).mean() > 0.3
    # The ranking is the same as with the shift undone, the calibration is not.
    plain, _, _ = fit()
    ours, theirs = (one.metrics["models"]["baseline"]["aggregate"] for one in (predictor, plain))
    assert ours["roc_auc"]["value"] == pytest.approx(theirs["roc_auc"]["value"], abs=1e-9)
    assert ours["ece"]["value"] > 0.25 > 0.03 > theirs["ece"]["value"]


def test_never_both():
    with pytest.raises(MemtaxError, match="not both"):
        LogisticModel(np.zeros(1), 0.0, 0.3, 0.5, (), (1.0, 0.0))
    with pytest.raises(MemtaxError, match="calibration is one of prior, recalibration, none"):
        fit(calibration="both")


def test_storage_keeps_the_recalibration(tmp_path):
    predictor, sample, _ = fit(calibration="recalibration")
    predictor.save_pretrained(tmp_path)
    loaded = Predictor.from_pretrained(tmp_path)
    assert loaded.predict(sample) == predictor.predict(sample)
    assert loaded.models["baseline"].recalibration == predictor.models["baseline"].recalibration
    card = (tmp_path / "README.md").read_text()
    assert "fitted on validation rows" in card
    assert "further memorized sequences were used for training only" in card


def test_rows_that_do_not_belong_are_counted():
    sample, memorized = parts()
    mixed = pa.concat_tables([memorized.slice(0, 4000), memorized.slice(0, 10), population(200, seed=9, intercept=-9.0)])
    ids = np.array(mixed["sequence_id"]).copy()
    ids[-200:] += 10**6
    mixed = mixed.set_column(0, "sequence_id", pa.array(ids))
    new = ~np.isin(ids[:4010], np.array(sample["sequence_id"]))
    how = Predictor.fit(sample, factors=NAMES, memorized_only=mixed, resamples=20).metrics["memorized_only"]
    stray = int(np.array(mixed["is_memorized"])[-200:].sum())
    assert how["repeated"] == int(new[4000:].sum())
    assert how["not_memorized"] == 200 - stray
    assert how["rows"] == int(new[:4000].sum()) + stray
    with pytest.raises(MemtaxError, match="no column 'sequence_id'"):
        Predictor.fit(sample, factors=NAMES, memorized_only=mixed.drop_columns(["sequence_id"]))


def test_recalibration_by_hand():
    # Log odds twice too large and off by one: slope .5 and offset .5 put them right, as many rows show.
    rng = np.random.default_rng(0)
    truth = rng.normal(size=200_000)
    labels = rng.random(200_000) < scipy.special.expit(truth)
    slope, offset = recalibrate(2 * truth - 1, labels)
    assert (slope, offset) == (pytest.approx(0.5, abs=0.01), pytest.approx(0.5, abs=0.01))
    # A model that says the same of every row can only learn the rate.
    slope, offset = recalibrate(np.full(40, 0.7), np.arange(40) < 10)
    assert scipy.special.expit(slope * 0.7 + offset) == pytest.approx(0.25)
    with pytest.raises(MemtaxError, match="separates the validation rows"):
        recalibrate(np.linspace(-1, 1, 40), np.arange(40) >= 20)


def test_no_new_memorized_rows_change_nothing():
    sample, _ = parts()
    inside = sample.filter(sample["is_memorized"])
    plain = Predictor.fit(sample, factors=NAMES, resamples=20)
    again = Predictor.fit(sample, factors=NAMES, resamples=20, memorized_only=inside)
    assert again.metrics["memorized_only"]["rows"] == 0
    assert again.metrics["models"] == plain.metrics["models"]
