"""The pages are usable with keyboard and screen reader, in light and dark, and in a browser: as far as a program can tell."""

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import memtax
from helpers import browser
from helpers.markup import contrast, problems
from helpers.report_run import make_run
from helpers.report_series import fit_rows, kind_rows, perplexity_rows
from memtax import schema
from memtax.attribution.alignment_memorization import agreement
from memtax.jobs.base import Result, Rows, write_result
from memtax.membership.canaries import Canary, summarize
from memtax.pipeline import audit_page
from memtax.pipeline.audit_verdicts import verdicts
from memtax.report import figures, page, saving, sections, verb_pages
from memtax.report.data import Run
from memtax.report.parts import Panel
from memtax.results import envelope, read_summary

in_a_browser = pytest.mark.skipif(
    browser.FOUND is None, reason="NO BROWSER: chromium was not found, so no page was opened; set MEMTAX_CHROMIUM to its path"
)
PAGES = ("run", "audit", "comparison", "influence", "mia", "align")


def rate(memorized, sequences):
    share = memorized / sequences if sequences else None
    return {"memorized": memorized, "sequences": sequences, "rate": share, "low": share and share / 2, "high": share}


def audited():
    """An audit as `summary.json` holds it, with everything measured that can be."""
    names = ("all", *schema.CATEGORIES, "held_out")
    listed = [{"sequence_id": 3, "document": "a", "category": "recollection", "duplicates": 1, "text": "<b>secret</b>"}]
    listed = [{**row, "windows": 1, "personal_data": ["e-mail address"]} for row in listed]
    measured = {"auroc": {"value": 0.9, "low": 0.8, "high": 0.95}, "verdict": {"shows_membership": True, "reason": "above"}}
    units = {"name": "documents", "members": 30, "nonmembers": 20}
    near = {kind: rate(2, 40) for kind in ("identical", "near", "block")}
    found = {
        "model": "models/<small>",
        "adapter": None,
        "train": "rows.jsonl",
        "held_out": "other.jsonl",
        "personal_data_shown": False,
        "sequences": 40,
        "skipped": {},
        "near_verbatim": {"measurable": True, "tokens": 32, "edits": 3, "block": 16, "train": near, "held_out": near},
        "distinct": {"sequences": 30, "memorized": 5},
        "window": {"prompt": 32, "continuation": 32},
        "extraction": {name: rate(place, 10) for place, name in enumerate(names)},
        "sampling": [{"samples": 100, "probability": 0.5, "extractable": 4, **rate(4, 40)}],
        "kinds": {name: {**rate(2, 40), "distinct": 1} for name in ("worrying", "benign", "unknown")},
        "canaries": {"measurable": True, **summarize([Canary((1, 2), n) for n in (1, 9, 0, 0)], [1, 4, 2, 3], [0, 1, 0, 0])},
        "membership": {
            "measurable": True,
            "domains": {"all": {"attacks": {"loss": measured}, "blind": measured, "units": units}},
        },
        "personal_data": {"measurable": True, "by_kind": {}, "count": 1, "distinct": 1, "sequences": listed},
        "worrying_sequences": listed,
        "advice": {
            "drop": {"sequence_ids": [3], "rate_among_the_rest": rate(3, 39)},
            "deduplicate": {"sequence_ids": [], "measurable": False, "reason": "no memorized sequence occurs more than once"},
        },
    }
    return {**found, "verdicts": verdicts(found)}


HOSTILE = "<script>alert(1)</script> a\u202eb & <b>\n  " + "x" * 500
INTERVAL = {"value": 0.5, "low": 0.25, "high": 0.75}


def influenced(folder):
    """What `memtax influence` leaves, with texts of anyone's."""
    row = {"test_id": 7, "test_text": HOSTILE, "rank": 1, "train_id": 3, "influence": -0.25, "train_text": HOSTILE}
    top = pa.Table.from_pylist([row | {"method": name} for name in ("datainf", "repsim")])
    methods = {"datainf": {"accuracy": INTERVAL, "coverage": None}, "repsim": {}}
    found = {"train": 9, "test": 1, "model": "m<i>", "parameters": "lora", "methods": methods}
    write_result(folder, "influence", Result("Influence", [Rows("top", "One row per rank.", top)], found), {}, {}, 0)


def inferred(folder):
    """What `memtax mia` leaves: a domain in which an attack shows membership, and one where it has no figures."""
    measured = dict.fromkeys(("auroc", "tpr_at_fpr_0.01", "tpr_at_fpr_0.05", "fpr_at_tpr_0.95"), INTERVAL)
    told, nothing = ({"shows_membership": shown, "reason": "of <it>"} for shown in (True, False))
    units = {"name": "documents", "members": 15, "nonmembers": 12}
    counts = {"members": 30, "nonmembers": 20, "copies": 2, "shared": 0, "units": units}
    differences = {"tokens": {"members": 12.5, "nonmembers": None, "auroc": None}}
    code = {"attacks": {"loss": {**measured, "verdict": told}}, "blind": measured, "shift": differences}
    code |= {"set_test": {"p_value": 0.004, "blind_p_value": None}}
    without = dict.fromkeys(measured)
    prose = {"attacks": {"loss": {**without, "verdict": nothing}}, "blind": without, "shift": {}, "set_test": None}
    found = {"model": "m<i>", "attacks": ["loss"], "reserved": {"recall": 7, "rmia": 0}, "frequencies": None}
    found["domains"] = {"<code>": {**code, **counts}, "prose": {**prose, **counts}}
    rows = Rows("scores", "One row per text.", pa.table({"sequence_id": [0]}))
    write_result(folder, "mia", Result("Membership inference", [rows], found), {}, {}, 0)


def aligned(folder):
    """What `memtax align` leaves."""
    table = {"gradient_alignment": [0.9, 0.2, None, -0.4] * 5, "is_member": [True, False, True, False] * 5}
    table["exact_memorization"] = [0.8, 0.1, 0.5, 0.0] * 5
    found = {"model": "m<i>", "parameters": "lora", "texts": 20, "aligned": 15, "mean": 0.7 / 3, "cut": 0}
    found["memorization"] = agreement(pa.table(table))
    found |= {"levels": {"high": 5, "medium": 0, "low": 10}, "membership": {"auroc": INTERVAL}}
    found["paraphrases"] = {"given": 8, "used": 5, "missing": 2, "identical_to_the_text": 1}
    write_result(
        folder, "align", Result("Alignment", [Rows("alignment", "One row per text.", pa.table(table))], found), {}, {}, 0
    )


def run_page(run):
    """The page as `report.write` makes it, without the figures' own files."""
    data = Run.read(run)
    parts = [*sections.sections(data), sections.gaps(data)]
    panels = [part for section in parts for part in section.parts if isinstance(part, Panel)]
    drawings = {panel.name: page.inline_svg(saving.svg(panel.figure), panel.name) for panel in panels}
    (run / "index.html").write_text(page.render(data, parts, drawings), encoding="utf-8")
    return run / "index.html"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The page of each kind, by name; the run's folder under `folder`."""
    folder = tmp_path_factory.mktemp("pages")
    run, other = make_run(folder / "run", rows=500), make_run(folder / "other", rows=500, seed=4)
    metrics = read_summary(run)
    metrics["kinds"] = {"checkpoints": kind_rows([("checkpoint-10", 10), ("checkpoint-300", 300)])}
    metrics |= {"fits": {"checkpoints": fit_rows(), "models": []}, "perplexities": perplexity_rows()}
    (run / "summary.json").write_text(json.dumps(envelope("run", metrics)))
    audit_page.write(folder / "audit.html", audited())
    for name, fill in (("influence", influenced), ("mia", inferred), ("align", aligned)):
        (folder / name).mkdir()
        fill(folder / name)
    return {
        "folder": run,
        **{name: getattr(verb_pages, name)(folder / name) for name in ("influence", "mia", "align")},
        "run": run_page(run),
        "audit": folder / "audit.html",
        "comparison": memtax.compare(first=str(run), second=str(other), output=folder / "comparison").page,
    }


@pytest.mark.parametrize("name", PAGES)
def test_nothing_stands_in_the_way_of_a_screen_reader(made, name):
    assert list(problems(made[name].read_text(encoding="utf-8"))) == []


def test_the_pages_of_single_verbs_say_what_was_found_and_show_texts_as_text(made):
    pages = {name: made[name].read_text(encoding="utf-8") for name in ("influence", "mia", "align")}
    for name, text in pages.items():
        assert not re.search("<script|<b>|<i>|<code>", text), name
        assert "m&lt;i&gt;" in text, name
    assert "&lt;script&gt;alert(1)&lt;/script&gt; a\ufffdb &amp; &lt;b&gt;\n  xxx" in pages["influence"]
    # 400 characters of the text, 34 of them before the x's: "<script>alert(1)</script>" has 25, " a?b & <b>" 10, the line 3.
    cut = re.findall(r"(x+) \[\.\.\.\]", pages["influence"])
    assert [len(each) for each in cut] == [400 - 25 - 10 - 3] * 3
    assert "0.500 (0.250\u00a0to\u00a00.750)" in pages["influence"]
    assert "Membership can be inferred in 1 of 2 domains" in pages["mia"]
    assert "p = 0.004; the texts alone: p = unknown" in pages["mia"]
    assert "7 for recall" in pages["mia"]
    assert "Gradient alignment: mean cosine 0.233" in pages["align"]
    assert "10 of 15 texts have low alignment" in pages["align"]
    assert 'id="alignment-memorization-title"' in pages["align"]


def test_the_rules_see_what_is_wrong(made):
    source = made["run"].read_text(encoding="utf-8")
    for right, wrong, said in (
        ('<html lang="en">', "<html>", "html has no lang"),
        ('scope="col"', "", "a column has no header with scope"),
        ('scope="row"', "", "has no header with scope"),
        ('role="img"', "", "a drawing has no role or name"),
        ("<h2>", "<h4>", "skips a level"),
        ("<label>Category", "<span>Category", "the control category has no label"),
        ('href="#content"', 'href="#nowhere"', "does not skip to the content"),
        ('<nav aria-label="Sections"', "<nav", "a nav has no label"),
        ('tabindex="0"', 'tabindex="3"', "a tabindex above 0"),
        ("<main", "<div", "not one main"),
    ):
        assert right in source
        spoilt = source.replace(right, wrong).replace("</label>", "</span>" if "span" in wrong else "</label>")
        spoilt = spoilt.replace("</h2>", "</h4>") if wrong == "<h4>" else spoilt
        assert any(said in found for found in problems(spoilt)), said


def colors(block):
    return dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", block))


def test_text_stands_out_from_what_is_behind_it_in_light_and_dark():
    style = (page.HERE / "page.css").read_text(encoding="utf-8")
    light, dark, *_ = re.findall(r":root \{.*?\}", style, re.DOTALL)
    for block in (light, dark):
        found = colors(block)
        for text in ("ink", "quiet", "link"):
            for behind in ("page", "card", "code"):
                # WCAG 2.2, 1.4.3: 4.5 to 1.
                assert contrast(found[text], found[behind]) >= 4.5, (text, behind, found)
        # The deepest color of a token, over a card, under the text.
        heat = [int(part) for part in re.search(r"--heat: (\d+) (\d+) (\d+)", block).groups()]
        most = float(re.search(r"--heat-most: ([0-9.]+)", block)[1])
        card = [int(found["card"][start : start + 2], 16) for start in (1, 3, 5)]
        mixed = "#" + "".join(f"{round(most * a + (1 - most) * b):02x}" for a, b in zip(heat, card, strict=True))
        assert contrast(found["ink"], mixed) >= 4.5, mixed
        # 1.4.11: what shows the focus, 3 to 1.
        assert contrast(found["link"], found["page"]) >= 3
    assert re.search(r":focus-visible \{ outline: 3px solid", style)
    assert not re.search(r"outline: (none|0)", style)
    # Marks and lines in figures stand on white: 1.4.11, 3 to 1.
    for name, color in figures.COLORS.items():
        assert contrast(color, "#ffffff") >= 3, name
    # Names in figures stand on white.
    for name, color in figures.TEXT_COLORS.items():
        assert contrast(color, "#ffffff") >= 4.5, name


def test_contrast_is_that_of_the_standard():
    # The definition's extremes, and a grey that is widely quoted as just enough on white: #767676, 4.54 to 1.
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)


@in_a_browser
@pytest.mark.parametrize("name", PAGES)
def test_a_browser_opens_it_without_an_error_or_a_request(made, name, tmp_path):
    found = browser.visit(made[name], tmp_path, width=500)
    assert found["console"] == found["errors"] == found["violations"] == found["resources"] == []
    # Nothing but what scrolls in itself is wider than a telephone's window.
    assert found["width"][0] <= found["width"][1]


@in_a_browser
def test_a_browser_searches_filters_and_sorts_all_sequences(made, tmp_path):
    rows = pq.read_table(made["folder"] / "dataset/features/train.parquet").to_pylist()
    steps = [
        {"search": "RETURN"},
        {"search": "", "category": "recollection", "memorized": "yes"},
        {"category": "", "memorized": "", "sort": "continuation_perplexity", "order": "up"},
        {"order": "down"},
    ]
    found = browser.visit(made["run"], tmp_path, steps)
    assert found["console"] == found["errors"] == []
    searched = sum("return" in row["text"].lower() for row in rows)
    filtered = sum(row["taxonomy"] == 2 and row["is_memorized"] for row in rows)
    assert 0 < searched < 500
    assert 0 < filtered < 500
    shown = [answer["shown"] for answer in found["answers"]]
    assert shown[0].startswith(f"{searched} of 500 sequences match")
    assert shown[1].startswith(f"{filtered} of 500 sequences match")
    # The page keeps four digits: rows that share them stand in any order.
    values = {f"sequence {row['sequence_id']}": float(f"{row['continuation_perplexity']:.4g}") for row in rows}
    rising = sorted(values.values())
    assert [values[name] for name in found["answers"][2]["ids"]] == rising[:12]
    assert [values[name] for name in found["answers"][3]["ids"]] == rising[:-13:-1]


@in_a_browser
def test_the_browser_would_tell_of_an_error_and_a_request(made, tmp_path):
    source = made["audit"].read_text(encoding="utf-8")
    (tmp_path / "bad.html").write_text(source.replace("<footer>", '<img alt="" src="http://localhost:9/x"><footer>'))
    found = browser.visit(tmp_path / "bad.html", tmp_path)
    assert found["violations"] == ["http://localhost:9/x"]
    assert any("localhost:9" in line for line in found["console"])
