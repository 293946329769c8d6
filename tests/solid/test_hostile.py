"""Fuzz targets for every parser and the template filter, and names made to break out. `make fuzz` runs them for long."""

import json
import os
import time

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memtax.corpus.opening import Reading, open_sources
from memtax.errors import MemtaxError
from memtax.filters import filter_class
from memtax.hub.cards import plain, split
from memtax.jobs.run import Run
from memtax.published.sequences import load_published

EXAMPLES = int(os.environ.get("MEMTAX_FUZZ", "60"))
fuzz = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
HEADER = b"MMIDIDX\0\0" + (1).to_bytes(8, "little") + b"\x08" + (2).to_bytes(8, "little") + (1).to_bytes(8, "little")
INDEX = HEADER + b"\x02\0\0\0\x02\0\0\0" + bytes(8) + (4).to_bytes(8, "little") + bytes(8)


def one_line(error):
    assert "\n" not in str(error)


def read(path, **how):
    """Tokens of every row, or None where the file was refused."""
    try:
        corpus = open_sources([str(path)], Reading(**how))
        return sum(len(block.tokens) for shard in corpus.shards(1 << 20) for block in shard.blocks())
    except MemtaxError as error:
        one_line(error)
        return None


def test_an_intact_index_is_read(tmp_path):
    (tmp_path / "c.bin").write_bytes(bytes(8))
    (tmp_path / "c.idx").write_bytes(INDEX)
    # Two sequences of two tokens.
    assert read(tmp_path / "c.bin") == 4


@fuzz
@given(st.lists(st.tuples(st.integers(0, len(INDEX) - 1), st.integers(0, 255)), max_size=4), st.integers(0, len(INDEX)))
def test_a_damaged_index_is_read_right_or_refused(tmp_path_factory, changes, length):
    index = bytearray(INDEX)
    for place, value in changes:
        index[place] = value
    tmp_path = tmp_path_factory.mktemp("pair")
    (tmp_path / "c.bin").write_bytes(bytes(8))
    (tmp_path / "c.idx").write_bytes(bytes(index[:length]))
    # Eight bytes hold at most eight tokens, whatever the index says.
    assert (read(tmp_path / "c.bin") or 0) <= 8


@fuzz
@given(st.binary(max_size=200), st.integers(1, 9), st.sampled_from(["uint16", "uint32", "int32"]))
def test_any_bytes_as_a_headerless_file(tmp_path_factory, data, length, dtype):
    # A new file each time: one that is mapped must not shrink.
    tmp_path = tmp_path_factory.mktemp("flat")
    (tmp_path / "c.bin").write_bytes(data)
    found = read(tmp_path / "c.bin", sequence_length=length, dtype=dtype)
    assert found is None or found == len(data) // (2 if dtype == "uint16" else 4)


@fuzz
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=80).map(lambda tail: b'{"tokens": [1, 2]}\n' + tail)))
def test_any_bytes_as_json_lines(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("jsonl") / "c.jsonl"
    path.write_bytes(data)
    assert read(path) is None or data.strip()


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
KEYS = st.sampled_from(["model", "corpus", "output", "prompt", "dtype", "models", "seed"]) | st.text(max_size=8)


@fuzz
@given(st.dictionaries(KEYS, SCALARS | st.lists(SCALARS, max_size=3), max_size=6), st.text(max_size=30))
def test_any_configuration(tmp_path, values, tail):
    path = tmp_path / "c.yaml"
    for text in (yaml.safe_dump(values), yaml.safe_dump(values) + tail, tail):
        path.write_text(text, encoding="utf-8", errors="replace")
        try:
            Run.load(path)
        except MemtaxError as error:
            one_line(error)


@fuzz
@given(st.lists(st.text(max_size=300) | st.text("ab 1,\n{}<>", max_size=300) | st.none(), min_size=1, max_size=5))
def test_the_template_filter_takes_any_text_in_bounded_time(texts):
    function = filter_class("templates")()
    # Compiling takes seconds where nothing is compiled yet, minutes on a busy machine.
    function({"sequence_id": [0], "text": ["a 1"]})
    began = time.monotonic()
    columns = function({"sequence_id": list(range(len(texts))), "text": texts})
    assert all(len(values) == len(texts) for values in columns.values())
    assert time.monotonic() - began < 5


@fuzz
@given(st.text(max_size=100))
def test_any_text_in_a_card_has_no_markup_and_no_control_characters(text):
    shown = plain(text)
    assert not set(shown) & {"<", "\n", "\x1b", "\r", "\0"}


@fuzz
@given(st.text(max_size=200) | st.text(max_size=80).map(lambda body: f"---\n{body}\n---\n"))
def test_any_front_matter(text):
    try:
        front, _ = split(text)
    except MemtaxError:
        return
    assert isinstance(front, dict)


@fuzz
@given(st.text(max_size=120))
def test_any_paraphrase_prompt_file(tmp_path, text):
    from memtax.paraphrasing.paraphraser import Paraphraser

    (tmp_path / "prompts.txt").write_text(text, encoding="utf-8", errors="replace")
    try:
        templates = Paraphraser("model", None, mode="beam_single_prompt", prompts=str(tmp_path / "prompts.txt")).templates
    except MemtaxError as error:
        one_line(error)
        return
    assert all("{text}" in template for template in templates)


@fuzz
@given(st.dictionaries(st.sampled_from(["Index", "Tokens", "Score", "sequence_id"]), SCALARS, min_size=1))
def test_any_published_columns(tmp_path_factory, row):
    folder = tmp_path_factory.mktemp("published")
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    try:
        load_published(str(folder / "rows.jsonl"))
    except MemtaxError as error:
        one_line(error)


def test_control_characters_do_not_reach_the_terminal(tmp_path, monkeypatch, capsys):
    import sys

    from memtax import cli

    hostile = "\x1b]0;owned\x07\x1b[2J\u202e"
    (tmp_path / "r.jsonl").write_text(json.dumps({hostile: 1}) + "\n")
    monkeypatch.setattr(sys, "argv", ["memtax", "count", str(tmp_path / "r.jsonl"), "-o", str(tmp_path / "out")])
    with pytest.raises(SystemExit):
        cli.main()
    error = capsys.readouterr().err
    assert not set(error) & {"\x1b", "\x07", "\u202e"}
    assert "owned" in error


def test_a_compressed_bomb_is_one_line_and_little_memory(tmp_path, monkeypatch):
    import gzip

    from memtax.corpus import guard
    from memtax.corpus.membership_texts import load_membership

    monkeypatch.setattr(guard, "LONGEST_LINE", 1 << 20)
    path = tmp_path / "bomb.member.jsonl.gz"
    with gzip.open(path, "wb") as file:
        file.write(b'"' + b"a" * (8 << 20) + b'"')
    (tmp_path / "bomb.nonmember.jsonl").write_text('"text"\n')
    assert path.stat().st_size < 1 << 14
    with pytest.raises(MemtaxError, match=r"line or document of more than 1,048,576 bytes"):
        load_membership(str(tmp_path))
