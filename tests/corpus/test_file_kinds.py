"""Every kind of file in which people have tokens and texts reads as the plain one, in the readers of all verbs."""

import bz2
import gzip
import json
import lzma
import struct

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.small import WORDS, bigram_model, save, transitions, word_tokenizer
from helpers.versions import older
from memtax.attribution.influence_examples import load_examples
from memtax.attribution.influence_table import InfluenceSettings
from memtax.corpus.membership_texts import load_membership, load_texts
from memtax.corpus.opening import Reading, open_sources
from memtax.corpus.rows import holds_text, load_rows
from memtax.corpus.sequences import documents, load_sequences
from memtax.corpus.sources import Source
from memtax.counting.counter import count
from memtax.errors import MemtaxError

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


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save(bigram_model(transitions()), tmp_path_factory.mktemp("model"))


def check(path, others, model, ids=IDS, times=1, column=None):
    """Every reader of the verbs finds these ids in the source; `others` holds other texts, for membership."""
    tokenizer = word_tokenizer()
    source, rows = Source.parse(path, column=column), times * len(ids)
    windows = np.array([row[:5] for row in IDS], np.int32)
    plain = [times * sum(row[at : at + 5] == each[:5] for row in ids for at in range(len(row) - 4)) for each in IDS]
    corpus = open_sources([path], Reading(tokenizer=tokenizer, column=column))
    assert count(corpus, windows).window_counts.tolist() == plain
    reader = tokenizer if holds_text(source) else None
    assert load_rows(source, length=8, tokenizer=reader)["tokens"] == times * [row[:8] for row in ids]
    length = min(map(len, ids))
    sequences = load_sequences(source, window=length, tokenizer=tokenizer, cut="first").dataset
    assert sequences["tokens"][:] == times * [row[:length] for row in ids]
    texts = [" ".join(WORDS[token] for token in row[:length]) for row in ids]
    assert sequences["text"][:] == times * texts
    found = documents(source, window=length, tokenizer=tokenizer, cut="first")
    assert [window for document in found for window in document.windows] == times * texts
    assert load_examples(source, InfluenceSettings(model=model), None).tokens == times * ids
    members = load_membership(members=path, nonmembers=others, column=column).to_pylist()[:rows]
    assert [row["tokens"] or tokenizer(row["text"])["input_ids"] for row in members] == times * ids
    if reader is not None:
        assert [tokenizer(row["text"])["input_ids"] for row in load_texts(path, column=column).to_pylist()] == times * ids
    else:
        with pytest.raises(MemtaxError, match="holds tokens, and texts are needed"):
            load_texts(path, column=column)


def parquet(path, **columns):
    pq.write_table(pa.table(columns), path)
    return str(path)


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def zstandard(content):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


COMPRESSED = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard}


def compressed(path, content):
    path.write_bytes(COMPRESSED[path.suffix](content) if path.suffix in COMPRESSED else content)
    return str(path)


def arrow(path, table):
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return str(path)


@pytest.fixture
def others(tmp_path):
    path = tmp_path / "others" / "others.jsonl"
    path.parent.mkdir()
    path.write_bytes(lines({"text": f"{text} w0"} for text in TEXTS))
    return str(path)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "kind"
    path.mkdir()
    return path


@pytest.mark.parametrize("kind", LISTS)
def test_lists_of_any_integers(kind, folder, others, model):
    ids = pa.array(range(6), pa.uint64())
    check(parquet(folder / "rows.parquet", tokens=pa.array(IDS, LISTS[kind]), sequence_id=ids), others, model)


@pytest.mark.parametrize("form", ["parquet", "arrow"])
@pytest.mark.parametrize("kind", STRINGS)
def test_strings_of_any_encoding(kind, form, folder, others, model):
    if kind == "view" and older("datasets", "4.8"):
        pytest.skip("this version of datasets has no string views")
    names = pa.array(["a.txt", "b.txt"] * 3).dictionary_encode()
    columns = {"text": pa.array(TEXTS).cast(STRINGS[kind]), "document": names}
    path = folder / f"rows.{form}"
    check(parquet(path, **columns) if form == "parquet" else arrow(path, pa.table(columns)), others, model)
    assert load_sequences(Source.parse(str(path)), window=12, tokenizer=word_tokenizer()).dataset["document"][:2] == [
        "a.txt",
        "b.txt",
    ]


def test_tables_of_different_types_are_one_corpus(folder, others, model):
    for name, kind in (("a", pa.list_(pa.uint16())), ("b", pa.large_list(pa.int64())), ("c", pa.list_(pa.uint8(), 12))):
        parquet(folder / f"{name}.parquet", tokens=pa.array(IDS, kind))
    check(str(folder / "*.parquet"), others, model, times=3)
    check(str(folder), others, model, times=3)


@pytest.mark.parametrize("name", ["rows.bin", "rows.idx", "rows", "*.bin", "*", ""])
def test_a_pair_of_index_and_data_by_any_of_its_names(name, folder, others, model):
    megatron(folder / "rows", "<u2", 8)
    check(str(folder / name), others, model)


@pytest.mark.parametrize(("dtype", "code"), [("<u1", 1), ("<i4", 4), ("<i8", 5)])
def test_indexes_of_any_integers(dtype, code, folder, others, model):
    check(megatron(folder / "rows", dtype, code), others, model)


def test_several_indexes_of_different_types_are_one_corpus(folder, others, model):
    for number, (dtype, code) in enumerate((("<u2", 8), ("<i4", 4), ("<i8", 5))):
        megatron(folder / f"part{number}", dtype, code)
    check(str(folder / "part*"), others, model, times=3)
    check(str(folder), others, model, times=3)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int64", "uint64"])
def test_matrices_of_any_integers(dtype, folder, others, model):
    np.save(folder / "rows.npy", np.array(IDS, dtype))
    check(str(folder / "rows.npy"), others, model)


def test_slices_of_tokens_and_of_saved_datasets(folder, others, model):
    megatron(folder / "rows", "<u2", 8)
    check(f"{folder / 'rows.bin'}::train[1:3]", others, model, IDS[1:3])
    check(f"{folder / 'rows.bin'}::train[:1]+train[-1:]", others, model, [IDS[0], IDS[-1]])
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(str(folder / "saved"))
    check(f"{folder / 'saved'}::train[50%:]", others, model, IDS[3:])
    with pytest.raises(MemtaxError, match=r"drop the split 'test\[:1\]'"):
        load_rows(Source.parse(f"{folder / 'rows.bin'}::test[:1]"))


FORMS = ("jsonl", "ids.jsonl", "strings.jsonl", "csv", "tsv", "txt")
PACKED = [("jsonl", ending) for ending in COMPRESSED] + [("ids.jsonl", ".zst"), ("strings.jsonl", ".gz")]
PACKED += [("csv", ".gz"), ("tsv", ".bz2"), ("txt", ".zst")]


@pytest.mark.parametrize(("form", "packed"), [*((form, "") for form in FORMS), *PACKED])
def test_text_formats_compressed_or_not(form, packed, folder, others, model):
    rows = {"jsonl": [{"text": text} for text in TEXTS], "strings.jsonl": TEXTS}
    rows["ids.jsonl"] = [{"input_ids": row, "attention_mask": [1] * 12} for row in IDS]
    content = lines(rows.get(form, ()))
    if form in ("csv", "tsv"):
        separator = {"csv": ",", "tsv": "\t"}[form]
        content = "".join(f'{number}{separator}"{text}"\n' for number, text in [("n", "text"), *enumerate(TEXTS)]).encode()
    if form == "txt":
        # A text file is one text, whatever its lines.
        whole = [[token for row in IDS for token in row]]
        check(compressed(folder / f"rows.txt{packed}", "\n".join(TEXTS).encode()), others, model, whole)
    else:
        check(compressed(folder / f"rows.{form}{packed}", content), others, model)


def test_a_folder_of_text_files_has_a_text_per_file(folder, others, model):
    for number, text in enumerate(TEXTS):
        (folder / f"{number}.txt").write_text(text.replace(" ", "\r\n", 3))
    check(str(folder), others, model)
    check(str(folder / "*.txt"), others, model)


@pytest.mark.parametrize("form", ["jsonl", "jsonl.zst"])
def test_rows_of_the_pile(form, folder, others, model):
    """A struct beside the text, with other fields in each row, or nothing in it."""
    metas = [{"pile_set_name": "Github"}, {"pile_set_name": "ArXiv", "stars": 3}, {}] * 2
    rows = [{"text": text, "meta": meta} for text, meta in zip(TEXTS, metas, strict=True)]
    check(compressed(folder / f"pile.{form}", lines(rows)), others, model)


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_rows_of_tofu(form, folder, model):
    """Lists of texts give one row per text, and several columns one text per row, in every verb."""
    rows = [{"question": "w3", "answer": text, "perturbed_answer": [text, text[3:]]} for text in TEXTS]
    rows = [{**row, "index": number} for number, row in enumerate(rows)]
    path = folder / f"tofu.{form}"
    path.write_bytes(lines(rows)) if form == "json" else pq.write_table(pa.Table.from_pylist(rows), path)
    others = folder / "others.jsonl"
    others.write_bytes(lines({"question": "w3", "answer": text[:9], "perturbed_answer": [text[:9]]} for text in TEXTS))
    check(str(path), str(others), model, [each for row in IDS for each in (row, row[1:])], column="perturbed_answer")
    check(str(path), str(others), model, [[4, *row] for row in IDS], column="question,answer")
    found = load_membership(members=str(path), nonmembers=str(others), column="perturbed_answer")
    assert found.column("document").to_pylist()[:4] == ["row 0", "row 0", "row 1", "row 1"]


def test_a_column_of_bytes_is_refused_in_membership_as_elsewhere(folder, others):
    path = parquet(folder / "rows.parquet", text=pa.array([text.encode() for text in TEXTS]))
    with pytest.raises(MemtaxError, match="holds bytes; texts are strings"):
        load_membership(members=path, nonmembers=others)
