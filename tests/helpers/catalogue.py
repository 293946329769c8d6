"""A filter of every kind of the catalogue, and rows for all of them."""

import dataclasses
from pathlib import Path

import datasets
import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification, GPTNeoXConfig, GPTNeoXForCausalLM

from helpers.word_pieces import word_pieces
from memtax import schema
from memtax.counting.counter import Counts, write_counts
from memtax.filters import CATALOGUE, filter_class


def rows() -> datasets.Dataset:
    generator = np.random.default_rng(0)
    tokens = generator.integers(0, 50, (40, 64)).tolist()
    words = ["row", "0x1f", "12", "alpha", "\n", "{", "}", "été", "the"]
    texts = [" ".join(generator.choice(words, 12)) for _ in tokens]
    features = schema.features(("sequence_id", "tokens", "text", "prompt_text"))
    columns = {"sequence_id": list(range(40)), "tokens": tokens, "text": texts, "prompt_text": [text[:60] for text in texts]}
    return datasets.Dataset.from_dict(columns, features=features)


def build(folder: Path, rows: datasets.Dataset) -> dict:
    """A new filter is built by itself, unless it asks for something that no other needs."""
    write_counts(folder / "counts", np.arange(40), Counts(np.arange(50), np.arange(40), 100, 40))
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=50, max_position_embeddings=64, **shape)).save_pretrained(folder / "model")
    rows.save_to_disk(folder / "sample")
    word_pieces("row", "alpha", "{", "}", "the").save_pretrained(folder / "classifier")
    small = BertConfig(vocab_size=10, id2label={0: "natural language", 1: "code"}, **shape)
    BertForSequenceClassification(small).save_pretrained(folder / "classifier")
    given = {"sample": folder / "sample", "counts": folder / "counts", "frequencies": folder / "counts"}
    given["model"] = folder / "model"
    # Its default is on the Hub.
    instead = {"code_vs_nl": {"model": str(folder / "classifier")}}

    def built(kind):
        found = {field.name: str(given[field.name]) for field in dataclasses.fields(kind) if required(field)}
        return kind(**found, **instead.get(kind.name, {}))

    return {name: built(filter_class(name)) for name in CATALOGUE}


def required(field):
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
