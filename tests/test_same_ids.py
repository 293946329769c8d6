"""A text is the same ids for every verb: after what its tokenizer puts before it, once, and without end-of-sequence.

What the model is shown is read off its forward pass, whoever calls it.
"""

import importlib.util
import json
import sys
from itertools import pairwise

import datasets
import pytest
from transformers import LlamaModel, Trainer, TrainingArguments

import memtax
from helpers import special_tokens as small
from memtax import MemorizationCallback
from memtax.corpus.sources import Source
from memtax.files import asset
from memtax.jobs.align import Align
from memtax.jobs.influence import Influence
from memtax.jobs.score import Score
from memtax.lm.generation import match_lengths
from memtax.lm.loading import load_model
from memtax.paraphrasing.answers import Generator
from memtax.pipeline.evaluate import evaluate_model
from memtax.report.explorer import Explorer

LENGTH = 12
VOCABULARY = len(small.WORDS)
ROWS = small.rows(12, LENGTH)
TEXTS = [small.words(row) for row in ROWS]


@pytest.fixture
def shown(monkeypatch):
    """Every row of ids that a model's layers are shown, padding included."""
    rows = []
    forward = LlamaModel.forward

    def watched(self, input_ids=None, **options):
        # Probes of an unknown model count upwards: they are not texts.
        rows.extend(row for row in input_ids.tolist() if len({(b - a) % VOCABULARY for a, b in pairwise(row)}) != 1)
        return forward(self, input_ids=input_ids, **options)

    watched.__wrapped__ = forward
    monkeypatch.setattr(LlamaModel, "forward", watched)
    return rows


def check(shown, kind, rows=ROWS):
    """Every text was shown after what its tokenizer adds, and in no other way."""
    opening = [*small.ADDED[kind]]
    for row in rows:
        assert any(seen[: len(opening) + len(row)] == opening + row for seen in shown), (kind, row)
        # Three leading tokens tell the texts apart. A text elsewhere in a row would be one after something else.
        for seen in shown:
            places = [place for place in range(len(seen) - 2) if seen[place : place + 3] == row[:3]]
            assert places in ([], [len(opening)]), (kind, seen)
            assert not places or small.EOS not in seen[: places[0] + len(row) + 1]
    shown.clear()


def write(path, texts=TEXTS, **more):
    path.write_text("".join(json.dumps({"text": text, **more}) + "\n" for text in texts))
    return str(path)


def script(name):
    """A training script as a module; dataclasses look it up by its name."""
    specification = importlib.util.spec_from_file_location(name, asset(f"training/{name}.py"))
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", small.KINDS)
def test_a_text_is_the_same_ids_for_every_verb(kind, tmp_path, shown):
    folder = small.save(kind, tmp_path / "model")
    data = Source.parse(write(tmp_path / "texts.jsonl"))
    common = {"sequences": data.path, "model": folder, "prompt": (6,), "continuation": (6,)}

    result = Score(**common, generate=True, output=tmp_path / "score").run()
    check(shown, kind)
    assert result.figures["bos"] == [*small.ADDED[kind]]
    Score(**common, stride=6, output=tmp_path / "sliding").run()
    check(shown, kind)

    others = write(tmp_path / "others.jsonl", [small.words(row) for row in small.rows(12, LENGTH, seed=9)])
    sources = {"members": data.path, "nonmembers": others}
    found = memtax.mia(model=folder, output=tmp_path / "mia", **sources, attack=["loss"], resamples=10)
    assert found.figures["bos"] == [*small.ADDED[kind]]
    check(shown, kind)

    pairs = tmp_path / "pairs.jsonl"
    lines = [json.dumps({"text": text, "paraphrases": [TEXTS[place - 1]]}) for place, text in enumerate(TEXTS)]
    pairs.write_text("\n".join(lines))
    aligned = Align(pairs=str(pairs), model=folder, output=tmp_path / "align").run()
    assert aligned.figures["bos"] == [*small.ADDED[kind]]
    check(shown, kind)

    both = {"train": data.path, "test": data.path, "method": ("gradient_match", "repsim")}
    assert Influence(**both, model=folder, output=tmp_path / "influence").run().figures["bos"] == [*small.ADDED[kind]]
    check(shown, kind)

    labeled = datasets.Dataset.from_dict({"text": TEXTS, "is_member": [True, False] * 6})
    evaluate_model(folder, labeled, ["membership_inference"], prompt=6, continuation=6)
    check(shown, kind)

    explorer = Explorer(datasets.Dataset.from_dict({"text": []}).data.table, model=folder, prompt=6, continuation=6)
    for text in TEXTS[:3]:
        assert explorer.analyse(text, 1)["tokens"] == ROWS[TEXTS.index(text)]
    check(shown, kind, ROWS[:3])


@pytest.mark.parametrize("kind", ["both", "none"])
def test_rows_of_tokens_that_begin_with_bos_are_their_text(kind, tmp_path, shown):
    folder = small.save(kind, tmp_path / "model")
    opening = [*small.ADDED[kind]]
    for name, rows in (("plain", ROWS), ("opened", [opening + row for row in ROWS])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"tokens": row}) + "\n" for row in rows))
    common = {"model": folder, "prompt": (6,), "continuation": (6,)}
    tables = [
        Score(sequences=str(tmp_path / f"{name}.jsonl"), output=tmp_path / name, **common).run().table()
        for name in ("plain", "opened")
    ]
    assert tables[0] == tables[1]
    check(shown, kind)


@pytest.mark.parametrize("kind", small.KINDS)
def test_training_shows_the_ids_that_are_measured(kind, tmp_path, shown):
    folder = small.save(kind, tmp_path / "model")
    data = write(tmp_path / "texts.jsonl")
    options = {"max_steps": 1, "per_device_train_batch_size": len(ROWS), "report_to": "none", "use_cpu": True}
    options |= {"save_strategy": "no", "disable_tqdm": True}

    finetune = script("finetune_lora")
    arguments = TrainingArguments(str(tmp_path / "adapter"), **options)
    finetune.train(finetune.ModelArguments(folder), finetune.DataArguments(data, max_length=LENGTH), arguments)
    assert json.loads((tmp_path / "adapter" / "training_rows.json").read_text())["bos"] == [*small.ADDED[kind]]
    check(shown, kind)

    train = script("train_lm")
    model = train.ModelArguments(folder, model_name_or_path=folder, context_length=LENGTH)
    settings = train.DataArguments(data, prompt=6, continuation=6)
    train.train(model, settings, TrainingArguments(str(tmp_path / "lm"), **options))
    check(shown, kind)


def test_labels_in_training_are_the_text_alone():
    finetune, train = script("finetune_lora"), script("train_lm")
    rows = [{"input_ids": ROWS[0], "labels": ROWS[0]}]
    assert finetune.after_bos(rows, (0,)) == [{"input_ids": [0, *ROWS[0]], "labels": [-100, *ROWS[0]]}]
    batch = train.collate([{"input_ids": ROWS[0]}, {"input_ids": [0, *ROWS[1][:3]]}], (0,))
    assert batch["input_ids"].tolist() == [[0, *ROWS[0]], [0, *ROWS[1][:3], *[0] * (LENGTH - 3)]]
    assert batch["attention_mask"].sum(1).tolist() == [LENGTH + 1, 4]


@pytest.mark.parametrize("kind", ["both", "none"])
def test_the_callback_measures_after_what_the_trainers_tokenizer_adds(kind, tmp_path, shown):
    model = small.model()
    callback = MemorizationCallback([[*small.ADDED[kind], *row] for row in ROWS], every=1, prompt=6, continuation=6)
    arguments = TrainingArguments(
        str(tmp_path), max_steps=1, learning_rate=0.0, report_to="none", use_cpu=True, save_strategy="no", disable_tqdm=True
    )
    rows = datasets.Dataset.from_list([{"input_ids": [5, 6], "labels": [5, 6]}])
    Trainer(model, arguments, train_dataset=rows, processing_class=small.tokenizer(kind), callbacks=[callback]).train()
    check([seen for seen in shown if len(seen) > 2], kind)
    opened = load_model(small.save(kind, tmp_path / "model"))
    assert callback._lengths[0][1] == match_lengths(opened, ROWS, 6, 6)


def test_an_audit_shows_all_its_models_the_same_ids(tmp_path, shown):
    folder = small.save("both", tmp_path / "model")
    others = write(tmp_path / "others.jsonl", [small.words(row) for row in small.rows(12, LENGTH, seed=9)])
    sources = {"model": folder, "train": write(tmp_path / "texts.jsonl"), "held_out": others}
    done = memtax.audit(**sources, output=tmp_path / "audit", prompt=6, continuation=6, resamples=10)
    found = done.figures
    assert found["bos"] == [small.BOS]
    check(shown, "both")


def test_a_paraphraser_reads_no_end_of_sequence_before_its_answer(tmp_path):
    encoded = Generator(small.save("both", tmp_path), None)._encode(["a b", "a"])
    # Padded on the left, where <unk> is the padding; every prompt after BOS.
    assert encoded["input_ids"].tolist() == [[small.BOS, 3, 4], [2, small.BOS, 3]]
    assert encoded["attention_mask"].tolist() == [[1, 1, 1], [0, 1, 1]]
