"""What the training scripts train on: every token of a text, in consecutive pieces that the model can hold."""

import importlib.util
import itertools
import json
import sys
from dataclasses import replace
from itertools import chain

import pytest

from helpers.small import random_texts, word_tokenizer
from memtax.errors import MemtaxError
from memtax.files import asset


def script(name):
    specification = importlib.util.spec_from_file_location(f"rows_{name}", asset(f"training/{name}.py"))
    module = sys.modules[f"rows_{name}"] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Texts of 19, 8 and 1 words, the file that holds them, and their tokens."""
    texts = [random_texts(1, words, seed=words)[0] for words in (19, 8, 1)]
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(file), [word_tokenizer()(text)["input_ids"] for text in texts]


def pieces(tokens):
    # 19 = 8 + 8 + 3; 8 = 8; a single token has nothing to predict.
    return [tokens[0][:8], tokens[0][8:16], tokens[0][16:], tokens[1]]


def test_a_model_is_trained_on_all_of_a_text(rows):
    file, tokens = rows
    found = script("train_lm").read_rows(file, word_tokenizer(), 8)
    assert found.column_names == ["input_ids"]
    assert found["input_ids"][:] == pieces(tokens)


def test_rows_of_tokens_stay_as_they_are(tmp_path):
    file = tmp_path / "tokens.jsonl"
    file.write_text(json.dumps({"tokens": list(range(12))}) + "\n")
    assert script("train_lm").read_rows(str(file), word_tokenizer(), 8)["input_ids"][:] == [list(range(12))]


def test_texts_without_two_tokens_are_an_error(tmp_path):
    file = tmp_path / "short.jsonl"
    file.write_text(json.dumps({"text": ""}) + "\n")
    with pytest.raises(MemtaxError, match="no text of two tokens"):
        script("train_lm").read_rows(str(file), word_tokenizer(), 8)


def test_a_fine_tune_drops_nothing_of_a_text(rows):
    file, tokens = rows
    found = script("finetune_lora")
    trained = found.read_rows(found.DataArguments(file, max_length=8), word_tokenizer())
    assert [row["input_ids"] for row in trained] == pieces(tokens)
    assert sorted(chain.from_iterable(pieces(tokens))) == sorted(chain.from_iterable(tokens[:2]))
    assert all(row["labels"] == row["input_ids"] for row in trained)


def test_coins_decide_for_each_canary_by_themselves():
    finetune = script("finetune_lora")
    data = finetune.DataArguments("x", canaries=200, canary_candidates=5, canary_coins=3, canary_tokens=4)
    rows = finetune.make_canaries(data, word_tokenizer())
    planted = [row["repetitions"] for row in rows[:400]]
    # 400 fair coins: 200 on average, standard deviation 10; neighbors agree as often as not.
    assert set(planted) == {0, 1}
    assert abs(sum(planted) - 200) < 50
    assert abs(sum(a == b for a, b in itertools.pairwise(planted)) - 200) < 50
    # The canaries do not depend on the coins, and other coins plant others; extra candidates have none.
    others = finetune.make_canaries(replace(data, canary_coins=4), word_tokenizer())
    assert [row["tokens"] for row in rows] == [row["tokens"] for row in others]
    assert planted != [row["repetitions"] for row in others[:400]]
    assert [row.get("coin", False) for row in rows] == [True] * 400 + [False] * 5
    with pytest.raises(MemtaxError, match="plants canaries once"):
        finetune.DataArguments("x", canaries=2, canary_coins=3, canary_repetitions=[1, 4])
