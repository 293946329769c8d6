"""Every type in which libraries write tokens and texts reads as the plain one, in counts, scores, runs and membership."""

import json
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.small import WORDS, word_tokenizer
from memtax.corpus.membership_texts import load_membership
from memtax.corpus.opening import Reading, open_sources
from memtax.corpus.rows import load_rows
from memtax.corpus.sequences import load_sequences
from memtax.corpus.sources import Source
from memtax.counting.counter import count

IDS = [[1 + (7 * row + 3 * place) % 18 for place in range(12)] for row in range(6)]
TEXTS = [" ".join(WORDS[token] for token in row) for row in IDS]
LISTS = {
    "fixed": pa.list_(pa.int32(), 12),
    "large": pa.large_list(pa.uint16()),
    **{str(kind): pa.list_(kind) for kind in (pa.uint8(), pa.int8(), pa.uint16(), pa.uint32(), pa.int64(), pa.uint64())},
}
STRINGS = {
    "large": pa.large_string(),
    "view": pa.string_view(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
    "large dictionary": pa.dictionary(pa.int16(), pa.large_string()),
}


def megatron(path, dtype, code):
    path.with_suffix(".bin").write_bytes(np.array(IDS, dtype).tobytes())
    lengths, size = np.full(len(IDS), 12, np.int32), np.dtype(dtype).itemsize
    starts = np.arange(len(IDS), dtype=np.int64) * 12 * size
    head = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, len(IDS), len(IDS) + 1)
    path.with_suffix(".idx").write_bytes(head + lengths.tobytes() + starts.tobytes() + np.arange(7, dtype=np.int64).tobytes())
    return str(path.with_suffix(".bin"))


def check(path, times=1, column=None):
    tokenizer = word_tokenizer()
    windows = np.array([row[:5] for row in IDS], np.int32)
    plain = [sum(other[at : at + 5] == row[:5] for other in IDS for at in range(8)) for row in IDS]
    how = Reading(tokenizer=tokenizer, column=column)
    assert count(open_sources([path], how), windows).window_counts.tolist() == [times * number for number in plain]
    source = Source.parse(path, column=column)
    assert load_rows(source, length=8, tokenizer=tokenizer)["tokens"][:6] == [row[:8] for row in IDS]
    found = load_sequences(source, window=12, tokenizer=tokenizer).dataset
    assert found["tokens"][:6] == IDS
    assert found["text"][:6] == TEXTS


@pytest.mark.parametrize("kind", LISTS)
def test_lists_of_any_integers(kind, tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"tokens": pa.array(IDS, LISTS[kind]), "sequence_id": pa.array(range(6), pa.uint64())}), path)
    check(str(path))


@pytest.mark.parametrize("form", ["parquet", "arrow"])
@pytest.mark.parametrize("kind", STRINGS)
def test_strings_of_any_encoding(kind, form, tmp_path):
    names = pa.array(["a.txt", "b.txt"] * 3).dictionary_encode()
    table = pa.table({"text": pa.array(TEXTS).cast(STRINGS[kind]), "document": names})
    path = tmp_path / f"rows.{form}"
    if form == "parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    check(str(path))
    assert load_sequences(Source.parse(str(path)), window=12, tokenizer=word_tokenizer()).dataset["document"][:2] == [
        "a.txt",
        "b.txt",
    ]
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps({"text": f"{text} w0"}) + "\n" for text in TEXTS))
    assert load_membership(None, members=str(path), nonmembers=str(other)).column("text").to_pylist()[:6] == TEXTS


def test_files_of_different_types_are_one_corpus(tmp_path):
    for name, kind in (("a", pa.list_(pa.uint16())), ("b", pa.large_list(pa.int64())), ("c", pa.list_(pa.uint8(), 12))):
        pq.write_table(pa.table({"tokens": pa.array(IDS, kind)}), tmp_path / f"{name}.parquet")
    check(str(tmp_path / "*.parquet"), times=3)
    check(str(tmp_path), times=3)


@pytest.mark.parametrize(("dtype", "code"), [("<u1", 1), ("<u2", 8), ("<i4", 4), ("<i8", 5)])
def test_indexes_of_tokens_are_sequences_of_a_run_too(dtype, code, tmp_path):
    check(megatron(tmp_path / "rows", dtype, code))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int64", "uint64"])
def test_matrices_of_any_integers(dtype, tmp_path):
    np.save(tmp_path / "rows.npy", np.array(IDS, dtype))
    check(str(tmp_path / "rows.npy"))


def test_several_indexes_of_different_types_count_as_one(tmp_path):
    for number, (dtype, code) in enumerate((("<u2", 8), ("<i4", 4), ("<i8", 5))):
        megatron(tmp_path / f"part{number}", dtype, code)
    windows = np.array([row[:5] for row in IDS], np.int32)
    one = count(open_sources([str(tmp_path / "part0.bin")]), windows).window_counts
    np.testing.assert_array_equal(count(open_sources([str(tmp_path / "part*")]), windows).window_counts, 3 * one)


def test_rows_of_the_pile_and_of_tofu(tmp_path):
    """The Pile has a struct beside the text, with other fields in each row; TOFU has lists of texts beside the answer."""
    path = tmp_path / "pile.jsonl"
    metas = [{"pile_set_name": "Github"}, {"pile_set_name": "ArXiv", "stars": 3}] * 3
    path.write_text("".join(json.dumps({"text": text, "meta": meta}) + "\n" for text, meta in zip(TEXTS, metas, strict=True)))
    check(str(path))
    path = tmp_path / "tofu.json"
    rows = [{"question": "?", "answer": text, "perturbed_answer": [text, "w1"], "paraphrased_answer": text} for text in TEXTS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    check(str(path), column="answer")
