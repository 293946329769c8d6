"""Sections on kinds of text, perplexity by duplicates, fits of a series, and alignment: figures, tables, what is withheld."""

import numpy as np
import pyarrow as pa
import pytest

from helpers.report_series import fit_rows, kind_rows
from memtax.attribution.alignment_memorization import add_memorization, agreement, points
from memtax.predictor.perplexities import perplexities_by_duplicates
from memtax.report import saving
from memtax.report.alignment_memorization import against_memorization, hexagons
from memtax.report.data import Run
from memtax.report.fits import fits
from memtax.report.kinds import kinds, shares
from memtax.report.moments import Moments
from memtax.report.parts import Panel, Table
from memtax.report.perplexities import bin_label, perplexities
from memtax.schema import CATEGORIES
from memtax.statistics import spearman, spearman_interval, unit_codes


def run_with(**metrics):
    return Run(metrics, {}, None, None, None, None)


def texts_of(drawn):
    return [text.get_text() for axes in np.ravel(np.asarray(drawn, dtype=object)) for text in axes.texts]


def test_shares_of_each_bar_add_up_and_few_memorized_have_none():
    rows = kind_rows([("checkpoint-10", 10), ("checkpoint-20", 20)])
    for row in rows:
        row["part"] = {**row["part"], "rate": 1 / 3}
        if row["category"] == "recollection" and row["step"] == 10:
            row["part"]["sequences"] = 9
    moments = Moments.of(rows, "step")
    drawn = shares(rows, ("all", *CATEGORIES), moments)
    for axes, bars in zip(drawn, (6, 6, 6, 3), strict=True):
        assert len(axes.patches) == bars
        for place in sorted({bar.get_x() for bar in axes.patches}):
            heights = [bar.get_height() for bar in axes.patches if bar.get_x() == place]
            assert sum(heights) == pytest.approx(1)
    assert "60" in texts_of(drawn)


def test_kinds_have_counts_intervals_and_documents_in_their_table():
    section = kinds(run_with(kinds={"checkpoints": kind_rows([("checkpoint-10", 10), ("checkpoint-300", 300)])}))
    names = [part.name for part in section.parts if isinstance(part, Panel)]
    assert names == ["kinds_rates_checkpoints", "kinds_shares_checkpoints"]
    assert "95% intervals over documents" in section.parts[0].caption
    table = section.parts[2]
    assert len(table.rows) == 2 * 4 * 3
    assert all(row[7] == "40 documents" and " to " in row[6] for row in table.rows)
    few = kinds(run_with(kinds={"model": kind_rows([(None, 100)], units=9)}))
    assert all(row[6] == "withheld" for row in few.parts[2].rows)
    assert "for these documents only" in few.parts[0].title
    assert "code_model" in kinds(run_with()).missing[0]


def test_heat_maps_show_values_intervals_and_dashes():
    section = fits(run_with(fits={"checkpoints": fit_rows(), "models": []}))
    assert [part.name for part in section.parts if isinstance(part, Panel)] == [
        "fits_auc_checkpoints",
        "fits_weights_checkpoints",
    ]
    shown = texts_of(section.parts[0].drawn)
    # Three groups with a value at two members; one without, and one member without any.
    assert shown.count("0.80\n0.70\N{EN DASH}0.90") == 4
    assert shown.count("0.80\nwithheld") == 2
    assert shown.count("\N{EN DASH}") == 2 + 4
    weights = texts_of(section.parts[2].drawn)
    assert weights.count("1.50") == 3 * 2
    assert weights.count("\N{MINUS SIGN}0.25") == 3 * 2
    assert section.missing == ("No predictor at step 100: 2 positives, 10 needed.",)
    reasons = [row[-1] for row in section.parts[1].rows]
    assert "withheld: 3 positives among the test rows, 10 needed" in reasons
    assert "9 documents, 10 needed" in reasons
    assert fits(run_with()) is None
    # Nothing is an image: the page's policy for verbs' pages loads none.
    assert all("<image" not in saving.svg(part.figure) for part in section.parts if isinstance(part, Panel))


@pytest.mark.parametrize(("documents", "withheld"), [(40, False), (8, True)])
def test_perplexities_by_duplicates_name_units_and_withhold(documents, withheld):
    rng = np.random.default_rng(0)
    rows = 600
    table = pa.table(
        {
            "document": [f"d{number}" for number in rng.integers(0, documents, rows)],
            "is_memorized": rng.random(rows) < 0.5,
            "sequence_duplicates": rng.choice([1, 4, 70], rows),
            "prompt_perplexity": np.exp(rng.normal(1, 0.5, rows)),
        }
    )
    section = perplexities(run_with(perplexities=perplexities_by_duplicates(table)))
    panels = {part.name: part for part in section.parts if isinstance(part, Panel)}
    assert set(panels) == {"perplexities", "perplexity_divergence"}
    assert f"over up to {documents} documents" in panels["perplexities"].caption
    medians, divergence = (part for part in section.parts if isinstance(part, Table))
    assert [row[1] for row in divergence.rows] == ["1", "3\N{EN DASH}5", "11\N{EN DASH}100"]
    for row in (*medians.rows, *divergence.rows):
        assert (row[-2] == "withheld") == withheld
        assert ("10 needed" in row[-1]) == withheld
    hollow = [
        line for axes in np.ravel(panels["perplexities"].drawn) for line in axes.lines if line.get_markerfacecolor() == "white"
    ]
    assert (len(hollow) == 6) == withheld
    assert perplexities(run_with()).missing
    assert bin_label({"from": 10_001, "to": None}) == "10,001+"


def alignments(rows=80, documents=20, seed=0):
    rng = np.random.default_rng(seed)
    score = rng.random(rows)
    return pa.table(
        {
            "text": [f"text {row}" for row in range(rows)],
            "document": [f"d{row % documents}" for row in range(rows)],
            "gradient_alignment": pa.array([None if row == 3 else 0.5 * score[row] + 0.1 for row in range(rows)], pa.float32()),
            "exact_memorization": pa.array(score, pa.float32()),
        }
    )


def test_agreement_is_spearman_over_documents():
    table = alignments()
    found = agreement(table)
    kept = [row for row in table.to_pylist() if row["gradient_alignment"] is not None]
    alignment, score = ([row[name] for row in kept] for name in ("gradient_alignment", "exact_memorization"))
    assert found["texts"] == 79
    assert found["spearman"] == pytest.approx(spearman(alignment, score))
    expected = spearman_interval(alignment, score, units=unit_codes([row["document"] for row in kept]))
    assert (found["low"], found["high"], found["units"]) == (expected.low, expected.high, 20)
    few = agreement(alignments(documents=9))
    assert few["low"] is None
    assert "9 documents" in few["reason"]
    assert agreement(table.drop_columns(["exact_memorization"])) == {}
    assert agreement(table.slice(0, 9))["spearman"] is None


def test_scores_of_a_run_join_alignments_of_the_same_texts_only():
    table = alignments(12)
    bare = table.drop_columns(["exact_memorization"])
    run = pa.table({"text": ["text 11", "text 2", "another"], "exact_memorization": pa.array([0.25, 0.5, 1.0], pa.float32())})
    joined = add_memorization(bare, run).column("exact_memorization").to_pylist()
    assert joined == [{2: 0.5, 11: 0.25}.get(row) for row in range(12)]
    # A score that is there already stays; without a common text nothing is added.
    assert add_memorization(table, run) is table
    assert add_memorization(bare, run.slice(2)) is bare
    assert add_memorization(bare, run.select(["text"])) is bare


def test_every_text_with_both_lies_in_one_hexagon():
    table = alignments(300, documents=30)
    name, values = points(table)
    assert name == "exact_memorization"
    axes = hexagons(values, "a share")
    counts = axes.collections[0].get_array()
    assert counts.sum() == 299
    assert counts.min() >= 1
    assert "<image" not in saving.svg(axes)
    (panel,), missing = against_memorization(agreement(table), table)
    assert missing == ()
    assert panel.name == "alignment-memorization"
    assert "299 texts that have both, from 30 documents" in panel.caption
    assert "95% interval" in panel.caption
    none, missing = against_memorization(agreement(table.slice(0, 6)), table.slice(0, 6))
    assert none == ()
    assert "5 texts have both, 10 needed" in missing[0]
    assert against_memorization({}, table) == ((), ())


def test_labels_of_many_members_are_turned_instead_of_touching():
    def angles(steps):
        rows = kind_rows([(f"checkpoint-{step}", step) for step in steps])
        drawn = shares(rows, ("all", *CATEGORIES), Moments.of(rows, "step"))
        return {label.get_rotation() for label in drawn[0].get_xticklabels()}

    assert angles([100, 200, 300]) == {0}
    assert angles([23_000, 43_000, 63_000, 83_000, 103_000, 123_000, 143_000]) == {45}
