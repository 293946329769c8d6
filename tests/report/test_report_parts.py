"""Which examples are chosen, how numbers are said, and what the headings conclude."""

import dataclasses
import itertools
import re
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.report_run import make_run, rate
from memtax.progress import agree, numbered
from memtax.report import examples, factor_section, figures, saving, sections, words
from memtax.report.data import Run
from memtax.report.growth import growth
from memtax.report.page import inline_svg
from memtax.schema import CATEGORIES


@given(st.lists(st.integers(), unique=True, max_size=200), st.integers(2, 50))
def test_spread_keeps_order_ends_and_the_limit(rows, most):
    kept = examples.spread(rows, most)
    assert len(kept) == min(len(rows), most)
    assert [row for row in rows if row in set(kept)] == kept
    if rows:
        assert (kept[0], kept[-1]) == (rows[0], rows[-1])
    # Equal distances: neighbors are as far apart as any others, give or take the rounding.
    places = [rows.index(row) for row in kept]
    gaps = [b - a for a, b in itertools.pairwise(places)]
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_examples_cover_every_category_and_verdict_over_the_whole_range(tmp_path):
    run = Run.read(make_run(tmp_path / "run", rows=300))
    chosen = examples.choose(run, most=5)
    groups = {(name, memorized): [] for name in CATEGORIES for memorized in (True, False)}
    for example in chosen:
        groups[example["category"], example["memorized"]].append(example["factors"]["continuation_logprob"])
    table = run.features.select(["taxonomy", "is_memorized", "continuation_logprob"]).to_pylist()
    for (name, memorized), shown in groups.items():
        every = [
            row["continuation_logprob"]
            for row in table
            if (row["taxonomy"], row["is_memorized"]) == (CATEGORIES.index(name), memorized)
        ]
        assert len(shown) == 5
        assert shown == sorted(shown)
        assert (shown[0], shown[-1]) == pytest.approx((min(every), max(every)), rel=1e-4)


def test_copies_are_shown_once(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    directory = make_run(tmp_path / "run", rows=40)
    path = directory / "dataset/features/train.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    copies = [row | {"sequence_id": row["sequence_id"] + 10_000} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows + copies, schema=table.schema), path)
    chosen = examples.choose(Run.read(directory), most=500)
    assert sorted(example["id"] for example in chosen) == [row["sequence_id"] for row in rows]


@given(st.floats(0, 1))
def test_percent_rounds_to_an_end_only_from_there(share):
    text = words.percent(share)
    assert (text == "0%") == (share == 0)
    assert (text == "100%") == (share == 1)
    value = float(text.strip("<>%"))
    assert abs(value - 100 * share) <= 0.05 + 1e-9


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, words.DASH),
        (float("nan"), words.DASH),
        (0, "0"),
        (12345, "12,345"),
        (-0.75312, "\N{MINUS SIGN}0.753"),
        (999.7, "1000"),
        (1.0, "1"),
        (1e-5, "1e\N{MINUS SIGN}05"),
    ],
)
def test_number(value, text):
    assert words.number(value) == text


def test_extraction_heading_does_not_claim_more_than_the_intervals():
    clear = {"recitation": rate(80, 100), "recollection": rate(10, 100)}
    assert words.say_extraction(clear) == "Recitation is memorized most: 80.0% of its sequences, against 10.0% of recollection"
    close = {"recitation": rate(8, 10), "recollection": rate(7, 10)}
    assert "not clearly more than recollection" in words.say_extraction(close)
    nothing = {"recitation": rate(0, 10), "recollection": rate(0, 10)}
    assert words.say_extraction(nothing) == "No sequence of any category is memorized"
    assert words.say_extraction({}) == "No category has a sequence to count"


def test_growth_heading_says_where_it_goes():
    def at(step, memorized):
        return {"checkpoint": f"c{step}", "step": step, "category": "all", **rate(memorized, 100)}

    assert words.say_growth([at(1, 2), at(9, 40)]).startswith(
        "The memorized share grows from 2.0% at step 1 to 40.0% at step 9"
    )
    assert words.say_growth([at(1, 40), at(9, 2)]).startswith("The memorized share falls from 40.0%")
    assert words.say_growth([at(1, 40) | {"step": None}]) == "At c1, 40.0% is memorized"


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.01, 0.07, "better than"), (-0.07, -0.01, "worse than"), (-0.01, 0.07, "no better or worse")]
)
def test_predictor_heading_follows_the_interval_of_the_difference(low, high, verdict):
    models = {name: {"aggregate": {"roc_auc": {"value": 0.9}}} for name in ("baseline", "taxonomic")}
    difference = {"metric": "roc_auc", "category": "aggregate", "value": (low + high) / 2, "low": low, "high": high}
    assert verdict in words.say_predictor({"models": models, "differences": [difference]})


def test_script_text_survives_and_cannot_end_its_element():
    import json

    hostile = {"text": "</script><!--<script>]]>&amp;\u2028\u202e\x00"}
    text = examples.to_script(hostile)
    assert not re.search(r"[<>&\u2028\u202e\x00]", text)
    assert json.loads(text) == hostile


def test_figures_take_any_name_and_few_rows():
    rows = [{"factor": "$\\frac{}$ <b>", "group": "all", "spearman": None}]
    drawn = saving.svg(figures.dots(rows, ["all"], "group", "spearman", "Spearman"))
    assert "<b>" not in inline_svg(drawn, "x")
    single = [{"checkpoint": "main", "step": None, "category": "recitation", **rate(0, 1)}]
    assert saving.png(growth(single)).startswith(b"\x89PNG")
    assert saving.png(figures.extraction({"all": rate(0, 5)})).startswith(b"\x89PNG")


def test_a_run_without_memorized_sequences_says_what_comes_nearest_and_draws_no_correlations(tmp_path):
    run = Run.read(make_run(tmp_path / "run", rows=60))
    rows = [
        {"factor": name, "group": group, "n": 60, "spearman": None, "reason": "0 positives, 10 needed"}
        for name in ("sequence_duplicates", "avg_frequency")
        for group in ("all", "recitation")
    ]
    lengths = np.zeros(run.features.num_rows, np.int64)
    lengths[7] = 5
    place = run.features.column_names.index("match_length") if "match_length" in run.features.column_names else None
    column = pa.array(lengths)
    features = (
        run.features.append_column("match_length", column)
        if place is None
        else run.features.set_column(place, "match_length", column)
    )
    nothing = {"all": rate(0, 60), "recitation": rate(0, 60)}
    empty = dataclasses.replace(run, features=features, metrics={**run.metrics, "extraction": nothing, "correlations": rows})
    number = run.features["sequence_id"][7].as_py()
    assert sections.what(empty).text.endswith(
        f"Nearest comes sequence {number}: greedy decoding yields 5 tokens of its continuation."
    )
    section = factor_section.goes_with(empty)
    assert "correlations" not in [getattr(part, "name", "") for part in section.parts]
    assert section.missing[0] == "No factor's correlation with memorization could be computed: 0 positives, 10 needed."
    # A group with none has no panel, and a withheld number is a word, not a mark at 0.
    rows[0] |= {"spearman": 0.5}
    (panel,) = [
        part
        for part in factor_section.goes_with(dataclasses.replace(empty, metrics={**empty.metrics, "correlations": rows})).parts
        if getattr(part, "name", "") == "correlations"
    ]
    (axes,) = panel.drawn
    assert [text.get_text() for text in axes.texts] == ["withheld"]
    assert axes.get_title(loc="left") == "all sequences"


def test_one_wide_coefficient_does_not_hide_the_others():
    rows = [{"factor": name, "model": "all", "coefficient": value} for name, value in (("a", -1200.0), ("b", 0.5))]
    (wide,) = figures.dots(rows, ["all"], "model", "coefficient", "log odds")
    # 1200 lies beyond 10^3, whose half is 10^1.
    shown = [text.get_text().replace(words.MINUS, "-") for text in wide.get_xticklabels()]
    assert shown == ["-1,000", "-10", "0", "10", "1,000"]
    (narrow,) = figures.dots(rows[1:], ["all"], "model", "coefficient", "log odds")
    assert (wide.get_xscale(), narrow.get_xscale()) == ("symlog", "linear")


@settings(max_examples=15, deadline=None)
@given(
    memorized=st.lists(st.floats(0, 1e12), max_size=5),
    rest=st.lists(st.floats(-10, 1e9), min_size=1, max_size=5),
)
def test_distribution_draws_whatever_the_values(memorized, rest):
    import numpy as np

    groups = {"recitation": {"memorized": np.array(memorized, dtype=float), "rest": np.array(rest, dtype=float)}}
    drawn = saving.svg(figures.distribution(groups, "sequence_duplicates", "occurrences"))
    assert "mathdefault" not in drawn


def test_bins_of_whole_numbers_hold_one_number_each():
    import numpy as np

    groups = {"recitation": {"memorized": np.array([7, 7, 25]), "rest": np.array([8])}}
    (axes,) = figures.distribution(groups, "match_length", "tokens")
    outlines = [patch.get_xy() for patch in axes.patches]
    # Edges lie halfway between the numbers: 6.5, 7.5, ..., 25.5.
    assert sorted({float(x) for outline in outlines for x in outline[:, 0]}) == [6.5 + step for step in range(20)]


def test_a_coefficient_that_rounds_to_zero_has_no_sign():
    assert [words.fixed(value) for value in (-0.0004, 0.0004, -0.0006)] == ["0.000", "0.000", f"{words.MINUS}0.001"]


def test_labels_of_models_of_equal_size_do_not_overlap():
    rows = [
        {"checkpoint": name, "parameters": size, "category": "all", "rate": 0.1 * place, "low": 0.0, "high": 1.0}
        for place, (name, size) in enumerate((("big", 9_000_000), ("one", 1_200_000), ("two", 1_200_000), ("three", 1_250_000)))
    ]
    axes = growth(rows, "parameters")
    saving.png(axes)  # draws it, so that the labels have a place
    labels = axes.get_xticklabels()
    assert [label.get_text() for label in labels] == ["one\n1.2M", "two\n1.2M", "three\n1.25M", "big\n9M"]
    boxes = [label.get_window_extent() for label in labels]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    # Sizes that stand apart keep their place on a logarithmic axis.
    assert growth(rows[:2], "parameters").get_xscale() == "log"


def test_numbers_agree_with_nouns_and_verbs():
    assert [numbered(number, "copy", "has") for number in (0, 1, 2)] == ["0 copies have", "1 copy has", "2 copies have"]
    assert [numbered(number, "text", "is") for number in (1, 1200)] == ["1 text is", "1,200 texts are"]
    assert [numbered(number, "day") for number in (1, 2)] == ["1 day", "2 days"]
    assert [agree(number, "lies") for number in (1, 3)] == ["lies", "lie"]


def test_guess_and_recall_stand_beside_the_categories():
    from memtax.pipeline.guess_recall import by_duplicates, cross_tabulate
    from memtax.report.sections import competing

    # Two memorized recitations (9 and 7 duplicates) and a memorized recollection with 1.
    counts = cross_tabulate([0, 0, 2, 2], by_duplicates([True, True, True, False], [9, 7, 1, 1], threshold=7))
    [table] = competing({"threshold": 7, "overlap": 0.5, "by_overlap": counts, "by_duplicates": counts})
    assert "more than 7 times" in table.caption
    assert table.rows[0][3:] == ("1", "1")
    assert table.rows[-1][3:] == ("2", "1")
    assert competing({}) == ()


def test_without_its_title_a_figure_is_as_if_it_never_had_one():
    def sizes(vectors):
        return re.search(r'width="([\d.]+)pt" height="([\d.]+)pt" viewBox="[\d.]+ [\d.]+ ([\d.]+) ([\d.]+)"', vectors).groups()

    rows = {"all": rate(3, 10), "recitation": rate(2, 4)}
    plain, files = saving.svg(figures.extraction(rows)), saving.titled(figures.extraction(rows), "words " * 40)
    assert sizes(files.untitled) == sizes(plain)
    assert float(sizes(files.svg)[1]) > float(sizes(plain)[1]) + 20  # two lines of 11 points
    assert "words" in files.svg  # matplotlib writes what it draws as a comment, too
    assert "words" not in files.untitled
    defined, used = (set(re.findall(pattern, files.untitled)) for pattern in (r'\bid="([^"]+)"', r'href="#([^"]+)"'))
    assert used <= defined
    ElementTree.fromstring(files.untitled)


def test_intervals_are_described_where_the_record_does_not_name_their_units():
    """Records of other versions and hands may lack the name."""
    for name in ({}, {"unit": None}):
        row = {"sequences": 9, "memorized": 3, "rate": 0.3, "low": 0.1, "high": 0.6, "units": 4, "reason": None, **name}
        assert words.units(row) == "4 units"
        assert "over 4 units" in words.say_units(row)
        alone = {"sequences": 4, "units": 4}
        assert words.say_units({**alone, "unit": "sequence"}).startswith("No document is recorded")
        assert words.say_units({**alone, "unit": "document"}).startswith("Each sequence comes from a document of its own:")
