"""Batches of a transformers classifier of code: one wait for an accelerator each, and scores that are not numbers."""

import numpy as np
import pytest
import torch
from transformers import BatchEncoding, BertConfig, BertForSequenceClassification

from helpers import away
from helpers.small import WORDS, word_tokenizer
from memtax.errors import RowError
from memtax.filters import code_vs_nl


def classifier():
    config = BertConfig(vocab_size=len(WORDS), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    torch.manual_seed(0)
    return BertForSequenceClassification(config).eval()


@pytest.fixture
def tokenizer():
    made = word_tokenizer()
    made.pad_token = WORDS[0]
    return made


def test_a_batch_waits_for_the_accelerator_once(monkeypatch, tokenizer):
    texts = [" ".join(WORDS[1 : 2 + number % 4]) for number in range(7)]
    expected = code_vs_nl._scores((tokenizer, classifier(), 0), texts, 16, at_once=3)
    with away.device():
        model = away.move(classifier())
        monkeypatch.setattr(BatchEncoding, "to", lambda batch, device: {name: away.Away(batch[name]) for name in batch})
        with away.counted() as counts:
            found = code_vs_nl._scores((tokenizer, model, 0), texts, 16, at_once=3)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert counts["fetched"] == 3
    assert not counts["nonzero"]


def test_a_text_whose_scores_are_not_numbers_is_named(tokenizer):
    model = classifier()
    model.bert.embeddings.word_embeddings.weight.data[4] = float("nan")
    texts = [WORDS[1], f"{WORDS[2]} {WORDS[3]}", f"{WORDS[1]} {WORDS[4]} {WORDS[2]}"]
    assert len(code_vs_nl._scores((tokenizer, model, 0), texts[:2], 16)) == 2
    with pytest.raises(RowError, match="not numbers") as caught:
        code_vs_nl._scores((tokenizer, model, 0), texts, 16)
    assert caught.value.row == 2
