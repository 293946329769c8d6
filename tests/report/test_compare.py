"""Comparison of two runs: by hand, against statsmodels, and by simulation."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from typer.testing import CliRunner

from memtax import statistics
from memtax.cli import app
from memtax.errors import MemtaxError
from memtax.jobs.compare import Compare
from memtax.report.comparison import compare
from memtax.report.quoting import quotable
from memtax.results import read_summary, read_table


def table(path, ids, memorized, taxonomy=None, tokens=None, text=None, document=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"sequence_id": pa.array(ids, pa.int64()), "is_memorized": pa.array(memorized, pa.bool_())}
    if taxonomy is not None:
        columns["taxonomy"] = pa.array(taxonomy, pa.int64())
    if tokens is not None:
        columns["tokens"] = pa.array(tokens, pa.list_(pa.int32()))
    if text is not None:
        columns["text"] = pa.array(text, pa.string())
    if document is not None:
        columns["document"] = pa.array(document, pa.string())
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture
def runs(tmp_path):
    # Before: 1, 2, 3 memorized. After: 2, 4. Sequence 9 and 8 are in one run only, 5 has no verdict after.
    hostile = "<script>alert()</script>"
    before = table(
        tmp_path / "a" / "dataset" / "features" / "train.parquet",
        [1, 2, 3, 4, 5, 9],
        [True, True, True, False, True, True],
        [0, 0, 2, 2, 1, 0],
        [[1], [2], [3], [4], [5], [9]],
        ["one", "two", hostile, "four", "five", "nine"],
    )
    table(
        tmp_path / "b" / "dataset" / "features" / "train.parquet",
        [8, 5, 4, 3, 2, 1],
        [True, None, True, False, True, False],
        [0, 1, 2, 2, 1, 0],
        [[8], [5], [4], [3], [2], [1]],
        ["eight", "five", "four", hostile, "two", "one"],
    )
    assert before.exists()
    return tmp_path / "a", tmp_path / "b"


def test_counts_by_hand(runs):
    found = compare(*runs)
    summary = found.summary
    assert (summary["sequences"], summary["only_in_first"], summary["only_in_second"], summary["without_verdict"]) == (
        4,
        1,
        1,
        1,
    )
    everything = summary["groups"]["all"]
    # 1 and 3 forgotten, 4 newly memorized: 3 of 4 before, 2 of 4 after.
    assert (everything["newly"], everything["forgotten"]) == (1, 2)
    assert everything["first"]["value"] == 0.75
    assert everything["second"]["value"] == 0.5
    assert everything["difference"]["value"] == -0.25
    assert everything["independent"]["mcnemar_p"] == 1.0  # one of three: both tails hold everything
    assert summary["groups"]["recitation"]["sequences"] == 2  # by the category before: 1 and 2
    assert "reconstruction" not in summary["groups"]
    assert summary["transitions"] == [
        {"before": "recitation", "after": "reconstruction", "sequences": 1},  # 2
        {"before": "recitation", "after": "not memorized", "sequences": 1},  # 1
        {"before": "recollection", "after": "not memorized", "sequences": 1},  # 3
        {"before": "not memorized", "after": "recollection", "sequences": 1},  # 4
    ]
    assert found.changed.to_pydict()["sequence_id"] == [1, 3, 4]
    assert found.changed.to_pydict()["change"] == ["forgotten", "forgotten", "newly memorized"]


def test_files_and_page(runs, tmp_path):
    result = CliRunner().invoke(app, ["compare", *map(str, runs), "--output", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "1 newly memorized, 2 forgotten" in result.output
    assert read_summary(tmp_path / "out", "compare")["sequences"] == 4
    assert read_table(tmp_path / "out", "changes").num_rows == 3
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http://" not in page
    assert "https://" not in page
    first = (tmp_path / "out" / "index.html").read_bytes()
    Compare(first=str(runs[0]), second=str(runs[1]), output=tmp_path / "again").run()
    assert (tmp_path / "again" / "index.html").read_bytes() == first


def test_a_run_with_itself_has_no_change(runs):
    everything = compare(runs[0], runs[0]).summary["groups"]["all"]
    assert everything["difference"]["value"] == 0
    assert everything["difference"]["low"] is None, "four sequences are too few"
    assert everything["independent"]["mcnemar_p"] == 1.0


def test_changes_of_whole_documents_are_as_many_as_the_documents(tmp_path):
    # 20 documents of 30 sequences; the second run memorized 12 of them whole, the first 4 of these: 8 changes, not 240.
    document, ids = np.repeat(np.arange(20), 30), np.arange(600)
    before = table(tmp_path / "a.parquet", ids, document < 4, document=document.astype(str))
    after = table(tmp_path / "b.parquet", ids, document < 12)
    everything = compare(before, after).summary["groups"]["all"]
    assert (everything["unit"], everything["units"]) == ("document", 20)
    assert everything["p"] == pytest.approx(statistics.mcnemar(8, 0))
    assert everything["independent"]["mcnemar_p"] < 1e-60
    expected = statistics.paired_difference(4, 0, 8, 8)
    assert everything["difference"]["low"] == pytest.approx(expected.low, abs=0.05)
    assert everything["difference"]["high"] == pytest.approx(expected.high, abs=0.05)


def test_after_deduplication_sequences_are_matched_by_their_tokens(tmp_path):
    places = [tmp_path / name / "dataset" / "scores" / "train.parquet" for name in "ab"]
    # Before: [1] twice, both memorized, [2] memorized, [3] not. After, numbered anew: [3], [1] not, [2] and [4] memorized.
    before = table(
        places[0],
        [0, 1, 2, 3],
        [True, True, True, False],
        tokens=[[1], [2], [1], [3]],
    )
    after = table(
        places[1],
        [0, 1, 2, 3],
        [False, False, True, True],
        tokens=[[3], [1], [2], [4]],
    )
    found = compare(before.parents[2], after.parents[2])
    # Shared: [1] forgotten, [2] kept, [3] never; [1] counts once, [4] is new.
    assert (found.summary["matched_by"], found.summary["sequences"]) == ("tokens", 3)
    assert (found.summary["only_in_first"], found.summary["only_in_second"]) == (0, 1)
    everything = found.summary["groups"]["all"]
    assert (everything["first"]["value"], everything["second"]["value"]) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    changed = found.changed.to_pydict()
    assert (changed["sequence_id"], changed["sequence_id_after"], changed["change"]) == ([0], [1], ["forgotten"])
    assert found.lines()[0] == "3 distinct sequences in both runs, matched by their tokens"


def test_an_audit_is_compared_by_its_run(runs, tmp_path):
    for name, run in zip("ab", runs, strict=True):
        (tmp_path / f"audit-{name}").mkdir()
        run.rename(tmp_path / f"audit-{name}" / "run")
    found = compare(tmp_path / "audit-a", tmp_path / "audit-b")
    assert (found.summary["matched_by"], found.summary["sequences"]) == ("sequence_id", 4)


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"ids": [7], "memorized": [True]}, "share no sequence, neither by sequence_id nor by tokens"),
        ({"ids": [1, 1], "memorized": [True, False]}, "sequence_id 1 more than once"),
        ({"ids": [1], "memorized": [None]}, "none with a verdict in both"),
        ({"ids": [1], "memorized": [True], "tokens": [[77]]}, "share no sequence, neither by sequence_id nor by tokens"),
    ],
)
def test_what_cannot_be_compared(runs, tmp_path, second, said):
    with pytest.raises(MemtaxError, match=said):
        compare(runs[0], table(tmp_path / "c.parquet", **second))


def test_what_cannot_be_read(runs, tmp_path):
    with pytest.raises(MemtaxError, match="contains no table of sequences"):
        compare(runs[0], tmp_path / "nothing")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(MemtaxError, match="cannot be read"):
        compare(runs[0], tmp_path / "damaged.parquet")
    pq.write_table(pa.table({"sequence_id": [1]}), tmp_path / "short.parquet")
    with pytest.raises(MemtaxError, match="is_memorized"):
        compare(runs[0], tmp_path / "short.parquet")


@pytest.mark.parametrize(("newly", "forgotten"), [(0, 0), (3, 12), (40, 41), (1, 0)])
def test_mcnemar_against_statsmodels(newly, forgotten):
    expected = statsmodels_mcnemar([[5, forgotten], [newly, 7]], exact=True).pvalue if newly + forgotten else 1.0
    assert statistics.mcnemar(newly, forgotten) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("probabilities", [(0.3, 0.1, 0.05, 0.55), (0.02, 0.01, 0.03, 0.94), (0.0, 0.2, 0.2, 0.6)])
def test_the_paired_interval_covers(probabilities):
    generator = np.random.default_rng(3)
    draws = generator.multinomial(120, probabilities, size=2000)
    intervals = [statistics.paired_difference(*(int(count) for count in draw)) for draw in draws]
    truth = probabilities[2] - probabilities[1]
    # 2,000 intervals at 95%: three standard errors are 0.015; score intervals may cover a little more.
    assert 0.935 <= np.mean([each.low <= truth <= each.high for each in intervals]) <= 0.99


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("before the long and winding text they met at Bd. Unirii nr", "before the long and winding text they met at ["),
        ("it was said that he lives at 7921 Szeged, R", "it was said that he lives at ["),
        (
            "it was said to all of those who were there in the evening to write to anna.petrosyan_xx at hellas",
            "in the evening to write to [",
        ),
        ("Dorées, Lyon is where the letter went in the end", "] is where the letter went in the end"),
        ("there is nothing that anybody could cut at either edge", "there is nothing that anybody could cut at either edge"),
        ("in 1900, and then very much that has nothing to do with " + 3 * "the edge ", 3 * "the edge "),
    ],
)
def test_an_edge_that_may_cut_an_address_is_masked_unless_neighbors_complete_it(tmp_path, text, shown):
    rows = {"tokens": [[1], [2]], "text": ["all of it ", text], "document": ["a", None]}
    before = table(tmp_path / "a.parquet", [1, 2], [True, False], **rows)
    after = table(tmp_path / "b.parquet", [1, 2], [True, True], **rows)
    [quoted] = compare(before, after).changed.column("text").to_pylist()
    assert shown in quoted
    assert not [word for word in ("Bd", "7921", "petrosyan", "Lyon", "1900") if word in quoted]
    # A run that was masked with its documents known hides what must be hidden itself.
    assert quotable(rows["text"], rows["document"], [1], show=False, masked=True)[0][:9] == text[:9]
    # The window after it shows that nothing is cut.
    rows = {"tokens": [[1], [2]], "text": [text, " and so on, as everybody expected of it " * 4], "document": ["a", "a"]}
    before = table(tmp_path / "a.parquet", [1, 2], [False, True], **rows)
    after = table(tmp_path / "b.parquet", [1, 2], [True, True], **rows)
    [quoted] = compare(before, after).changed.column("text").to_pylist()
    assert quoted.endswith(text[-4:])
