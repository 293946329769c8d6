"""All sequences of a run stand in the page, compressed, and are those of the table."""

import base64
import json
import math
import re
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.report_run import PROMPT, make_run
from memtax import schema
from memtax.report import examples, listing, sections
from memtax.report.data import Run
from memtax.report.page import render
from memtax.report.parts import Panel

ROWS = 600


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("listing") / "run", rows=ROWS)
    path = run / "dataset/features/train.parquet"
    rows = pq.read_table(path).to_pylist()
    # In no order, with gaps: a row without a verdict, without a category, without tokens, without a number.
    rows = [rows[(371 * place) % ROWS] for place in range(ROWS)]
    rows[0] |= {"is_memorized": None}
    rows[1] |= {"taxonomy": None, "document": None, "continuation_perplexity": float("inf"), "sequence_duplicates": None}
    rows[2] |= {"token_texts": None}
    rows[3] |= {"text": rows[3]["text"] + "!"}  # the pieces do not give the text: nobody knows where the prompt ends
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(path)), path)
    return run, rows


def page(run):
    """The page's HTML without its drawings, which take most of the time."""
    data = Run.read(run)
    parts = [*sections.sections(data), sections.gaps(data)]
    names = {part.name for section in parts for part in section.parts if isinstance(part, Panel)}
    return render(data, parts, dict.fromkeys(names, ""))


def unpacked(text):
    return json.loads(zlib.decompress(base64.b64decode(text, validate=True)))


def test_the_page_holds_every_sequence_with_a_verdict(made):
    run, rows = made
    source = page(run)
    (packed,) = re.findall(r'<script type="application/octet-stream" id="all">(.*?)</script>', source)
    found = unpacked(packed)
    by_id = {row["sequence_id"]: row for row in rows if row["is_memorized"] is not None}
    assert found["id"] == sorted(by_id)
    assert "599 of 600 sequences can be searched" in source
    for place, number in enumerate(found["id"]):
        row = by_id[number]
        assert found["text"][place] == row["text"]
        assert found["memorized"][place] is row["is_memorized"]
        category = examples.UNLABELLED if row["taxonomy"] is None else schema.CATEGORIES[row["taxonomy"]]
        assert found["categories"][found["category"][place]] == category
        document = found["document"][place]
        assert (None if document is None else found["documents"][document]) == row["document"]
        if row["token_texts"] is None or "".join(row["token_texts"]) != row["text"]:
            assert found["cut"][place] is None
        else:
            assert row["text"][: found["cut"][place]] == "".join(row["token_texts"][:PROMPT])
        for name, values in found["factors"].items():
            value = row[name]
            if value is None or not math.isfinite(value):
                assert values[place] is None
            else:
                # Four significant digits are kept: off by at most half a unit in the fourth, 5e-4 of the value.
                assert math.isclose(values[place], value, rel_tol=5e-4)
    assert set(found["factors"]) == set(examples.FACTORS) & set(rows[0])
    # The same run gives the same bytes, and corpus text cannot end the element it stands in.
    assert listing.compressed(listing.listing(Run.read(run))) == packed
    assert re.fullmatch(r"[A-Za-z0-9+/]+=*", packed)


def test_of_more_sequences_the_memorized_come_first_and_the_others_are_spread(made):
    run, rows = made
    memorized = sorted(row["sequence_id"] for row in rows if row["is_memorized"])
    others = sorted(row["sequence_id"] for row in rows if row["is_memorized"] is False)
    assert 100 < len(memorized) < 400
    found = listing.listing(Run.read(run), most=len(memorized) + 3)
    assert [number for number, yes in zip(found["id"], found["memorized"], strict=True) if yes] == memorized
    assert sum(found["memorized"]) == len(memorized)
    assert set(found["id"]) - set(memorized) <= set(others)
    assert len(found["id"]) == len(memorized) + 3
    for most in (1, 100, len(memorized), len(memorized) + 1):
        found = listing.listing(Run.read(run), most=most)
        assert len(found["id"]) == most
        assert sum(found["memorized"]) == min(most, len(memorized))


def test_long_texts_are_cut_evenly_and_the_page_says_so(made, monkeypatch):
    run, rows = made
    monkeypatch.setattr(listing, "MOST_CHARACTERS", 1)
    monkeypatch.setattr(listing, "LEAST_TEXT", 40)
    found = listing.listing(Run.read(run))
    by_id = {row["sequence_id"]: row["text"] for row in rows}
    assert found["shortened"] == 40
    assert found["text"] == [by_id[number][:40] for number in found["id"]]
    assert "Texts are cut to 40 characters." in page(run)


def test_a_run_without_verdicts_lists_nothing(tmp_path):
    run = make_run(tmp_path / "run", rows=60)
    path = run / "dataset/features/train.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["is_memorized"]), path)
    assert listing.listing(Run.read(run)) == {}
