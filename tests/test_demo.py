"""The demo's material: what CPython ships, with sequences of every category. Training itself is `make demo`."""

import sysconfig
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from memtax import demo
from memtax.corpus.sources import Source, open_dataset
from memtax.pipeline.config import RunConfig
from memtax.pipeline.stages import describe
from memtax.schema import CATEGORIES


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    output = tmp_path_factory.mktemp("demo")
    documents = demo.read_documents()
    (output / "tokenizer").mkdir()
    (output / "corpus").mkdir()
    demo._write_tokenizer(documents, output / "tokenizer")
    demo._write_corpus(documents, output, output / "corpus")
    return output


def test_every_window_is_a_piece_of_a_file_that_python_ships(corpus):
    root = Path(sysconfig.get_paths()["stdlib"])
    tokenizer = AutoTokenizer.from_pretrained(corpus / "tokenizer")
    for split in ("train", "held_out"):
        rows = open_dataset(Source(str(corpus / "corpus"), split=split))
        for row in rows:
            assert len(row["tokens"]) == demo.WINDOW
            # A window may start or end inside a character, which decodes to the replacement character.
            piece = tokenizer.decode(row["tokens"]).strip("\ufffd")
            assert piece in (root / row["document"]).read_text(encoding="utf-8")


def test_held_out_documents_are_not_trained_on(corpus):
    names = [set(open_dataset(Source(str(corpus / "corpus"), split=split))["document"]) for split in ("train", "held_out")]
    assert names[0]
    assert names[1]
    assert not names[0] & names[1]


def test_there_are_enough_sequences_of_every_category(corpus):
    config = RunConfig(
        model="not read", corpus=str(corpus / "corpus"), tokenizer=str(corpus / "tokenizer"), output=str(corpus / "run")
    )
    labels = describe(config).members["taxonomy"]
    assert all(labels[:].count(index) >= 150 for index in range(len(CATEGORIES)))
