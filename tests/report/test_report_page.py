"""The whole page, built from a run directory of real text: it parses, fetches nothing, escapes everything, invents nothing."""

import base64
import hashlib
import html.parser
import json
import math
import re
import shutil
import statistics

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from helpers.report_run import HOSTILE, make_run
from memtax import report, schema
from memtax.cli import app
from memtax.errors import MemtaxError
from memtax.report import sections, words
from memtax.report.data import Run
from memtax.report.page import render
from memtax.report.parts import Panel
from memtax.results import envelope, read_summary

VOID = {"meta", "input", "br", "img", "link", "hr", "path", "use", "rect", "circle"}
FIGURES = {
    *("extraction", "growth", "correlations", "curves", "weights"),
    *("distribution_continuation_perplexity", "distribution_sequence_duplicates"),
}


class Page(html.parser.HTMLParser):
    """Checks nesting while parsing; keeps tags, attributes, scripts and the text people read."""

    def __init__(self, source):
        super().__init__()
        self.stack, self.tags, self.attributes, self.scripts, self.texts = [], [], [], [], []
        self.feed(source)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack and self.stack[-1] == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        elif not {"style", "svg", "title"} & set(self.stack):
            self.texts.append((tuple(self.stack), data))

    @property
    def data(self):
        return json.loads(next(text for attributes, text in self.scripts if attributes.get("id") == "data"))

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(text for _, text in self.texts))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("page") / "run")
    path = report.write(run)
    return run, path, Page(path.read_text(encoding="utf-8"))


def test_page_and_figures_are_where_the_run_directory_says(written):
    run, path, page = written
    assert path == run / "report" / "index.html"
    assert {file.stem for file in (run / "report" / "figures").glob("*.png")} == FIGURES
    assert {file.stem for file in (run / "report" / "figures").glob("*.svg")} == FIGURES
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in (run / "report" / "figures").glob("*.png"))
    assert page.tags.count("svg") == page.tags.count("figure") == len(FIGURES)


def test_nothing_is_fetched(written):
    _, path, page = written
    for tag, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            assert value.startswith("#"), (tag, name, value)
        assert "url(" not in (value or "").replace("url(#", ""), (tag, name, value)
    # Outside the corpus text, which is data, not one address is in the file.
    source = path.read_text(encoding="utf-8")
    rest = re.sub(r'<script type="application/[^>]*>.*?</script>', "", source, flags=re.DOTALL)
    assert "//" not in re.sub(r"(?m)^\s*//.*$", "", rest)
    assert "@import" not in rest


def test_policy_allows_the_pages_own_script_and_nothing_else(written):
    _, _, page = written
    policy = next(
        value for tag, name, value in page.attributes if tag == "meta" and name == "content" and "default-src" in value
    )
    scripts = [text for attributes, text in page.scripts if "type" not in attributes]
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert not any(name.startswith("on") for _, name, _ in page.attributes)


def test_hostile_text_is_inert(written):
    run, path, page = written
    source = path.read_text(encoding="utf-8")
    # The examples, all sequences, and the page's own script.
    assert page.tags.count("script") == 3
    assert "img" not in page.tags
    assert "b" not in page.tags
    raw = next(text for attributes, text in page.scripts if attributes.get("id") == "data")
    assert not set("<>&") & set(raw)
    assert raw.isascii()
    # Nothing on the page turns its direction or carries controls, though the corpus does both.
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", source)
    # And nothing is lost: the examples hold the very strings of the table.
    rows = {row["sequence_id"]: row for row in pq.read_table(run / "dataset/features/train.parquet").to_pylist()}
    shown = page.data["examples"]
    assert all(example["text"] == rows[example["id"]]["text"] for example in shown)
    assert all(example["pieces"] == rows[example["id"]]["token_texts"] for example in shown)
    assert {text for text in HOSTILE if any(text in example["text"] for example in shown)} == set(HOSTILE)
    assert "GPT-NeoX <small> & the standard library" in page.text
    assert "</pre><script>alert(3)" in page.text


def test_script_writes_text_only(written):
    _, _, page = written
    script = next(text for attributes, text in page.scripts if "id" not in attributes)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(|fetch|XMLHttp", script)


def test_same_run_gives_same_bytes(written, tmp_path):
    run, path, _ = written
    again = shutil.copytree(run, tmp_path / "elsewhere" / "copy", ignore=shutil.ignore_patterns("report"))
    second = report.write(again)
    assert second.read_bytes() == path.read_bytes()
    for file in (run / "report" / "figures").iterdir():
        assert (again / "report" / "figures" / file.name).read_bytes() == file.read_bytes(), file.name


def test_ids_are_unique_and_every_reference_resolves(written):
    _, _, page = written
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    references = {value[1:] for _, name, value in page.attributes if name == "href"}
    references |= {found for _, _, value in page.attributes for found in re.findall(r"url\(#([^)]+)\)", value or "")}
    references |= {part for _, name, value in page.attributes if name == "aria-labelledby" for part in value.split()}
    assert references
    assert references <= set(ids)


def leaves(value):
    if isinstance(value, dict):
        for inner in value.values():
            yield from leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def test_every_number_is_in_the_metrics_or_the_dataset(written):
    run, _, page = written
    metrics = read_summary(run)
    rows = pq.read_table(run / "dataset/features/train.parquet").to_pylist()
    known = list(leaves(metrics))
    # Of the dataset: its rows, the examples shown, and the medians in the distributions' headings.
    known += [len(rows), len(page.data["examples"])]
    for name in ("continuation_perplexity", "sequence_duplicates"):
        for memorized in (True, False):
            known.append(statistics.median(row[name] for row in rows if row["is_memorized"] == memorized))
    allowed = {form(value) for value in known for form in (words.percent, words.fixed, words.number, words.count)}
    # Said in words: probability 0 to 1, correlations from -1 to 1, histograms of 100%, the level of intervals.
    allowed |= {"0", "1", "100%", "95%"}
    # Percentiles and F1 are names; checkpoints and reasons quote the metrics.
    named = [row["checkpoint"] for row in metrics["growth"]] + ["7 memorized test sequences, fewer than 10"]
    named += ["25th", "75th", "F1", "-1 to 1"]
    text = " ".join(data for stack, data in page.texts if not {"footer", "pre"} & set(stack))
    for name in named:
        text = text.replace(name, " ")
    numbers = re.findall("\N{MINUS SIGN}?[0-9][0-9,]*(?:\\.[0-9]+)?%?", text)
    assert len(numbers) > 300
    assert [found for found in numbers if found.rstrip(",") not in allowed] == []


def test_headings_state_what_the_data_say(written):
    run, _, page = written
    metrics = read_summary(run)
    rates = {name: metrics["extraction"][name]["rate"] for name in schema.CATEGORIES}
    best = max(rates, key=rates.get)
    assert f"{best.capitalize()} is memorized most: {words.percent(rates[best])} of its sequences" in page.text
    # Both intervals of the differences lie above 0 in this run.
    assert "One model per category ranks test sequences better than one for all: ROC-AUC 0.913 against 0.873" in page.text


def test_probabilities_are_those_of_the_table(written):
    run, _, page = written
    rows = {row["sequence_id"]: row for row in pq.read_table(run / "dataset/features/train.parquet").to_pylist()}
    frequencies = pq.read_table(run / "dataset/token_frequencies/train.parquet").to_pylist()
    counts = {row["token_id"]: row["token_frequency"] for row in frequencies}
    data = page.data
    for example in data["examples"]:
        first, *others = example["probabilities"]
        assert first is None
        expected = [math.exp(value) for value in rows[example["id"]]["token_logprobs"]]
        # Five significant digits are kept: off by at most half a unit in the fifth.
        assert all(math.isclose(p, q, rel_tol=1e-4) for p, q in zip(others, expected, strict=True))
        assert all(data["frequencies"][str(token)] == counts[token] for token in example["tokens"])


def outline(run):
    """The page without its drawings, which take most of the time, and the names of its figures."""
    data = Run.read(run)
    parts = [*sections.sections(data), sections.gaps(data)]
    names = {part.name for section in parts for part in section.parts if isinstance(part, Panel)}
    return Page(render(data, parts, dict.fromkeys(names, ""))), names


def change_metrics(run, change):
    metrics = read_summary(run)
    change(metrics)
    (run / "summary.json").write_text(json.dumps(envelope("run", metrics)))


def drop_columns(run, *names):
    path = run / "dataset/features/train.parquet"
    pq.write_table(pq.read_table(path).drop_columns(list(names)), path)


ABSENT = {
    "growth": (lambda run: change_metrics(run, lambda m: m.update(growth=[])), "no growth to show", {"growth"}),
    "no predictor": (lambda run: change_metrics(run, lambda m: m.pop("predictor")), "No predictor was", {"curves", "weights"}),
    "predictor refused": (
        lambda run: change_metrics(run, lambda m: m.update(predictor={"reason": "4 memorized sequences"})),
        "No predictor was fitted: 4 memorized sequences.",
        {"curves", "weights"},
    ),
    "curves": (lambda run: change_metrics(run, lambda m: m["predictor"].update(curves=[])), "no curves", {"curves"}),
    "weights": (lambda run: change_metrics(run, lambda m: m["predictor"].pop("coefficients")), "no weights", {"weights"}),
    "correlations": (lambda run: change_metrics(run, lambda m: m.pop("correlations")), "no correlations", {"correlations"}),
    "held out": (lambda run: change_metrics(run, lambda m: m["extraction"].pop("held_out")), "no control is shown", set()),
    "extraction": (lambda run: change_metrics(run, lambda m: m.pop("extraction")), "no extraction figures", {"extraction"}),
    "gaps": (
        lambda run: change_metrics(run, lambda m: m.update(nulls={}, skipped={}, predictor={})),
        "nothing is missing",
        None,
    ),
    "metrics": (lambda run: (run / "summary.json").unlink(), "no summary.json", None),
    "dataset": (
        lambda run: shutil.rmtree(run / "dataset"),
        "none to read",
        {"distribution_continuation_perplexity", "distribution_sequence_duplicates"},
    ),
    "record": (lambda run: (run / "run.yaml").unlink(), "no run.yaml", set()),
    "perplexity": (
        lambda run: drop_columns(run, "continuation_perplexity"),
        "no continuation perplexity of both",
        {"distribution_continuation_perplexity"},
    ),
    "verdicts": (
        lambda run: drop_columns(run, "is_memorized"),
        "none to read",
        {"distribution_continuation_perplexity", "distribution_sequence_duplicates"},
    ),
}


@pytest.mark.parametrize("part", ABSENT)
def test_absent_part_is_left_out_with_a_sentence(part, tmp_path):
    run = make_run(tmp_path / "run", rows=60)
    remove, sentence, gone = ABSENT[part]
    remove(run)
    page, names = outline(run)
    assert sentence in page.text
    assert sum(tag == "figure" for tag in page.tags) == len(names)
    if gone is not None:
        assert names == FIGURES - gone


def test_a_second_report_leaves_no_figure_of_the_first(written, tmp_path):
    run = shutil.copytree(written[0], tmp_path / "run")
    assert (run / "report" / "figures" / "growth.svg").exists()
    change_metrics(run, lambda metrics: metrics.update(growth=[]))
    done = CliRunner().invoke(app, ["report", str(run), "--json"], catch_exceptions=False)
    figures = run / "report" / "figures"
    assert json.loads(done.stdout) == {"output": str(run), "page": str(figures.parent / "index.html"), "figures": str(figures)}
    assert not (run / "report" / "figures" / "growth.svg").exists()


def test_rows_with_nulls_are_shown_as_such(tmp_path):
    run = make_run(tmp_path / "run", rows=60)
    path = run / "dataset/features/train.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[0] |= {"taxonomy": None, "sequence_duplicates": None, "document": None, "continuation_perplexity": float("inf")}
    rows[1] |= {"is_memorized": None, "continuation_logprob": None}
    rows[2] |= {"token_texts": None}
    rows[3] |= {"token_logprobs": [float("-inf")] * 63, "continuation_logprob": float("-inf")}
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(path)), path)
    page, _ = outline(run)
    shown = {example["id"]: example for example in page.data["examples"]}
    assert len(shown) == 59
    assert shown[0]["category"] == "no category"
    assert shown[0]["factors"]["sequence_duplicates"] is None
    assert shown[0]["factors"]["continuation_perplexity"] is None
    assert 10 not in shown
    assert "pieces" not in shown[20]
    assert shown[20]["text"] == rows[2]["text"]
    assert shown[30]["probabilities"] == [None] + [0.0] * 63


def test_a_directory_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(MemtaxError, match=r"neither summary\.json nor dataset"):
        report.write(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [("summary.json", "{"), ("summary.json", "[]"), ("run.yaml", "a: [1"), ("dataset/features/train.parquet", "PAR1 no")],
)
def test_a_damaged_file_is_named_in_one_line(name, content, tmp_path):
    run = make_run(tmp_path / "run", rows=60)
    (run / name).write_text(content)
    with pytest.raises(MemtaxError) as caught:
        report.write(run)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (run / "report").exists()


def test_importing_the_report_does_not_import_torch_or_matplotlib():
    import subprocess
    import sys

    code = "import sys, memtax.report; print([m for m in ('torch', 'matplotlib', 'datasets') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
