"""`memtax score` as people call it: every column, a kill in the middle, two processes, and what goes wrong."""

import json
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig

from helpers.processes import python, start, torchrun
from memtax import schema
from memtax.results import read_summary

ROOT = Path(__file__).parent.parent
SIZE = 211


def make(folder, seed, **changes):
    torch.manual_seed(seed)
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256, **changes}
    model = AutoModelForCausalLM.from_config(
        GPTNeoXConfig(vocab_size=SIZE, max_position_embeddings=48, initializer_range=0.2, eos_token_id=0, **shape)
    )
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Two models, and 2,400 rows: some follow the first model's greedy choice, some are short, one is empty."""
    folder = tmp_path_factory.mktemp("work")
    model = make(folder / "model", 0)
    make(folder / "reference", 1)
    tokens = torch.randint(SIZE, (2400, 32), generator=torch.Generator().manual_seed(3))
    tokens[::40] = model.generate(
        tokens[::40, :16],
        attention_mask=torch.ones(60, 16, dtype=torch.long),
        max_new_tokens=16,
        do_sample=False,
        min_new_tokens=16,
        pad_token_id=0,
    )
    rows = [row[: 3 + i % 29] if i % 10 == 1 else row for i, row in enumerate(tokens.tolist())]
    rows[7] = []
    lines = (json.dumps({"sequence_id": 5 * i, "tokens": row}) for i, row in enumerate(rows))
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def command(work, output, *options):
    common = ["--model", str(work / "model"), "--output", str(output), "--prompt", "16", "--continuation", "16"]
    return ["-m", "memtax", "score", str(work / "rows.jsonl"), *common, *options]


def call(*arguments, launch=python):
    done = launch(*command(*arguments), timeout=180)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def parts(output):
    return {str(path.relative_to(output)): path.read_bytes() for path in sorted(output.rglob("*.parquet"))}


@pytest.fixture(scope="module")
def whole(work):
    output = work / "whole"
    return output, call(work, output, "--reference-model", str(work / "reference"), "--prompt", "8", "--probability", "0.5")


def test_table_summary_and_what_is_printed(work, whole):
    output, said = whole
    table = pq.read_table(output / "dataset/scores/train.parquet")
    rows = [json.loads(line) for line in (work / "rows.jsonl").read_text().splitlines()]
    assert table.column("sequence_id").to_pylist() == [row["sequence_id"] for row in rows]
    assert all(schema.column(name) for name in table.column_names)
    assert {"is_memorized_8_16", "extraction_queries", "is_memorized_by_reference"} <= set(table.column_names)
    memorized = table.column("is_memorized").to_pylist()
    short = [row for row, value in enumerate(rows) if len(value["tokens"]) < 32]
    assert [row for row, value in enumerate(memorized) if value is None] == short
    # Every 40th row was generated greedily with end-of-sequence suppressed: memorized, but for those where it came first.
    assert 40 < sum(memorized[::40]) < 60
    summary = read_summary(output, "score")
    first, second = summary["extraction"]
    assert first["memorized"] == sum(bool(value) for value in memorized)
    assert (second["prompt"], second["continuation"], second["sequences"]) == (8, 16, sum(len(r["tokens"]) >= 24 for r in rows))
    assert summary["nulls"]["is_memorized"] == {"rows": len(short), "reason": schema.column("is_memorized").null}
    assert summary["reference"]["model_memorized"] == first["memorized"]
    assert [row["samples"] for row in summary["discoverable"]][:4] == [1, 1, 1, 1]
    assert f"prompt 16, continuation 16: {first['memorized']} of {first['sequences']:,} memorized" in said
    assert str(output / "dataset") in said


def run_here(monkeypatch, arguments):
    """The command in this process: its exit status."""
    from memtax.cli import main

    monkeypatch.setattr(sys, "argv", ["memtax", *arguments[2:]])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code


def test_exact_only_finds_the_same(work, whole, monkeypatch):
    output = work / "exact"
    assert run_here(monkeypatch, command(work, output, "--exact-only")) == 0
    found, expected = (pq.read_table(path / "dataset/scores/train.parquet") for path in (output, whole[0]))
    assert found.column_names == ["sequence_id", "is_memorized", "match_length"]
    assert found.select(["is_memorized", "match_length"]) == expected.select(["is_memorized", "match_length"])


def test_pythias_own_rule_for_end_of_sequence(work, monkeypatch, tmp_path):
    assert run_here(monkeypatch, command(work, tmp_path / "out", "--reference-eos", "--generate")) == 0
    table = pq.read_table(tmp_path / "out" / "dataset/scores/train.parquet")
    assert all(table.column("is_memorized").to_pylist()[::40])
    scores = table.column("memorization_score").to_pylist()
    assert [value == 1 if value is not None else None for value in scores] == table.column("is_memorized").to_pylist()


def test_two_processes_write_the_bytes_of_one(work, whole):
    output = work / "two"
    options = ["--reference-model", str(work / "reference"), "--prompt", "8", "--probability", "0.5"]
    said = call(work, output, *options, launch=torchrun)
    assert parts(output) == parts(whole[0])
    assert len(parts(output)) > 8  # several parts each for the two processes, of both models
    assert said.count("two/dataset") == 1  # one process speaks


def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(work, whole):
    output = work / "killed"
    options = ["--reference-model", str(work / "reference"), "--prompt", "8", "--probability", "0.5"]
    process = start(*command(work, output, *options))
    deadline = time.monotonic() + 120
    while not list(output.glob("parts/part-*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in output.glob("parts/part-*.parquet")}
    assert done
    assert not (output / "dataset/scores/train.parquet").exists()
    call(work, output, *options)
    assert {path: path.stat().st_mtime_ns for path in done} == done  # what was finished is kept
    assert parts(output) == parts(whole[0])


def test_other_settings_in_the_same_directory_are_refused(work, whole, monkeypatch, capsys):
    assert run_here(monkeypatch, command(work, whole[0], "--moments")) == 2
    assert "has results of another run (changed: function)" in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "/no/such/model"], "/no/such/model does not exist"),
        (["--prompt", "0"], "prompt must be at least 1 token, got 0"),
        (["--batch-size", "many"], "invalid value for '--batch-size'"),
        (["--batch-size", "0"], "--batch-size is 0; it must be at least 1"),
        (["--probability", "1.5"], "probability=1.5"),
        (["--top-p", "0"], "top_p=0.0"),
        (["--exact-only", "--moments"], "exact_only computes only is_memorized and match_length"),
        (["--column", "text"], "no column 'text'"),
        (["--quantization", "8bit"], "needs bitsandbytes"),
        (["--prompt", "40"], "sequences of 56 tokens are longer than the 48 positions"),
    ],
)
def test_what_cannot_work_is_one_line(work, tmp_path, options, message, monkeypatch, capsys):
    status = run_here(monkeypatch, command(work, tmp_path / "out", *options))
    error = capsys.readouterr().err.strip().splitlines()
    assert status == 2
    assert message in error[-1]
    assert error[-1].startswith("memtax: ")
    assert not (tmp_path / "out" / "dataset/scores/train.parquet").exists()


def test_a_megatron_file_is_read_as_it_is(work, whole, monkeypatch, tmp_path):
    import numpy as np

    rows = [json.loads(line)["tokens"] for line in (work / "rows.jsonl").read_text().splitlines()[:50]]
    np.array([token for row in rows for token in row], np.uint16).tofile(tmp_path / "corpus.bin")
    sizes = np.array([len(row) for row in rows], np.int32)
    pointers = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64) * 2
    header = b"MMIDIDX\x00\x00" + (1).to_bytes(8, "little") + bytes([8])  # version 1, code 8: uint16
    counts = len(rows).to_bytes(8, "little") + (len(rows) + 1).to_bytes(8, "little")
    documents = np.arange(len(rows) + 1, dtype=np.int64)
    (tmp_path / "corpus.idx").write_bytes(header + counts + sizes.tobytes() + pointers.tobytes() + documents.tobytes())
    arguments = command(work, tmp_path / "out", "--exact-only")
    arguments[arguments.index(str(work / "rows.jsonl"))] = str(tmp_path / "corpus.bin")
    assert run_here(monkeypatch, arguments) == 0
    found = pq.read_table(tmp_path / "out" / "dataset/scores/train.parquet")
    assert found.column("sequence_id").to_pylist() == list(range(50))
    expected = pq.read_table(whole[0] / "dataset/scores/train.parquet").slice(0, 50)
    assert found.column("match_length").to_pylist() == expected.column("match_length").to_pylist()


def test_rows_that_are_all_too_short_are_not_a_share_of_zero(work, tmp_path, monkeypatch, capsys):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"sequence_id": 1, "tokens": [1, 2, 3]}) + "\n")
    arguments = command(work, tmp_path / "out")
    arguments[3] = str(tmp_path / "rows.jsonl")
    run_here(monkeypatch, arguments)
    told = capsys.readouterr().out
    assert "prompt 16, continuation 16: not measured" in told
    assert "0 of 0" not in told


def test_text_rows_take_the_models_tokenizer(work, tmp_path, monkeypatch, capsys):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from memtax.cli import main

    words = [f"w{i}" for i in range(300)]  # more than the model has ids for
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path / "tokenizer")
    texts = tmp_path / "texts.jsonl"

    def score(text, output):
        texts.write_text(json.dumps({"text": "w5 w6"}) + "\n" + json.dumps({"text": text}) + "\n")
        options = [
            "--tokenizer",
            str(tmp_path / "tokenizer"),
            "--model",
            str(work / "model"),
            "--output",
            str(tmp_path / output),
        ]
        monkeypatch.setattr(sys, "argv", ["memtax", "score", str(texts), *options, "--prompt", "4", "--continuation", "4"])
        main()

    with pytest.raises(SystemExit) as stop:
        score(" ".join(words[10:30]), "known")
    assert stop.value.code == 0
    assert pq.read_table(tmp_path / "known" / "dataset/scores/train.parquet").column("match_length")[1].as_py() is not None
    with pytest.raises(SystemExit) as stop:
        score("w1 w2 w3 w250 w4 w5 w6 w7", "unknown")
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert f"token id 250 in row 1 of {texts}" in error
    assert f"is outside the model's vocabulary of {SIZE}; were the sequences made with another tokenizer?" in error
