"""The explorer's data, on a table written by hand; its page, where Gradio and a browser are installed."""

import dataclasses
import importlib.util
import shutil

import pyarrow as pa
import pytest

from helpers.pushed_run import ROWS, table
from memtax.errors import MemtaxError
from memtax.hub.folder import Config, write_dataset
from memtax.predictor.predictor import Predictor
from memtax.report.explorer import Explorer


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explored")
    table = pa.table(
        {
            "sequence_id": [10, 11, 12, 13],
            "tokens": [[1, 2, 3]] * 4,
            "text": ["one two", "<script>alert(1)</script>", "Three FOUR", "five"],
            "token_texts": [["a", "b", "c"]] * 4,
            "token_logprobs": [[0.0, -3.0]] * 4,
            "sequence_duplicates": pa.array([7, 1, None, 2], pa.int64()),
            "taxonomy": pa.array([0, 1, None, 2], pa.int64()),
            "is_memorized": [True, True, False, False],
            "memorized_probability": pa.array([0.9, 0.4, None, 0.1], pa.float32()),
        }
    )
    near = {"sequence_id": [10, 10], "rank": [1, 2], "neighbour_id": [12, 99], "cosine": pa.array([0.9, 0.8], pa.float32())}
    configs = [Config("features", "A row.", {"train": table}), Config("neighbours", "A row.", {"train": pa.table(near)})]
    write_dataset(folder / "dataset", configs, "title", {})
    return folder


def ids(found):
    return [row["sequence_id"] for row in found[1]]


def test_rows_are_chosen_by_category_factor_probability_and_text(run):
    explorer = Explorer.load(run)
    assert explorer.factors == ["sequence_duplicates"]
    assert ids(explorer.rows()) == [10, 11, 12, 13]
    assert ids(explorer.rows(["recitation", "recollection"])) == [10, 13]
    assert ids(explorer.rows(memorized=False)) == [12, 13]
    # A row without a count is neither above nor below.
    assert ids(explorer.rows(factor="sequence_duplicates", low=2)) == [10, 13]
    assert ids(explorer.rows(factor="sequence_duplicates", low=1, high=2)) == [11, 13]
    assert ids(explorer.rows(probability=(0.2, 1.0))) == [10, 11]
    assert ids(explorer.rows(text="four")) == [12]
    assert [row["taxonomy"] for row in explorer.rows()[1]] == ["recitation", "reconstruction", "unknown", "recollection"]
    with pytest.raises(MemtaxError, match="unknown category 'x'"):
        explorer.rows(["x"])
    with pytest.raises(MemtaxError, match="has no column 'x'"):
        explorer.rows(factor="x")


def test_a_row_in_full(run):
    row = Explorer.load(run).details(11)
    # exp(0) and exp(-3); nothing is known of the first token.
    assert row["tokens_shown"] == [("a", None), ("b", 1.0), ("c", pytest.approx(0.0497871))]
    assert row["taxonomy"] == "reconstruction"
    assert row["neighbours"] == []
    near = Explorer.load(run).details(10)["neighbours"]
    # The second one is not a row of this table.
    assert [(one["rank"], one["neighbour_id"], one["text"]) for one in near] == [(1, 12, "Three FOUR"), (2, 99, None)]
    with pytest.raises(MemtaxError, match="no sequence 99"):
        Explorer.load(run).details(99)


def test_a_text_of_ones_own_without_a_model(run):
    explorer = Explorer.load(run)
    row = explorer.analyse("row 1 row 2 row 3 row 4 row 5 row 6", duplicates=2)
    assert (row["is_incrementing"], row["taxonomy"], row["memorized_probability"]) == (True, "reconstruction", None)
    assert explorer.analyse("just words", duplicates=6)["taxonomy"] == "recitation"
    # Nobody counted: any category is possible.
    unknown = explorer.analyse("just words")
    assert (unknown["sequence_duplicates"], unknown["taxonomy"], unknown["memorized_probability"]) == (None, "unknown", None)
    with pytest.raises(MemtaxError, match="no text"):
        explorer.analyse("  ")


@pytest.mark.parametrize("factors", [("sequence_duplicates",), ("sequence_duplicates", "avg_frequency", "is_templating")])
def test_a_prediction_needs_all_factors_and_names_those_that_lack(run, tmp_path, factors):
    predictor = Predictor.fit(
        table()
        .append_column("is_incrementing", pa.array([False, True] * (ROWS // 2)))
        .append_column("is_repeating", pa.array([False] * ROWS)),
        factors=factors,
        resamples=20,
    )
    predictor.save_pretrained(tmp_path / "predictor")
    explorer = dataclasses.replace(Explorer.load(run), predictor=str(tmp_path / "predictor"))
    counted, unknown = explorer.analyse("just words", 3), explorer.analyse("just words")
    lacks = [name for name in factors if name == "avg_frequency"]
    assert unknown["missing_factors"] == ", ".join(["sequence_duplicates", *lacks])
    assert unknown["memorized_probability"] is None
    if lacks:
        assert (counted["missing_factors"], counted["memorized_probability"]) == ("avg_frequency", None)
    else:
        rows = pa.table({"sequence_duplicates": [3], "taxonomy": pa.array([2], pa.int64())})
        assert counted["memorized_probability"] == predictor.predict(rows)[0].as_py()
        assert "missing_factors" not in counted


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(MemtaxError, match="holds no dataset/features"):
        Explorer.load(tmp_path)


def test_cells_of_the_list_are_short():
    from memtax.report.explorer_app import CLIPPED, _cell, _clip

    assert _clip("x" * 1000) == "x" * CLIPPED + "\N{HORIZONTAL ELLIPSIS}"
    assert [_clip(value) for value in ("text", 7, None)] == ["text", 7, None]
    assert [_cell(value) for value in (4.24e-19, 0.0, 0.25)] == ["<0.0001", "0", "0.25"]


@pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="the extra explore is not installed")
@pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="playwright is not installed")
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser")
def test_the_page_in_a_browser(run):
    from playwright.sync_api import sync_playwright

    from memtax.report.explorer_app import page

    demo = page(Explorer.load(run))
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True)
    try:
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            tab = browser.new_page()
            dialogs = []
            tab.on("dialog", lambda dialog: dialogs.append(dialog.message) or dialog.dismiss())
            tab.goto(url)
            tab.get_by_text("4 sequences").wait_for()
            tab.get_by_label("reconstruction").check()
            tab.get_by_role("button", name="Filter").click()
            tab.get_by_text("1 sequence", exact=True).wait_for()
            tab.get_by_label("Sequence (click a row)").fill("11")
            tab.get_by_text("template_period").or_(tab.get_by_text("is_memorized")).last.wait_for()
            tab.get_by_role("tab", name="Your text").click()
            tab.get_by_label("Text", exact=True).fill("row 1 row 2 row 3 row 4 row 5 row 6")
            tab.get_by_role("button", name="Analyze").click()
            tab.get_by_text("shannon_coding_length").wait_for()
            # The text of the corpus is shown, not run.
            assert dialogs == []
            browser.close()
    finally:
        demo.close()
