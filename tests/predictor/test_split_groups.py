import datasets
import numpy as np
import pyarrow as pa
import pytest

from helpers import simulated
from memtax.errors import MemtaxError
from memtax.predictor.copies import _containment, held_by, sketch_rows, split_groups, units_of, with_sketch
from memtax.predictor.predictor import Predictor
from memtax.predictor.split import stratified_split


def planted(seed, documents=60, windows=20, length=64, copies=80, changed=0, span=2):
    """Documents of random windows; some windows are copied into others, with some tokens changed."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 5000, (documents * windows, length))
    pairs = rng.permutation(len(tokens))[: copies * span].reshape(copies, span)
    for source, *targets in pairs:
        for target in targets:
            tokens[target] = tokens[source]
            tokens[target, rng.integers(0, length, changed)] = 7
    document = [f"d{row // windows}" for row in range(len(tokens))]
    return pa.table({"tokens": tokens.tolist(), "document": document}), pairs


@pytest.mark.parametrize("changed", [0, 1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_copies_and_near_copies_never_cross_a_split(seed, changed):
    table, pairs = planted(seed, changed=changed)
    groups = split_groups(table)
    split = stratified_split(np.random.default_rng(seed).integers(0, 4, table.num_rows), 0.2, 0.2, seed, groups.codes)
    part = np.zeros(table.num_rows, int)
    part[split.validation], part[split.test] = 1, 2
    crossing = (part[pairs] != part[pairs[:, :1]]).any(axis=1)
    assert crossing.sum() == 0 if changed < 2 else crossing.mean() <= 0.03
    assert np.bincount(part, minlength=3).min() > 0.1 * table.num_rows
    if not groups.boilerplate:
        assert all(len(set(part[rows])) == 1 for rows in np.split(np.arange(table.num_rows), 60))


def test_boilerplate_does_not_join_all_documents_and_stays_together():
    table, _ = planted(0, copies=0)
    tokens = np.array(table.column("tokens").to_pylist())
    tokens[::20] = np.arange(64)  # the first window of every document
    groups = split_groups(table.set_column(0, "tokens", pa.array(tokens.tolist())))
    assert groups.boilerplate == 60
    assert len(set(groups.codes[::20])) == 1
    assert len(set(groups.codes)) == 61
    assert groups.described == {"unit": "document", "groups": 61, "largest_group": 60, "copies": 60, "boilerplate": 60}


def test_unrelated_rows_are_no_copies():
    table, _ = planted(1, copies=0)
    assert split_groups(table.drop_columns(["document"])).described["groups"] == table.num_rows


def test_containment_is_that_of_the_sets():
    rng = np.random.default_rng(0)
    estimates, truths = [], []
    for shared in rng.integers(8, 64, 300):
        first, second = rng.integers(0, 5000, (2, 64))
        second[:shared] = first[:shared]
        sets = [{tuple(row[start : start + 8]) for start in range(57)} for row in (first, second)]
        truths.append(len(sets[0] & sets[1]) / min(map(len, sets)))
        sketches = sketch_rows(pa.table({"tokens": [first.tolist(), second.tolist()]}))
        estimates.append(float(_containment(sketches[:1], sketches[1:])[0]))
    errors = np.array(estimates) - truths
    assert abs(errors.mean()) < 0.03
    assert errors.std() < 0.15


def test_texts_are_compared_by_words_and_nulls_by_nothing():
    words = " ".join(f"word{n}" for n in range(40))
    table = pa.table({"text": [words, words.replace(" ", "\n  "), "word99 " + words, None, None, "", ""]})
    codes = split_groups(table).codes
    assert len(set(codes[:3])) == 1
    assert len(set(codes)) == 5 or len(set(codes)) == 4  # equal empty texts are one unit


def test_a_sketch_stands_for_the_tokens():
    table, _ = planted(2, changed=1)
    small = with_sketch(table)
    assert "tokens" not in small.column_names
    assert split_groups(small).codes.tolist() == split_groups(table).codes.tolist()
    assert units_of(small).codes.tolist() == units_of(table).codes.tolist()


def test_groups_keep_the_strata_as_far_as_they_allow():
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(300), rng.integers(1, 12, 300))
    strata = rng.integers(0, 6, len(groups))
    split = stratified_split(strata, 0.2, 0.2, 0, groups)
    for rows, share in ((split.train, 0.6), (split.validation, 0.2), (split.test, 0.2)):
        found = np.bincount(strata[rows], minlength=6) / np.bincount(strata)
        assert np.abs(found - share).max() < 0.05


def test_more_memorized_rows_are_no_copies_of_judged_ones():
    table, _ = planted(5, documents=12, copies=0)
    extra = pa.table({"tokens": [*table.column("tokens").to_pylist()[:30], list(range(64))], "document": ["new"] * 31})
    copied = held_by(extra, table, np.arange(10, 20))
    assert np.flatnonzero(copied).tolist() == list(range(10, 20))
    same_document = pa.table({"tokens": [list(range(64))], "document": ["d0"]})
    assert held_by(same_document, table, np.arange(10, 20)).tolist() == [True]


def test_a_dataset_is_predicted_as_its_table(tmp_path):
    data = simulated.table(rows=600)
    predictor = Predictor.fit(data, factors=("a", "b"), resamples=20)
    selected = datasets.Dataset(data).select(range(100, 200))
    assert predictor.predict(selected).to_pylist() == predictor.predict(data.slice(100, 100)).to_pylist()
    with pytest.raises(MemtaxError, match="not list"):
        predictor.predict([1, 2])
    with pytest.raises(MemtaxError, match="overflow"):
        predictor.fit(simulated.with_column(data, "a", np.full(600, 1e300)), factors=("a", "b"))


def test_test_metrics_have_intervals_over_documents():
    rng = np.random.default_rng(0)
    for documents, withheld in ((20, True), (200, False)):
        data = simulated.table(rows=2000).append_column("document", pa.array(np.sort(rng.integers(0, documents, 2000))))
        metrics = Predictor.fit(data, factors=("a", "b"), resamples=50).metrics
        cell = metrics["models"]["baseline"]["aggregate"]
        assert sum(metrics["split"]["units"].values()) == documents
        assert cell["units"] == metrics["split"]["units"]["test"]
        assert (cell["roc_auc"]["low"] is None) == withheld == (cell["f1"]["low"] is None)
        assert (cell["interval_reason"] is None) == (not withheld)
