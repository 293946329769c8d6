"""Sliding windows: coverage and heat map by hand, the block bootstrap, and a whole command on a text with a known stretch."""

import json
import math
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.models import build
from helpers.processes import python
from memtax.errors import MemtaxError
from memtax.lm import windows
from memtax.results import read_summary
from memtax.statistics.block_bootstrap import block_bootstrap_mean

PROMPT, CONTINUATION = 6, 4


def test_windows_start_every_stride_while_a_whole_one_fits():
    assert windows.starts(10, 4, 3).tolist() == [0, 3, 6]
    assert windows.starts(9, 4, 3).tolist() == [0, 3]
    assert windows.starts(4, 4, 3).tolist() == [0]
    assert windows.starts(3, 4, 3).tolist() == []
    with pytest.raises(MemtaxError, match="stride=0"):
        windows.starts(10, 4, 0)


def test_a_token_has_the_likeliest_suffix_that_holds_it():
    # Prefix 2, suffix 3, windows at 0, 2 and 4 of 10 tokens: suffixes 2..4, 4..6 and 6..8.
    found = windows.token_logprobs(10, np.array([0, 2, 4]), np.array([-1.0, -5.0, -3.0]), 2, 3)
    np.testing.assert_array_equal(found, [np.nan, np.nan, -1, -1, -1, -5, -3, -3, -3, np.nan])
    assert windows.heat(found, 5) == [None, -1.0, -1.0, -3.0, -3.0]
    assert windows.heat(np.array([-np.inf, -1.0]), 2) == [-700.0, -1.0]  # JSON has no infinity


def test_shares_and_coverage_by_hand():
    # Two texts. Suffixes of 3 tokens with p_z of 0.6, 0.05 | 0.2; stride 4, so that no suffixes overlap.
    texts = [
        (9, np.array([0, 4]), np.log([0.6, 0.05])),
        (5, np.array([0]), np.log([0.2])),
    ]
    rows = {row["threshold"]: row for row in windows.measure(texts, 2, 3, 4)}
    expected = {0.5: 1 / 3, 0.1: 2 / 3, 0.01: 1.0, 0.001: 1.0}  # of three windows, and of nine tokens: 3, 6, 9
    for threshold, share in expected.items():
        assert rows[threshold]["share"]["value"] == rows[threshold]["coverage"]["value"] == pytest.approx(share)
        assert rows[threshold]["windows"] == 3
        assert rows[threshold]["tokens"] == 9
        for name in ("share", "coverage"):
            assert rows[threshold][name]["low"] <= share + 1e-9 >= rows[threshold][name]["low"]
            assert rows[threshold][name]["high"] >= share - 1e-9
    assert windows.measure([], 2, 3, 4) == []


def test_only_windows_beyond_all_of_the_matched_texts_count():
    # Prefix 1, suffix 2, windows every 3 tokens of 9: suffixes 1..2, 4..5 and 7..8, of which the second ties with the matched.
    text = (9, np.array([0, 3, 6]), np.array([-1.0, -2.0, -3.0]))
    matched = [(3, np.array([0]), np.array([-7.0])), (6, np.array([0, 3]), np.array([-9.0, -2.0]))]
    found = windows.census([text], matched, 1, 2, 3)
    assert (found["log_threshold"], found["largest"]) == (-2.0, [-7.0, -2.0])
    assert (found["share"]["value"], found["windows"]) == (pytest.approx(1 / 3), 3)
    assert (found["coverage"]["value"], found["tokens"]) == (pytest.approx(2 / 6), 6)
    # The matched texts themselves never count.
    assert windows.census(matched, matched, 1, 2, 3)["share"]["value"] == 0
    # Under top-k sampling a text may be impossible: then whatever is possible counts, and JSON has a null.
    impossible = [(3, np.array([0]), np.array([-np.inf]))]
    found = windows.census([text, *impossible], impossible, 1, 2, 3)
    assert (found["log_threshold"], found["largest"], found["share"]["value"]) == (None, [None], 0.75)


def test_blocks_cover_what_independent_draws_would_not():
    # A series in runs of 20 equal values with true mean 1/2. Single draws take its 400 values for independent: an interval of
    # about 2 * 1.96 * sqrt(0.25 / 400) = 0.098; the 20 runs that are really independent give sqrt(20) = 4.5 times that.
    rng = np.random.default_rng(0)
    hits = narrow = 0
    for trial in range(60):
        series = np.repeat(rng.integers(0, 2, 20), 20)
        if series.min() == series.max():
            continue
        interval = block_bootstrap_mean(series, 40, resamples=200, seed=trial)
        single = block_bootstrap_mean(series, 1, resamples=200, seed=trial)
        hits += interval.low <= 0.5 <= interval.high
        narrow += single.low <= 0.5 <= single.high
        assert single.high - single.low < 0.13 < interval.high - interval.low
    assert hits >= 48  # of 60; percentile intervals of few blocks fall a little short of 95%
    assert narrow < 40


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=40), st.integers(1, 60), st.integers(0, 1000))
def test_the_interval_lies_within_the_series(values, block, seed):
    interval = block_bootstrap_mean(values, block, resamples=50, seed=seed)
    assert interval.value == pytest.approx(np.mean(values), abs=1e-9)
    assert min(values) - 1e-9 <= interval.low <= interval.high <= max(values) + 1e-9
    if block >= len(values):  # every block is the whole circle
        assert interval.low == pytest.approx(interval.high, abs=1e-9)


def test_an_empty_series_is_an_error():
    with pytest.raises(MemtaxError, match="of 0 values"):
        block_bootstrap_mean([], 3)


def test_the_command_finds_the_stretch_that_was_learned(tmp_path, monkeypatch, capsys):
    from memtax.cli import main

    model = build("gpt_neox", hidden_size=64, initializer_range=0.05)
    known = torch.randint(101, (1, 60), generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for begin in [0, 10, 20, 30, 40] * 60:  # the model sees windows of 20 tokens of the stretch
        model(input_ids=known[:, begin : begin + 20], labels=known[:, begin : begin + 20]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(tmp_path / "model")
    other = torch.randint(101, (2, 120), generator=torch.Generator().manual_seed(2)).tolist()
    text = other[0] + known[0].tolist() + other[1]
    rows = [{"sequence_id": 4, "tokens": text}, {"sequence_id": 9, "tokens": other[0][:9]}]
    (tmp_path / "text.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (tmp_path / "matched.jsonl").write_text(json.dumps({"tokens": other[1]}) + "\n")
    options = [
        "--matched",
        str(tmp_path / "matched.jsonl"),
        "--prompt",
        str(PROMPT),
        "--continuation",
        str(CONTINUATION),
        "--stride",
        "5",
        "--output",
        str(tmp_path / "out"),
    ]
    monkeypatch.setattr(
        sys, "argv", ["memtax", "score", str(tmp_path / "text.jsonl"), "--model", str(tmp_path / "model"), *options]
    )
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0

    table = pq.read_table(tmp_path / "out" / "dataset" / "windows" / "train.parquet")
    begins = table.column("window_start").to_pylist()
    assert begins == list(range(0, 300 - 10 + 1, 5))
    assert set(table.column("text_id").to_pylist()) == {4}
    for begin, logprob in zip(begins, table.column("continuation_logprob").to_pylist(), strict=True):
        window = torch.tensor([text[begin : begin + 10]])
        with torch.no_grad():
            logp = model(input_ids=window).logits[0, :-1].double().log_softmax(-1)
        expected = logp.gather(-1, window[0, 1:, None])[PROMPT - 1 :].sum().item()
        assert logprob == pytest.approx(expected, abs=1e-4)

    sliding = read_summary(tmp_path / "out", "score")
    assert sliding["too_short"] == 1
    logprobs = table.column("continuation_logprob").to_pylist()
    for row in sliding["thresholds"]:
        assert row["share"]["value"] == pytest.approx(np.mean([value >= math.log(row["threshold"]) for value in logprobs]))
    # The matched text is the last part of the text; its own windows give the threshold, and those of the stretch lie above.
    census = sliding["census"]
    own = [value for begin, value in zip(begins, logprobs, strict=True) if begin >= 180]
    assert census["log_threshold"] == pytest.approx(max(own), abs=1e-4)
    assert census["share"]["value"] == pytest.approx(np.mean([value > max(own) + 1e-4 for value in logprobs]), abs=1e-9)
    # The stretch is tokens 120..179 of 300, bins 80..119 of 200: it stands out there and nowhere else.
    heat = sliding["texts"][0]["heat"]
    likely = [place for place, value in enumerate(heat) if value is not None and value > math.log(0.1)]
    assert likely
    assert set(likely) <= set(range(79, 121))
    page = (tmp_path / "out" / "index.html").read_text()
    assert "Where it is memorized" in page
    # The heat map is an image within the drawing; the page's policy lets it be seen.
    assert "data:image/png" in page
    assert " img-src data:;" in page
    assert "1 text is shorter than one window" in page
    assert "Beyond matched texts" in page
    said = capsys.readouterr().out
    assert "of the windows" in said
    assert "than every window of 1 matched text, the likeliest" in said


def test_a_stride_excludes_what_it_cannot_do(tmp_path):
    done = python("-m", "memtax", "score", "x", "--model", "m", "--stride", 5, "--output", tmp_path, "--exact-only")
    assert done.returncode == 2
    assert "--stride takes one prompt and one continuation length" in done.stderr
