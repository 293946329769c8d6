"""Counts depend on how texts become tokens, and on nothing else in the tokenizer's folder."""

import json

import pytest

from memtax.pipeline.stages import fingerprint_tokenizer


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0}}}')
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "a", "model_max_length": 1e30}')
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return tmp_path


def change(folder, name, **values):
    path = folder / name
    old = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**old, **values}))


def test_files_beside_the_tokenizer_do_not_count(folder):
    before = fingerprint_tokenizer(str(folder))
    (folder / "README.md").write_text("edited")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "model.safetensors").write_bytes(b"other weights")
    change(folder, "tokenizer_config.json", chat_template="x", transformers_version="9")
    assert fingerprint_tokenizer(str(folder)) == before


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("tokenizer.json", {"model": {"vocab": {"b": 0}}}),
        ("tokenizer_config.json", {"eos_token": "b"}),
        ("special_tokens_map.json", {"pad_token": "a"}),
        ("added_tokens.json", {"c": 1}),
        ("vocab.json", {"a": 0}),
    ],
)
def test_what_tokenizes_counts(folder, name, values):
    before = fingerprint_tokenizer(str(folder))
    change(folder, name, **values)
    assert fingerprint_tokenizer(str(folder)) != before


def test_another_path_is_another_name():
    assert fingerprint_tokenizer("org/one") != fingerprint_tokenizer("org/two")
