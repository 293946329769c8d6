import functools
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.special
from sklearn.linear_model import LogisticRegression

from helpers import simulated
from memtax import statistics
from memtax.errors import MemtaxError, StaleOutputError
from memtax.pipeline import fitting
from memtax.predictor.partition_search import SearchConfig, conclude, finished, score, search_slice
from memtax.predictor.partitions import Partition, all_partitions, members

NAMES = ("f0", "f1", "f2", "f3")
simulated.declare(*NAMES, "leak")
CONFIG = SearchConfig(NAMES, NAMES, resamples=50)


def planted(rows=6000, seed=0):
    """Coefficients that differ between f2 >= .5 (A), else f3 >= -.2 (B), else (C)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4))
    a = np.where(x[:, 2] >= 0.5, 2.0, np.where(x[:, 3] >= -0.2, -1.5, 0.0))
    b = np.where(x[:, 2] >= 0.5, 0.0, np.where(x[:, 3] >= -0.2, 0.5, 1.8))
    odds = -0.5 + a * x[:, 0] + b * x[:, 1]
    return pa.table({**dict(zip(NAMES, x.T, strict=True)), "is_memorized": rng.random(rows) < scipy.special.expit(odds)})


@functools.cache
def prepared():
    return CONFIG.prepare(planted())


def test_there_are_810_published_partitions():
    # 10 x 9 ordered pairs of factors, 3 x 3 quantiles.
    found = all_partitions(10, 3)
    assert len(found) == len(set(found)) == 810
    assert all(one.first[0] != one.second[0] for one in found)


def test_groups_and_assignment_agree():
    codes = np.random.default_rng(0).integers(0, 4, (4, 500)).astype(np.uint8)
    for partition in all_partitions(4, 3):
        assigned = partition.assign(codes)
        for code, group in enumerate(partition.groups):
            np.testing.assert_array_equal(members(codes, group), np.flatnonzero(assigned == code))


def test_thresholds_are_quantiles_of_memorized_training_rows():
    data, problem = planted(), prepared()
    train = problem.parts["train"]
    # The split is known by its standardized rows: undo the scaler to find the training rows' values.
    raw = train.values * problem.scaler.scale + problem.scaler.mean
    expected = np.quantile(raw[train.labels == 1], (0.25, 0.5, 0.75), axis=0).T
    np.testing.assert_allclose(problem.bounds, expected, atol=1e-12)
    assert len(train.labels) == pytest.approx(0.6 * data.num_rows, abs=2)


def test_rules_speak_of_the_factors_own_scale():
    rng = np.random.default_rng(1)
    count = rng.geometric(0.05, 2000)
    data = planted(2000).append_column("sequence_duplicates", pa.array(count))
    config = SearchConfig(NAMES, ("sequence_duplicates", "f0"))
    problem = config.prepare(data)
    assert problem.bounds[0, 1] == int(problem.bounds[0, 1])  # a median of counts, not of their logarithms
    # Rows of A have at least the threshold: nothing is lost between scales.
    rows = members(problem.parts["train"].codes, ((0, 1, True),))
    assert len(rows) > 0


def test_every_partition_equals_a_direct_fit():
    problem = prepared()
    partitions = all_partitions(4, 3)
    rows = score(problem, enumerate(partitions), "log_loss")
    train, validation = problem.parts["train"], problem.parts["validation"]
    for number in range(0, len(partitions), 17):
        partition, row = partitions[number], rows[number]
        f, g = partition.first[0], partition.second[0]
        assert (row["factor_1"], row["factor_2"]) == (NAMES[f], NAMES[g])
        odds = np.empty(len(validation.labels))
        for code, group in enumerate(partition.groups):
            own, judged = partition.assign(train.codes) == code, partition.assign(validation.codes) == code
            model = LogisticRegression(tol=1e-10, max_iter=100_000).fit(train.values[own], train.labels[own])
            np.testing.assert_allclose(problem.known[group].fit.coefficients, model.coef_[0], atol=1e-6)
            odds[judged] = model.decision_function(validation.values[judged])
            assert row[f"rows_{'abc'[code]}"] == own.sum()
        p = scipy.special.expit(odds)
        assert row["log_loss"] == pytest.approx(statistics.log_loss(validation.labels, p), abs=1e-7)
        assert row["brier"] == pytest.approx(statistics.brier_score(validation.labels, p), abs=1e-7)


@pytest.mark.parametrize("criterion", ["log_loss", "f1", "pr_auc"])
def test_the_planted_partition_is_found(tmp_path, criterion):
    config = SearchConfig(NAMES, NAMES, criterion=criterion, resamples=50)
    problem = config.prepare(planted())
    search_slice(problem, config, tmp_path, {"a": 1})
    found = conclude(problem, config, tmp_path, {"a": 1})
    chosen = found["chosen"]
    assert (chosen["factor_1"], chosen["factor_2"]) == ("f2", "f3")
    # By the proper score the threshold is the quantile nearest to the planted one; rankings may prefer its neighbor.
    for rank, (name, truth) in enumerate((("f2", 0.5), ("f3", -0.2)) if criterion == "log_loss" else (), 1):
        bounds = problem.bounds[NAMES.index(name)]
        assert chosen[f"threshold_{rank}"] == bounds[np.abs(bounds - truth).argmin()]
    gain = next(row for row in found["metrics"]["differences"] if (row["category"], row["metric"]) == ("aggregate", "roc_auc"))
    assert gain["low"] > 0.05
    values = [row[criterion] for row in found["ranked"]]
    assert values == sorted(values, reverse=criterion not in ("log_loss", "brier"))
    assert len(values) == len(config.partitions)


def test_threads_and_order_do_not_matter():
    partitions = list(enumerate(all_partitions(4, 3)))[:60]
    one = score(CONFIG.prepare(planted(2000)), partitions, "log_loss", threads=1)
    many = score(CONFIG.prepare(planted(2000)), partitions[::-1], "log_loss", threads=4)[::-1]
    assert one == many


def test_slices_merge_into_the_whole(tmp_path):
    data = tmp_path / "data.parquet"
    pq.write_table(planted(1500), data)
    options = {"factors": NAMES, "split_on": NAMES, "resamples": 20}
    whole = fitting.search(str(data), tmp_path / "whole", **options)
    assert fitting.search(str(data), tmp_path / "one", stop=50, **options) is None
    assert fitting.search(str(data), tmp_path / "two", start=50, **options) is None
    merged = fitting.search(str(data), tmp_path / "merged", merged=[tmp_path / "one", tmp_path / "two"], **options)
    assert merged == whole
    assert json.loads((tmp_path / "merged/search.json").read_text()) == json.loads((tmp_path / "whole/search.json").read_text())
    assert (tmp_path / "merged/figures/landscape.svg").exists()
    assert (tmp_path / "merged/figures/landscape.png").exists()
    # Other data are another search.
    other = tmp_path / "other.parquet"
    pq.write_table(planted(1500, seed=5), other)
    with pytest.raises(StaleOutputError):
        fitting.search(str(other), tmp_path / "x", merged=[tmp_path / "one"], **options)
    with pytest.raises(StaleOutputError):
        fitting.search(str(data), tmp_path / "whole", **{**options, "resamples": 21})


def test_an_interrupted_search_goes_on(tmp_path):
    problem = CONFIG.prepare(planted(1500))
    search_slice(problem, CONFIG, tmp_path, {"a": 1}, 0, 54)
    stamp = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "partitions").iterdir()}
    fresh = CONFIG.prepare(planted(1500))
    search_slice(fresh, CONFIG, tmp_path, {"a": 1})
    assert all((tmp_path / "partitions" / name).stat().st_mtime_ns == time for name, time in stamp.items())
    assert sorted(finished(tmp_path, {"a": 1})) == list(range(len(CONFIG.partitions)))


def test_files_of_partitions_that_are_not_as_written_are_scored_again(tmp_path, capsys):
    problem = CONFIG.prepare(planted(1500))
    search_slice(problem, CONFIG, tmp_path, {"a": 1}, 0, 20)
    search_slice(problem, CONFIG, tmp_path, {"a": 1}, 20, 30)
    folder = tmp_path / "partitions"
    wanted = finished(tmp_path, {"a": 1})
    first, second = sorted(folder.glob("*.parquet"))
    content = first.read_bytes()
    for fault in (
        lambda: first.write_bytes(second.read_bytes()),
        lambda: first.write_bytes(content[:200]),
        lambda: first.write_bytes(content.replace(b"partition", b"partitioo")),
        first.unlink,
    ):
        fault()
        assert finished(tmp_path, {"a": 1}).keys() == set(range(20, 30))
        # Another slice: what takes the file's place has another name.
        search_slice(problem, CONFIG, tmp_path, {"a": 1}, 0, 10)
        search_slice(problem, CONFIG, tmp_path, {"a": 1}, 0, 30)
        assert finished(tmp_path, {"a": 1}) == wanted
        search_slice(problem, CONFIG, tmp_path, {"a": 1}, 0, 30)
        for path in [path for path in folder.iterdir() if "000020-000030" not in path.name]:
            path.unlink()
        search_slice(problem, CONFIG, tmp_path, {"a": 1}, 0, 20)
        assert first.read_bytes() == content
    assert "000000-000020.parquet does not match its checksum; it is made again" in capsys.readouterr().err


def test_a_column_that_only_tells_in_test_rows_does_not_help(tmp_path):
    rng = np.random.default_rng(3)
    labels = rng.random(4000) < 0.4
    data = pa.table({"f0": rng.normal(size=4000), "f1": rng.normal(size=4000), "is_memorized": labels})
    config = SearchConfig(("f0", "f1", "leak"), ("f0", "f1", "leak"), resamples=200)
    from memtax.predictor.split import stratified_split

    test = stratified_split(labels.astype(np.int64), 0.2, 0.2, config.seed).test
    leak = rng.normal(size=4000)
    leak[test] = 5.0 * labels[test]
    problem = config.prepare(data.append_column("leak", pa.array(leak)))
    search_slice(problem, config, tmp_path, {"a": 1})
    found = conclude(problem, config, tmp_path, {"a": 1})
    # Scaler, thresholds, fits and choice never saw those rows: all coefficients of the leak are noise.
    assert abs(found["models"]["baseline"]["coefficients"]["leak"]) < 0.15
    validation = found["chosen"]["log_loss"]
    assert validation > found["validation_log_loss_baseline"] - 0.01


def test_a_group_without_positives_asks_the_baseline():
    data = planted(3000)
    labels = np.array(data["is_memorized"]) & (np.array(data["f2"]) < 0.2)
    problem = CONFIG.prepare(data.set_column(4, "is_memorized", pa.array(labels)))
    # The upper quartile of the memorized f2 is below .2: group A keeps some positives; a threshold above has none.
    problem.bounds[2] = (0.0, 0.1, 0.3)
    for part, values in problem.parts.items():
        raw = values.values[:, 2] * problem.scaler.scale[2] + problem.scaler.mean[2]
        problem.parts[part].codes[2] = np.searchsorted((0.0, 0.1, 0.3), raw, side="right")
    row = score(problem, [(0, Partition((2, 2), (0, 1)))], "log_loss")[0]
    assert row["silent"] == "A: 0 positives among the training rows, 10 needed"
    group = Partition((2, 2), (0, 1)).groups[0]
    assert problem.known[group].fit is problem.baseline


def test_the_categories_are_judged_beside_the_partition(tmp_path):
    data = planted()
    # Categories that are the planted groups: their models are as good as any.
    x2, x3 = np.array(data["f2"]), np.array(data["f3"])
    data = data.append_column("taxonomy", pa.array(np.where(x2 >= 0.5, 0, np.where(x3 >= -0.2, 1, 2))))
    config = SearchConfig(NAMES, NAMES, resamples=100, category="taxonomy")
    problem = config.prepare(data)
    search_slice(problem, config, tmp_path, {"a": 1}, 0, 54)
    search_slice(problem, config, tmp_path, {"a": 1})
    metrics = conclude(problem, config, tmp_path, {"a": 1})["metrics"]
    assert list(metrics["models"]) == ["baseline", "taxonomic", "partition"]
    losses = {name: metrics["models"][name]["aggregate"]["log_loss"]["value"] for name in metrics["models"]}
    assert losses["taxonomic"] < losses["partition"] < losses["baseline"]
    for code, group in enumerate(problem.taxonomy):
        rows = members(problem.parts["train"].codes, group)
        assert len(rows) > 100
        model = LogisticRegression(tol=1e-10, max_iter=100_000).fit(
            problem.parts["train"].values[rows], problem.parts["train"].labels[rows]
        )
        np.testing.assert_allclose(problem.known[group].fit.coefficients, model.coef_[0], atol=1e-6)
        assert {tuple(problem.parts["train"].codes[-1, rows])} == {(code,) * len(rows)}


def test_refusals(tmp_path):
    with pytest.raises(MemtaxError, match="criterion is one of log_loss"):
        SearchConfig(NAMES, NAMES, criterion="accuracy")
    with pytest.raises(MemtaxError, match="asks about two factors"):
        SearchConfig(NAMES, ("f0",))
    with pytest.raises(MemtaxError, match="quantiles must ascend"):
        SearchConfig(NAMES, NAMES, quantiles=(0.5, 0.2)).prepare(planted(500))
    with pytest.raises(MemtaxError, match="slice 5 to 5 is not inside"):
        search_slice(prepared(), CONFIG, tmp_path, {}, 5, 5)
    none = planted(500).set_column(4, "is_memorized", pa.array([False] * 500))
    with pytest.raises(MemtaxError, match="no partition of 'is_memorized' can be searched: 0 positives"):
        CONFIG.prepare(none)
