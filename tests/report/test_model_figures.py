"""Figures of fits and searches: what is drawn is what is in the table."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from memtax.errors import MemtaxError
from memtax.report import figures, model_figures, saving
from memtax.report.comparison import difference_rows
from memtax.report.figures import style
from memtax.report.growth import growth
from memtax.report.heat import heat
from memtax.report.membership_section import attack_rows
from memtax.report.saving import png, svg


def axes():
    with style():
        return Figure().subplots()


def estimate(value):
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def cells(values):
    return {name: {"roc_auc": None if value is None else estimate(value)} for name, value in values.items()}


def test_performance_shows_values_intervals_and_leaves_out_what_is_withheld():
    models = {
        "baseline": cells({"aggregate": 0.7, "recitation": None, "recollection": 0.6}),
        "taxonomic": cells({"aggregate": 0.8, "recitation": None, "recollection": 0.65}),
    }
    drawn = axes()
    model_figures.performance(models, "roc_auc", drawn)
    assert [text.get_text() for text in drawn.get_xticklabels()] == ["all sequences", "recollection"]
    for container, values in zip(drawn.containers, ([0.7, 0.6], [0.8, 0.65]), strict=True):
        np.testing.assert_allclose(np.asarray(container.lines[0].get_ydata(), float), values)
        ends = [np.asarray(segment, float)[:, 1] for segment in container.lines[2][0].get_segments()]
        np.testing.assert_allclose(ends, [(v - 0.1, v + 0.1) for v in values])
    # Told apart by shape, not by color alone.
    assert len({container.lines[0].get_marker() for container in drawn.containers}) == 2


def test_heat_map_writes_each_number():
    rows = [
        {"factor": "a", "group": "all", "xi": 0.5},
        {"factor": "a", "group": "nl", "xi": None},
        {"factor": "b", "group": "all", "xi": -0.25},
        {"factor": "b", "group": "nl", "xi": 0.9},
    ]
    drawn = axes()
    model_figures.heat_map(rows, "xi", drawn)
    assert [text.get_text() for text in drawn.texts] == ["0.50", "\N{EN DASH}", "\N{MINUS SIGN}0.25", "0.90"]
    np.testing.assert_array_equal(drawn.images[0].get_array().filled(np.nan), [[0.5, np.nan], [-0.25, 0.9]])


def test_landscape_marks_the_best():
    rows = [
        {"factor_1": "b", "factor_2": "a", "log_loss": 0.2},
        {"factor_1": "a", "factor_2": "b", "log_loss": 0.3},
        {"factor_1": "b", "factor_2": "a", "log_loss": 0.4},
    ]
    drawn = axes()
    model_figures.landscape(rows, "log_loss", drawn)
    # Rows: first factor; of b then a the better of .2 and .4 counts.
    np.testing.assert_array_equal(drawn.images[0].get_array().filled(np.nan), [[np.nan, 0.3], [0.2, np.nan]])
    star = drawn.lines[0]
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (0, 1)
    drawn = model_figures.landscape_and_order(rows, "log_loss")
    assert svg(drawn) == svg(model_figures.landscape_and_order(rows, "log_loss"))


def test_growth_by_size():
    # Prashanth et al. 2024: recollection from 70m to 12b, out of order here.
    rows = [
        {"category": "recollection", "place": 12e9, "memorized": 249_733},
        {"category": "recollection", "place": 70e6, "memorized": 18_468},
        {"category": "all", "place": 70e6, "memorized": 411_448},
    ]
    drawn = axes()
    model_figures.growth(rows, "parameters", drawn)
    assert (drawn.get_xscale(), drawn.get_yscale()) == ("log", "log")
    np.testing.assert_array_equal(drawn.lines[0].get_xydata(), [[70e6, 18_468], [12e9, 249_733]])
    model_figures.growth([{**row, "place": 23_000} for row in rows], "steps", axes())


def test_thresholds_of_a_classifier():
    rows = [{"threshold": t, "f1": t, "precision": 1 - t, "recall": 0.5} for t in (0.2, 0.4)]
    drawn = axes()
    model_figures.thresholds(rows, [0.4, 0.525], drawn)
    np.testing.assert_array_equal(drawn.lines[0].get_ydata(), [0.2, 0.4])
    assert [line.get_xdata()[0] for line in drawn.lines[3:]] == [0.4, 0.525]
    assert len({line.get_linestyle() for line in drawn.lines[:3]}) == 3


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_saved_files_are_the_same_bytes_each_time(tmp_path, ending):
    models = {"baseline": cells({"aggregate": 0.7}), "taxonomic": cells({"aggregate": 0.8})}
    for folder in ("one", "two"):
        saving.save(model_figures.performances(models), tmp_path / folder, "p", "A title")
    first, second = ((tmp_path / folder / f"p.{ending}").read_bytes() for folder in ("one", "two"))
    assert first == second
    assert png(model_figures.performances(models)).startswith(b"\x89PNG")


def test_every_figure_draws_on_axes_that_are_given_and_returns_them():
    cell = {**cells({"aggregate": 0.7})["aggregate"], "pr_auc": estimate(0.5), "f1": None, "ece": None, "reason": None}
    models = {"baseline": {"aggregate": cell}, "taxonomic": {"aggregate": cell}}
    line = {"fpr": [0, 1], "tpr": [0, 1], "recall": [0, 1], "precision": [1, 0]}
    line |= {"predicted": [0.1], "observed": [0.2], "count": [9]}
    curves = [{"model": "baseline", "category": "aggregate", "roc": line, "pr": line, "reliability": line}]
    rate = {"sequences": 5, "memorized": 2, "rate": 0.4, "low": 0.1, "high": 0.8}
    dot = [{"factor": "a", "group": "all", "spearman": 0.5, "pearson": 0.4, "xi": 0.1, "low": 0.4, "high": 0.6}]
    parts = {"all": {"memorized": np.arange(3.0), "rest": np.arange(5.0)}}
    step = [{"checkpoint": "c", "step": 1, "category": "all", **rate}]
    ranked = [{"factor_1": "b", "factor_2": "a", "log_loss": 0.2}]
    place = [{"category": "all", "place": 1, "memorized": 2}]
    cut = [{"threshold": 0.2, "f1": 0.1, "precision": 0.3, "recall": 0.5}]
    layer = [{"layer": 0, "probe": "p", "metric": "accuracy", "value": 0.5, "low": 0.4, "high": 0.6}]
    change = {"all": {"difference": {"value": 0.1, "low": 0.0, "high": 0.2}}}
    whole = {
        (1, 2): [
            lambda ax: figures.extraction({"all": rate}, ax),
            lambda ax: model_figures.landscape_and_order(ranked, "log_loss", ax),
        ],
        (3, 1): [lambda ax: figures.curves(curves, models, ax)],
        (2, 2): [lambda ax: model_figures.performances(models, ax)],
        (1, 3): [lambda ax: model_figures.heat_maps(dot, ax)],
        (1, 1): [
            lambda ax: growth(step, ax=ax),
            lambda ax: figures.dots(dot, ["all"], "group", "spearman", "unit", ax),
            lambda ax: figures.distribution(parts, "sequence_duplicates", "occurrences", ax),
            lambda ax: heat([{"text_id": 1, "heat": [-1.0, None]}], ax),
            lambda ax: model_figures.performance(models, "roc_auc", ax),
            lambda ax: model_figures.heat_map(dot, "xi", ax),
            lambda ax: model_figures.landscape(ranked, "log_loss", ax),
            lambda ax: model_figures.growth(place, "steps", ax),
            lambda ax: model_figures.thresholds(cut, [0.2], ax),
            lambda ax: model_figures.probe_layers(layer, ax),
            lambda ax: attack_rows([("loss", estimate(0.6))], ax),
            lambda ax: difference_rows(change, ax),
        ],
    }
    for (rows, columns), functions in whole.items():
        for function in functions:
            figure = Figure()
            given = figure.subplots(rows, columns, squeeze=False)
            drawn = function(given if rows * columns > 1 else given[0, 0])
            assert list(np.ravel(np.asarray(drawn, object))) == list(given.flat)
            assert all(axes.has_data() for axes in given.flat if not axes.texts)
            # Without axes: a figure of its own with as many panels.
            own = function(None)
            assert np.size(np.asarray(own, object)) == rows * columns
            assert figures.figure_of(own) is not figure
    with pytest.raises(MemtaxError, match="1 x 2 panels; 3 axes"):
        figures.extraction({"all": rate}, Figure().subplots(1, 3))
