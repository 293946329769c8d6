"""Canaries in TRL's SFTTrainer are trained on as recorded, or refused before training."""

import json
import re
import sys
import types
from pathlib import Path

import datasets
import pytest

import memtax
from helpers import special_tokens as small
from memtax.corpus.conversations import Shape, encode_rows
from memtax.errors import MemtaxError

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] + ' ' + m['content'] + ' </s> ' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)


def chat():
    made = small.tokenizer("none")
    made.chat_template = TEMPLATE
    return made


def rows():
    texts = [small.words(row) for row in small.rows(12, 8)]
    return datasets.Dataset.from_list(
        [{"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text}]} for text in texts]
    )


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({}, None),
        ({"packing": True, "packing_strategy": "bfd", "max_length": 48}, None),
        ({"packing": True, "packing_strategy": "wrapped", "max_length": 29}, "split"),
        ({"max_length": 12}, "max_length=12"),
        ({"max_steps": 1}, "max_steps=1"),
    ],
)
def test_a_canary_is_trained_on_or_refused(options, refused, tmp_path):
    trl = pytest.importorskip("trl")
    planted = memtax.canaries.plant(rows(), chat(), tmp_path / "record", canaries=10, tokens=8, held_out=4, seed=3)
    common = {"use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no"}
    arguments = trl.SFTConfig(str(tmp_path / "out"), **common, **options)
    trainer = trl.SFTTrainer(small.model(), args=arguments, train_dataset=planted, processing_class=chat())
    if refused is None:
        assert memtax.canaries.check(trainer)["planted"] == len(planted) - 12
    else:
        with pytest.raises(MemtaxError, match=refused):
            memtax.canaries.check(trainer)


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        ({"role": "user", "content": "a"}, "no assistant turn"),
        ({"role": "assistant", "content": " "}, "empty answer"),
        ({"role": "assistant", "content": [{"type": "image", "text": None}]}, "other than text"),
        ({"role": "tool", "content": "a"}, "tool call"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(turn, said):
    with pytest.raises(MemtaxError, match=f"row 3 of data.*{said}|{said}.*row 3 of data"):
        encode_rows(chat(), [{"messages": [{"role": "user", "content": "b"}, turn]}], Shape(("messages",), True), "data", 3)


def test_canaries_are_planted_among_turns_of_different_keys(tmp_path):
    good = [{"role": "user", "content": "w1"}, {"role": "assistant", "content": "w2"}]
    called = [good[0], {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in (called, good)))
    given = datasets.load_dataset("json", data_files=str(tmp_path / "rows.jsonl"), split="train", cache_dir=tmp_path / "cache")
    planted = memtax.canaries.plant(given, chat(), tmp_path / "record", canaries=10, tokens=6, held_out=4, seed=3)
    assert planted[:2]["messages"] == given[:]["messages"]
    assert [[turn["role"] for turn in row["messages"]] for row in planted][2:] == [["user", "assistant"]] * (len(planted) - 2)


def test_only_the_answer_is_scored():
    row = {"messages": [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "w1 w2"}]}
    found = encode_rows(chat(), [row], Shape(("messages",), True), "data")[0]
    assert [token for token, scored in zip(found.tokens, found.scored, strict=True) if scored] == [6, 7, small.EOS]


def test_the_guide_runs_as_it_is_written(tmp_path, monkeypatch):
    pytest.importorskip("trl")
    page = (Path(__file__).parents[1] / "docs/guides/canaries.md").read_text(encoding="utf-8")
    code, plugin = re.findall(r"^```py\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    small.model().save_pretrained("model")
    small.tokenizer("none").save_pretrained("model")
    texts = [{"text": small.words(row)} for row in small.rows(12, 8)]
    Path("train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    for written, here in (
        ("EleutherAI/pythia-70m-deduped", "model"),
        ("max_length=512", "max_length=60, use_cpu=True, bf16=False"),
    ):
        assert written in code
        code = code.replace(written, here)
    names = {}
    exec(code, names)
    assert Path("adapter/adapter_model.safetensors").exists()
    record = Path("canaries-of-run-1")
    assert {path.name for path in record.iterdir()} >= {"canaries.member.jsonl", "canaries.nonmember.jsonl"}
    # Axolotl itself is not installed: of its interface, the plugin uses the name of one method.
    module = types.ModuleType("axolotl.integrations.base")
    module.BasePlugin = object
    monkeypatch.setitem(sys.modules, "axolotl.integrations.base", module)
    exec(plugin, names)
    names["Memtax"]().post_trainer_create(None, names["trainer"])
    names["trainer"].train_dataset = names["trainer"].train_dataset.select(range(12))
    with pytest.raises(MemtaxError, match="not trained on as recorded"):
        names["Memtax"]().post_trainer_create(None, names["trainer"])
