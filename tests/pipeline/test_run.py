import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers.processes import torchrun
from memtax.errors import StaleOutputError
from memtax.jobs.run import Run
from memtax.results import read_summary
from memtax.schema import CATEGORIES, COLUMNS

MODULES = 189
"""Modules of memtax that a run with a control and checkpoints imports up to its report; an import without need fails here."""
COUNTED = """
import sys
from memtax.cli import main
try:
    main()
finally:
    print(f"{sum(name.split('.')[0] == 'memtax' for name in sys.modules)} modules of memtax")
"""


def features(output):
    return pq.read_table(Path(output) / "dataset" / "features" / "train.parquet")


def windows_of(path, tokenizer):
    """The sequences and documents that the run should have used, cut again by hand."""
    documents = [tokenizer(json.loads(line)["text"])["input_ids"] for line in path.read_text().splitlines()]
    return documents, [ids[i : i + 16] for ids in documents for i in range(0, len(ids) - 15, 16)]


@pytest.fixture(scope="module")
def tokenizer(material):
    return AutoTokenizer.from_pretrained(material / "tokenizer")


def test_sequences_are_the_windows_of_the_documents(finished, material, tokenizer):
    table = features(finished.output)
    _, windows = windows_of(material / "docs.jsonl", tokenizer)
    assert table.column("tokens").to_pylist() == windows
    assert table.column("text").to_pylist() == tokenizer.batch_decode(windows)
    texts = zip(table.column("token_texts").to_pylist(), windows, strict=True)
    assert all(pieces == [tokenizer.decode([token]) for token in window] for pieces, window in texts)


def test_counts_agree_with_counting_by_hand(finished, material, tokenizer):
    documents, windows = windows_of(material / "docs.jsonl", tokenizer)
    occurrences = {}
    frequencies = np.zeros(len(tokenizer), np.int64)
    for ids in documents:
        for token in ids:
            frequencies[token] += 1
        for start in range(len(ids) - 7):
            key = tuple(ids[start : start + 8])
            occurrences[key] = occurrences.get(key, 0) + 1
    table = features(finished.output)
    assert table.column("sequence_duplicates").to_pylist() == [occurrences[tuple(window[8:])] for window in windows]
    for name, function in (("max", np.max), ("avg", np.mean), ("min", np.min), ("median", np.median)):
        assert table.column(f"{name}_frequency").to_pylist() == [function(frequencies[window]) for window in windows]
    counted = pq.read_table(finished.output / "dataset" / "token_frequencies" / "train.parquet")
    assert counted.column("token_frequency").to_pylist() == frequencies.tolist()
    assert finished.figures["run"]["tokens"] == sum(map(len, documents))


def test_scores_agree_with_plain_transformers(finished, material):
    model = AutoModelForCausalLM.from_pretrained(material / "model").double().eval()
    table = features(finished.output)
    tokens = torch.tensor(table.column("tokens").to_pylist())
    with torch.no_grad():
        losses = [model(input_ids=row[None], labels=row[None]).loss.item() for row in tokens]
        logits = model(input_ids=tokens).logits
        generated = model.generate(tokens[:, :8], max_new_tokens=8, min_new_tokens=8, do_sample=False, eos_token_id=None)
    logprobs = logits.log_softmax(-1)[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
    perplexities = np.array(table.column("sequence_perplexity").to_pylist())
    np.testing.assert_allclose(perplexities, np.exp(losses), rtol=1e-4)
    # The continuation is tokens 8..15: entries 7..14 of the log-probabilities of tokens 1..15.
    expected = logprobs[:, 7:].mean(1).neg().exp().numpy()
    np.testing.assert_allclose(table.column("continuation_perplexity").to_pylist(), expected, rtol=1e-4)
    memorized = (generated[:, 8:] == tokens[:, 8:]).all(1).tolist()
    assert table.column("is_memorized").to_pylist() == memorized
    # The model was trained on the first window of every document: both outcomes occur.
    assert 0 < sum(memorized) < len(memorized)


def test_taxonomy_follows_its_rules_row_by_row(finished):
    for row in features(finished.output).to_pylist():
        expected = 0 if row["sequence_duplicates"] > 5 else 1 if row["is_incrementing"] or row["is_repeating"] else 2
        assert row["taxonomy"] == expected


def test_metrics_are_sums_over_the_dataset(finished):
    rows = features(finished.output).to_pylist()
    for index, name in enumerate(CATEGORIES):
        mine = [row["is_memorized"] for row in rows if row["taxonomy"] == index]
        found = finished.figures["extraction"][name]
        assert (found["sequences"], found["memorized"]) == (len(mine), sum(mine))
    checkpoints = pq.read_table(finished.output / "dataset" / "checkpoints" / "train.parquet").to_pylist()
    for entry in finished.figures["growth"]:
        mine = [
            row["is_memorized"]
            for row in checkpoints
            if row["checkpoint"] == entry["checkpoint"] and entry["category"] in ("all", CATEGORIES[row["taxonomy"]])
        ]
        assert (entry["sequences"], entry["memorized"]) == (len(mine), sum(mine))
    assert [entry["step"] for entry in finished.figures["growth"] if entry["category"] == "all"] == [20, 40, 60]
    assert read_summary(finished.output, "run") == finished.figures


def test_held_out_sequences_are_scored_but_not_members(finished, material, tokenizer):
    _, held_out = windows_of(material / "held_out.jsonl", tokenizer)
    rows = pq.read_table(finished.output / "dataset" / "membership" / "train.parquet").to_pylist()
    assert sum(not row["is_member"] for row in rows) == len(held_out)
    assert len({row["sequence_id"] for row in rows}) == len(rows)
    assert finished.figures["extraction"]["held_out"]["sequences"] == len(held_out)
    assert features(finished.output).num_rows == sum(row["is_member"] for row in rows)


def test_the_dataset_folder_loads_offline_with_class_names(finished, tmp_path, monkeypatch):
    from datasets import load_dataset

    for config in ("features", "token_frequencies", "num_duplicates", "membership", "checkpoints"):
        loaded = load_dataset(str(finished.output / "dataset"), config, split="train", cache_dir=str(tmp_path))
        assert loaded.num_rows > 0
    loaded = load_dataset(str(finished.output / "dataset"), "features", split="train", cache_dir=str(tmp_path))
    assert loaded.features["taxonomy"].names == list(CATEGORIES)


def test_the_card_explains_every_column(finished):
    card = (finished.output / "dataset" / "README.md").read_text()
    _, front_matter, body = card.split("---\n", 2)
    assert next(config["config_name"] for config in yaml.safe_load(front_matter)["configs"]) == "features"
    for name in features(finished.output).column_names:
        lines = [line for line in body.splitlines() if line.startswith(f"| `{name}` |")]
        assert lines, name
        assert COLUMNS[name].unit.split("/")[0] in lines[0]
    assert "<b>" not in body


def test_what_was_not_given_has_no_section(finished):
    assert 'id="alignment"' not in finished.page.read_text()


def test_no_card_of_the_run_has_a_placeholder(finished):
    cards = sorted(path.relative_to(finished.output).as_posix() for path in finished.output.rglob("README.md"))
    assert {"dataset/README.md", "models/predictor/README.md"} <= set(cards)
    for card in cards:
        text = (finished.output / card).read_text()
        assert f'"{(finished.output / card).parent}"' in text
        assert not [word for word in ("path/or/name", "org/name", "{{", "TODO", "More Information", ".tmp") if word in text]


def test_a_second_run_computes_nothing_again(finished, config):
    def stamps():
        files = [
            path
            for stage in ("sequences", "counts", "filters", "scores", "models")
            for path in (finished.output / stage).rglob("*")
            if path.is_file()
        ]
        return {path: path.stat().st_mtime_ns for path in files}

    before = stamps()
    again = config.run()
    assert stamps() == before
    first, second = dict(finished.figures), dict(again.figures)
    assert first.pop("run").keys() == second.pop("run").keys()
    assert first == second


def test_another_configuration_in_the_same_directory_is_refused(finished, config):
    with pytest.raises(StaleOutputError, match="window"):
        dataclasses.replace(config, continuation=4).run()


def test_a_run_replays_from_its_record(finished, config):
    assert Run.load(finished.output / "run.yaml") == config


def test_two_processes_give_the_bytes_of_one(finished, config, material, tmp_path):
    values = {**config.to_dict(), "output": str(tmp_path / "two")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    done = torchrun("-c", COUNTED, "run", tmp_path / "config.yaml", timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    # The main process writes the report as well.
    assert max(map(int, re.findall(r"(\d+) modules of memtax", done.stdout))) <= MODULES
    parquet = sorted(path.relative_to(finished.output) for path in finished.output.rglob("*.parquet"))
    assert parquet == sorted(path.relative_to(tmp_path / "two") for path in (tmp_path / "two").rglob("*.parquet"))
    for path in parquet:
        assert (finished.output / path).read_bytes() == (tmp_path / "two" / path).read_bytes(), path


def test_the_training_script_watches_memorization_grow(material):
    watched = json.loads((material / "watched.json").read_text())
    assert watched[-1]["memorized"] > watched[0]["memorized"]
    assert all(row["sequences"] == 48 for row in watched)
    assert not list(material.rglob("training_args.bin"))
