"""What is not a fault: huge and ragged rows; names that try to break out; and files that the system refuses."""

import ctypes
import json
import os
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_strict import WORDS, command, lines
from test_strict import given as given

ROOT = Path(__file__).parents[2]
HUGE = 60_000
"""Tokens of the huge row. By hand it was tried with a million tokens and with 50 MB of text."""


@pytest.fixture(scope="module")
def ragged(tmp_path_factory):
    """One huge row among short, empty and usual ones, as tokens and as text."""
    folder = tmp_path_factory.mktemp("ragged")
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, 32, length).tolist() for length in (HUGE, 12, 0, 1, 40, 16, 2, 30, 64, 65, 90, 24, 20)]
    table = [{"tokens": row, "label": number % 2} for number, row in enumerate(rows)]
    lines(folder / "tokens.jsonl", table)
    lines(folder / "texts.jsonl", ({"text": " ".join(WORDS[t] for t in row), "label": n % 2} for n, row in enumerate(rows)))
    return folder, rows


def test_a_huge_row_is_counted(ragged, given, tmp_path, monkeypatch, capsys):
    folder, rows = ragged
    for source, more in (("tokens.jsonl", ()), ("texts.jsonl", ("--tokenizer", given / "model"))):
        out = tmp_path / source
        assert command(monkeypatch, capsys, "count", folder / source, "--window", "0:3", *more, "-o", out)[0] == 0
        found = pq.read_table(out / "dataset" / "num_duplicates" / "train.parquet").to_pylist()
        # By hand: how often the first three tokens of each row of three or more stand anywhere.
        windows = [tuple(row[i : i + 3]) for row in rows for i in range(len(row) - 2)]
        assert [each["sequence_duplicates"] for each in found] == [
            windows.count(tuple(row[:3])) for row in rows if len(row) > 2
        ]


def test_a_huge_row_is_scored_like_its_beginning(ragged, given, tmp_path, monkeypatch, capsys):
    folder, rows = ragged
    lines(tmp_path / "short.jsonl", [{"tokens": row[:8]} for row in rows])
    options = ("--model", given / "model", "--prompt", 4, "--continuation", 4)
    for source, name in ((folder / "tokens.jsonl", "huge"), (tmp_path / "short.jsonl", "short")):
        code, said = command(monkeypatch, capsys, "score", source, *options, "-o", tmp_path / name)
        # Shorter than 8: those of 0, 1 and 2 tokens.
        assert (code, "3 rows are left out" in said) == (0, True), said
    huge, short = (pq.read_table(tmp_path / name / "dataset" / "scores" / "train.parquet") for name in ("huge", "short"))
    assert huge.column("continuation_perplexity").null_count == 3
    assert huge.equals(short)


def test_a_huge_row_goes_through_filters_and_attacks(ragged, given, tmp_path, monkeypatch, capsys):
    folder, rows = ragged
    names = ("templates", "compressibility")
    assert command(monkeypatch, capsys, "filter", *names, folder / "texts.jsonl", "-o", tmp_path / "f")[0] == 0
    found = pq.read_table(tmp_path / "f" / "dataset" / "features" / "train.parquet")
    assert found.num_rows == len(rows)
    assert found.column("shannon_coding_length")[0].as_py() > 1
    options = ("--model", given / "model", "--attack", "loss", "--attack", "min_k", "--resamples", 5)
    code, said = command(monkeypatch, capsys, "mia", folder / "tokens.jsonl", *options, "-o", tmp_path / "m")
    # Without a token after the first: those of 0 and 1.
    assert (code, "2 rows are left out" in said) == (0, True), said
    scores = pq.read_table(tmp_path / "m" / "dataset" / "scores" / "train.parquet").column("attack_loss").to_pylist()
    assert [score is None for score in scores] == [len(row) < 2 for row in rows]


HOSTILE = "../../../x\x1b]0;owned\x07\x1b[31m<script>alert(1)</script>"


def test_names_in_the_data_stay_in_the_output_and_out_of_the_terminal(given, tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 400))
    columns = {HOSTILE: [None, *a[1:]], "b": b, "sequence_id": np.arange(400), "taxonomy": rng.integers(0, 3, 400)}
    pq.write_table(pa.table({**columns, "is_memorized": rng.random(400) < 1 / (1 + np.exp(1 - a + b))}), tmp_path / "t.parquet")
    texts = [" ".join(rng.choice(WORDS[1:], 12)) for _ in range(24)]
    lines(tmp_path / "mia.jsonl", ({"text": text, "label": i % 2, "domain": HOSTILE} for i, text in enumerate(texts)))
    lines(tmp_path / "texts.jsonl", ({"text": text, "domain": HOSTILE, "topic": HOSTILE} for text in texts[:8]))
    model, inner = ("--model", given / "model"), tmp_path / "a" / "b" / "c"
    before = set(tmp_path.rglob("*"))
    for name, words in {
        "fit": ("fit", tmp_path / "t.parquet", "--factors", f"{HOSTILE}:linear,b:linear", "--resamples", 5, "--no-explain"),
        "mia": ("mia", tmp_path / "mia.jsonl", *model, "--attack", "loss", "--resamples", 5),
        "paraphrase": ("paraphrase", tmp_path / "texts.jsonl", *model, "--count", 1),
        "influence": ("influence", *[tmp_path / "texts.jsonl"] * 2, *model, "--class-column", "topic", "--parameters", "head"),
    }.items():
        monkeypatch.setattr(sys, "argv", ["memtax", *map(str, words), "-o", str(inner / name)])
        from memtax import cli

        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        assert not ended.value.code, captured.err
        assert not set(captured.out + captured.err) & {"\x1b", "\x07"}, name
        assert HOSTILE not in "".join(path.read_text() for path in (inner / name).rglob("*.html"))
    made = set(tmp_path.rglob("*")) - before
    assert all(path == inner or inner in path.parents or path in inner.parents for path in made)
    assert not any("script" in path.name or "owned" in path.name for path in made)


def test_a_file_without_permission_is_one_line(given, tmp_path):
    rows = tmp_path / "shards"
    rows.mkdir()
    for number in range(2):
        pq.write_table(pa.table({"tokens": [[1, 2, 3, 4]] * 9}), rows / f"{number}.parquet")
    (rows / "1.parquet").chmod(0)
    lines(tmp_path / "r.jsonl", [{"text": "w1 w2", "label": 0}]).chmod(0)
    model = ("--model", given / "model")
    cases = (
        ("count", rows, "--no-windows"),
        ("score", rows, *model, "--prompt", 1, "--continuation", 1),
        ("mia", tmp_path / "r.jsonl", *model),
        ("filter", "templates", tmp_path / "r.jsonl"),
    )
    reader, writer = os.pipe()
    if not (child := os.fork()):
        os.close(reader)
        os.write(writer, json.dumps(_without_the_rights_of_root(cases, tmp_path / "out")).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        found = json.loads(pipe.read() or "[]")
    os.waitpid(child, 0)
    assert len(found) == len(cases)
    for (verb, *_), (code, said) in zip(cases, found, strict=True):
        assert code == 2, (verb, said)
        assert len([line for line in said.splitlines() if line.startswith("memtax: ")]) == 1, said
        assert "ermission denied" in said, said
        assert ("1.parquet" if verb in ("count", "score") else "r.jsonl") in said, said


def _without_the_rights_of_root(cases, out):
    """In a child: root reads everything, unless it gives its capabilities up."""
    import contextlib
    import io

    from memtax import cli

    if os.geteuid() == 0:
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        assert ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()) == 0
    pa.set_cpu_count(1)
    found = []
    for number, words in enumerate(cases):
        sys.argv = ["memtax", "--quiet", *map(str, words), "-o", str(out / str(number))]
        error = io.StringIO()
        with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
            try:
                cli.main()
                code = 0
            except SystemExit as ended:
                code = ended.code or 0
            except BaseException as wrong:
                code = repr(wrong)
        found.append((code, error.getvalue()))
    return found
