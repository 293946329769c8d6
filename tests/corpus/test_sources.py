import bz2
import csv
import gzip
import io
import json
import lzma

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from memtax.corpus.blocks import open_corpus
from memtax.corpus.columns import find_column
from memtax.corpus.nesting import Nesting
from memtax.corpus.sources import Source, open_dataset
from memtax.errors import MemtaxError
from memtax.provenance import fingerprint_path

ROWS = [[1, 2, 3], [], [4, 5], [6]]


def read(source, **options):
    """The corpus as lists."""
    corpus = open_corpus(source if isinstance(source, Source) else Source(str(source)), **options)
    return [
        block.tokens[start:stop].tolist()
        for block in corpus.blocks()
        for start, stop in zip(block.offsets, block.offsets[1:], strict=False)
    ]


def lines(rows, column="tokens"):
    return "".join(json.dumps({column: row}) + "\n" for row in rows)


def make(kind, folder):
    """The rows of ROWS in one of the layouts; returns the path to give."""
    dataset = datasets.Dataset.from_dict({"tokens": ROWS})
    if kind == "parquet":
        dataset.to_parquet(folder / "data.parquet")
        return folder / "data.parquet"
    if kind == "jsonl":
        (folder / "data.jsonl").write_text(lines(ROWS))
        return folder / "data.jsonl"
    if kind == "jsonl.gz":
        (folder / "data.jsonl.gz").write_bytes(gzip.compress(lines(ROWS).encode()))
        return folder / "data.jsonl.gz"
    if kind == "arrow":
        with pa.OSFile(str(folder / "data.arrow"), "wb") as file, pa.ipc.new_stream(file, dataset.data.table.schema) as writer:
            writer.write_table(dataset.data.table)
        return folder / "data.arrow"
    if kind == "save_to_disk":
        dataset.save_to_disk(folder / "saved")
        return folder / "saved"
    if kind == "splits":
        datasets.DatasetDict({"train": dataset, "test": dataset.select([0])}).save_to_disk(folder / "saved")
        return folder / "saved"
    if kind == "folder":
        dataset.select([0, 1]).to_parquet(folder / "train-0.parquet")
        dataset.select([2, 3]).to_parquet(folder / "train-1.parquet")
        return folder
    if kind == "card":
        (folder / "parts").mkdir()
        dataset.to_parquet(folder / "parts" / "a.parquet")
        head = "configs:\n- config_name: small\n  data_files:\n  - split: train\n    path: parts/*.parquet\n"
        (folder / "README.md").write_text(f"---\n{head}---\n# A card\n")
        return folder
    raise AssertionError(kind)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["parquet", "jsonl", "jsonl.gz", "arrow", "save_to_disk", "splits", "folder", "card"])
def test_every_layout_gives_the_same_rows(kind, streaming, tmp_path):
    name = "small" if kind == "card" else None
    assert read(Source(str(make(kind, tmp_path)), name=name, streaming=streaming)) == ROWS


@pytest.mark.parametrize("block_tokens", [1, 2, 3, 4, 100])
def test_blocks_hold_whole_rows_up_to_their_size(block_tokens):
    corpus = open_corpus(datasets.Dataset.from_dict({"tokens": ROWS}), block_tokens=block_tokens)
    sizes = [len(block.tokens) for block in corpus.blocks()]
    # A block is larger than asked for only where one row alone is: row 0 has 3 tokens.
    assert sum(sizes) == 6
    assert max(sizes) <= max(block_tokens, 3)
    assert [len(block.tokens) for block in corpus.blocks()] == sizes
    assert (corpus.rows, corpus.tokens) == (4, 6)


def test_list_types_and_integer_types_read_alike():
    expected = [[1, 65535], [3, 4]]
    for dtype in (pa.uint16(), pa.int32(), pa.int64(), pa.uint64()):
        for listed in (pa.list_(dtype), pa.large_list(dtype), pa.list_(dtype, 2)):
            corpus = open_corpus(datasets.Dataset(pa.table({"tokens": pa.array(expected, listed)})))
            (block,) = corpus.blocks()
            assert block.tokens.reshape(2, 2).tolist() == expected
            assert block.tokens.dtype == (np.uint16 if dtype == pa.uint16() else np.int32)


def test_reordered_rows_come_in_their_new_order():
    corpus = open_corpus(datasets.Dataset.from_dict({"tokens": ROWS}).select([3, 0]))
    assert np.concatenate([block.tokens for block in corpus.blocks()]).tolist() == [6, 1, 2, 3]
    assert corpus.tokens is None


def test_int32_and_uint16_lists_are_not_copied():
    values = pa.array(np.arange(12, dtype=np.int32))
    table = pa.table({"tokens": pa.ListArray.from_arrays(pa.array([0, 5, 12], pa.int32()), values)})
    (block,) = open_corpus(datasets.Dataset(table)).blocks()
    address = values.buffers()[1].address
    assert address <= block.tokens.ctypes.data < address + 48


def test_a_missing_row_is_an_empty_one():
    table = pa.table({"tokens": pa.array([[1], None, [2, 3]], pa.list_(pa.int64()))})
    (block,) = open_corpus(datasets.Dataset(table)).blocks()
    assert (block.tokens.tolist(), block.offsets.tolist()) == ([1, 2, 3], [0, 1, 1, 3])


@pytest.mark.parametrize("streaming", [False, True])
def test_text_is_tokenized_by_document(tokenizer, tmp_path, streaming):
    (tmp_path / "a.jsonl").write_text(lines(["w1 w2", "", "w3 w4 w5"], "text"))
    source = Source(str(tmp_path / "a.jsonl"), streaming=streaming)
    assert read(source, tokenizer=tokenizer) == [[1, 2], [], [3, 4, 5]]
    assert open_corpus(source, tokenizer=tokenizer).vocabulary_size == 50


def test_a_text_file_is_one_document(tokenizer, tmp_path):
    (tmp_path / "a.txt").write_text("w1 w2\nw3\n\nw4")
    (tmp_path / "b.txt").write_text("w5")
    assert read(tmp_path / "a.txt", tokenizer=tokenizer) == [[1, 2, 3, 4]]
    assert read(tmp_path, tokenizer=tokenizer) == [[1, 2, 3, 4], [5]]


def test_columns_are_found_in_the_documented_order(tokenizer):
    everything = {"content": ["w1"], "text": ["w2"], "input_ids": [[3]], "Tokens": [[4]], "tokens": [[5]]}
    for drop, expected in ((None, 5), ("tokens", 4), ("Tokens", 3), ("input_ids", 2), ("text", 1)):
        everything.pop(drop, None)
        (block,) = open_corpus(datasets.Dataset.from_dict(everything), tokenizer=tokenizer).blocks()
        assert block.tokens.tolist() == [expected]


def test_parse():
    assert Source.parse("org/name") == Source("org/name")
    assert Source.parse("org/name:small") == Source("org/name", name="small")
    assert Source.parse("org/name:small:test[:10]") == Source("org/name", name="small", split="test[:10]")
    assert Source.parse("org/name::test", streaming=True) == Source("org/name", split="test", streaming=True)


def test_parse_knows_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Source.parse("~/data:small") == Source(f"{tmp_path}/data", name="small")


def test_parse_takes_an_existing_path_whole(tmp_path):
    path = tmp_path / "a:b"
    path.mkdir()
    assert Source.parse(str(path)) == Source(str(path))
    assert Source.parse(f"{tmp_path}:small:test") == Source(str(tmp_path), name="small", split="test")


@pytest.mark.parametrize(("field", "value"), [("path", " "), ("path", 3), ("split", ""), ("name", ""), ("column", 1)])
def test_source_checks_its_fields(field, value):
    with pytest.raises(MemtaxError, match=f"the {field} of a source"):
        Source(**{"path": "x", field: value})


def write_rows(path, rows, dtype):
    pq.write_table(pa.table({"tokens": pa.array(rows, pa.list_(dtype))}), path)
    return Source(str(path))


@pytest.mark.parametrize(
    ("rows", "dtype", "message"),
    [
        ([["a"], ["b"]], pa.string(), r"column 'tokens' of .* contains list<.*string>; tokens must be lists of integers"),
        ([[0.5]], pa.float32(), "contains list<.*float>"),
        ([[1], [2, -100]], pa.int64(), "token id -100 in row 1 of .* is negative"),
        ([[1], [], [5, 2**31]], pa.int64(), r"token id 2147483648 in row 2 of .* must be below 2\^31"),
        ([[2**63]], pa.uint64(), "token id 9223372036854775808 in row 0"),
        ([[1], [3, None]], pa.int64(), "a token id in row 1 of .* is null"),
        ([], pa.int64(), "has a Parquet file with no rows"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_bad_tokens(rows, dtype, message, streaming, tmp_path):
    source = write_rows(tmp_path / "bad.parquet", rows, dtype)
    with pytest.raises(MemtaxError, match=message) as caught:
        read(Source(source.path, streaming=streaming))
    assert "\n" not in str(caught.value)


def test_bad_token_rows_are_numbered_across_blocks(tmp_path):
    source = write_rows(tmp_path / "bad.parquet", [[1]] * 2500 + [[-1]], pa.int64())
    with pytest.raises(MemtaxError, match="in row 2500 of"):
        read(source, block_tokens=7)


def test_ids_beyond_the_vocabulary(tokenizer, tmp_path):
    source = write_rows(tmp_path / "bad.parquet", [[1], [49, 50]], pa.int64())
    with pytest.raises(MemtaxError, match=r"token id 50 in row 1 of .* is outside the vocabulary of 50; was another tokenizer"):
        read(source, tokenizer=tokenizer)
    with pytest.raises(MemtaxError, match="outside the vocabulary of 20"):
        read(source, vocabulary_size=20)
    assert read(source, tokenizer=tokenizer, vocabulary_size=51) == [[1], [49, 50]]


def test_missing_columns(tmp_path):
    (tmp_path / "a.jsonl").write_text(lines(["x"], "body"))
    with pytest.raises(MemtaxError, match=r"has no column of tokens or text \(tokens, .*content\); its columns are: body"):
        read(tmp_path / "a.jsonl")
    with pytest.raises(MemtaxError, match="has no column 'tok'; its columns are: body"):
        read(Source(str(tmp_path / "a.jsonl"), column="tok"))


@pytest.mark.parametrize("streaming", [False, True])
def test_files_that_disagree_about_the_type(streaming, tokenizer, tmp_path):
    (tmp_path / "a.jsonl").write_text(lines(ROWS))
    (tmp_path / "b.jsonl").write_text(lines(["w1 w2"]))
    with pytest.raises(MemtaxError, match=r"cannot be read: .*string") as caught:
        read(Source(str(tmp_path), streaming=streaming), tokenizer=tokenizer)
    assert "\n" not in str(caught.value)


def test_a_stream_that_changes_its_type_midway(tokenizer):
    def rows():
        yield from ({"tokens": [1]} for _ in range(1000))
        yield {"tokens": "w1"}

    corpus = open_corpus(datasets.IterableDataset.from_generator(rows), tokenizer=tokenizer)
    with pytest.raises(MemtaxError, match="changes from tokens to text at row 1000"):
        list(corpus.blocks())


def test_text_needs_a_tokenizer(tmp_path):
    (tmp_path / "a.jsonl").write_text(lines(["w1"], "text"))
    with pytest.raises(MemtaxError, match=r"column 'text' of .* contains text: give a tokenizer"):
        read(tmp_path / "a.jsonl")


@pytest.mark.parametrize("path", ["/no/such/folder", "./missing", "missing.parquet", "a/b/c"])
def test_missing_path(path):
    with pytest.raises(MemtaxError, match=f"{path} does not exist; give a file, a folder or the name of a dataset on the Hub"):
        read(path)


def test_missing_on_the_hub():
    assert datasets.config.HF_HUB_OFFLINE, "run the tests with HF_HUB_OFFLINE=1"
    with pytest.raises(MemtaxError, match="no-such-org/no-such-set exists neither locally nor") as caught:
        read("no-such-org/no-such-set")
    assert "\n" not in str(caught.value)


def test_missing_split_and_configuration(tmp_path):
    path = str(make("card", tmp_path))
    with pytest.raises(MemtaxError, match=r"cannot be read: .*test.*train"):
        read(Source(path, name="small", split="test"))
    with pytest.raises(MemtaxError, match=r"cannot be read: .*large.*small"):
        read(Source(path, name="large"))


def test_missing_split_of_a_saved_dataset(tmp_path):
    path = make("splits", tmp_path)
    assert read(Source(str(path), split="test")) == [ROWS[0]]
    with pytest.raises(MemtaxError, match="has no split 'dev'; it has train, test"):
        read(Source(str(path), split="dev"))
    datasets.Dataset.from_dict({"tokens": ROWS}).save_to_disk(tmp_path / "one")
    with pytest.raises(MemtaxError, match="contains a single dataset without splits; drop the split 'dev'"):
        read(Source(str(tmp_path / "one"), split="dev"))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", ["bad.parquet", "bad.jsonl", "bad.jsonl.gz", "bad.arrow"])
def test_corrupt_files(name, streaming, tmp_path):
    (tmp_path / name).write_bytes(b"\x00\xff{this is nothing")
    with pytest.raises(MemtaxError, match=rf"{name}.* cannot be read: ") as caught:
        read(Source(str(tmp_path / name), streaming=streaming))
    assert "\n" not in str(caught.value)


def test_truncated_parquet(tmp_path):
    path = make("parquet", tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(MemtaxError, match="cannot be read"):
        read(path)


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_without_rows(streaming, tmp_path):
    dataset = datasets.Dataset.from_dict({"tokens": ROWS}).select([])
    with pytest.raises(MemtaxError, match="the dataset has no rows"):
        open_corpus(dataset)
    dataset.save_to_disk(tmp_path / "saved")
    with pytest.raises(MemtaxError, match="saved::train has no rows"):
        read(Source(str(tmp_path / "saved"), streaming=streaming))


def test_unknown_and_empty_files(tmp_path):
    (tmp_path / "a.xls").write_text("tokens\n1\n")
    with pytest.raises(MemtaxError, match=r"has an unknown format; memtax reads \.parquet"):
        read(tmp_path / "a.xls")
    with pytest.raises(MemtaxError, match="contains no file that memtax reads"):
        read(tmp_path)
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(MemtaxError, match="is empty"):
        read(tmp_path / "a.jsonl")


def test_a_folder_with_a_card_that_is_written_again_gives_the_new_rows(tmp_path):
    # `datasets` alone would find the first rows in its cache: its key is the card, which does not change here.
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: train.parquet\n---\n"
    for rows in (3, 5):
        folder = tmp_path / "folder"
        folder.mkdir(exist_ok=True)
        (folder / "README.md").write_text(card)
        pq.write_table(pa.table({"tokens": [[1, 2]] * rows}), folder / "train.parquet")
        assert len(open_dataset(Source(str(folder)))) == rows


def nested(value):
    if not isinstance(value, list | dict):
        return 0
    return 1 + max((nested(inner) for inner in (value.values() if isinstance(value, dict) else value)), default=0)


LEAVES = st.text(alphabet='[]{}"\\a\n', max_size=4) | st.none() | st.integers()
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
)


@given(VALUES, st.sampled_from([None, 1]), st.integers(1, 9))
def test_nesting_is_that_of_the_parsed_value_whatever_the_pieces(value, indent, size):
    text, reader, deepest = json.dumps(value, indent=indent).encode(), Nesting(), 0
    for start in range(0, len(text), size):
        deepest = reader.read(text[start : start + size])
    assert deepest == nested(value)


def test_a_column_that_is_nearly_a_usual_one_is_named():
    with pytest.raises(MemtaxError, match="did you mean --column tokns"):
        find_column(["id", "tokns"], None, "corpus")


@pytest.mark.parametrize("name", ["rows[1].jsonl", "rows *?.jsonl", "[a](b) <img src=x> | c.txt"])
def test_a_name_is_no_pattern(tmp_path, name):
    (tmp_path / name).write_text(json.dumps({"text": "right"}))
    (tmp_path / "rows1.jsonl").write_text(json.dumps({"text": "wrong"}))
    assert "right" in open_dataset(Source(str(tmp_path / name)))["text"][0]


def test_rows_that_are_cut_are_counted_with_their_unread_tokens(tmp_path, capsys):
    from memtax.corpus.rows import load_rows

    rows = [list(range(length)) for length in (3, 5, 9, 0, 6)]
    pq.write_table(pa.table({"tokens": pa.array(rows, pa.list_(pa.int32()))}), tmp_path / "rows.parquet")
    found = load_rows(Source.parse(str(tmp_path / "rows.parquet")), length=5)
    assert found["tokens"][:] == [row[:5] for row in rows]
    assert "2 of 5 rows cut to their first 5 tokens, 5 tokens not read" in capsys.readouterr().out
    load_rows(Source.parse(str(tmp_path / "rows.parquet")), length=9)
    assert "cut" not in capsys.readouterr().out


COMPRESS = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    # Two frames, as parallel compressors write.
    ".zst": lambda data: zstandard.compress(data[: len(data) // 2]) + zstandard.compress(data[len(data) // 2 :]),
}
TEXTS = ["a comma, and 1", 'a "quoted" word', "NA", "null", "two\nlines", "", "ü"]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("kind", [".jsonl", ".csv", ".tsv"])
def test_texts_are_the_same_in_every_format_and_compression(kind, suffix, streaming, tmp_path):
    if kind == ".jsonl":
        content = lines(TEXTS, "text")
    else:
        buffer = io.StringIO()
        writer = csv.writer(buffer, delimiter="," if kind == ".csv" else "\t", lineterminator="\n")
        writer.writerows([["text", "number"], *([text, index] for index, text in enumerate(TEXTS))])
        content = buffer.getvalue()
    file = tmp_path / f"data{kind}{suffix}"
    file.write_bytes(COMPRESS[suffix](content.encode()))
    rows = list(open_dataset(Source(str(file), streaming=streaming)))
    # CSV cannot tell an empty text from a missing one.
    expected = TEXTS if kind == ".jsonl" else [text or None for text in TEXTS]
    assert [row["text"] for row in rows] == expected


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_a_truncated_compressed_file_is_refused(suffix, tmp_path):
    file = tmp_path / f"data.jsonl{suffix}"
    data = COMPRESS[suffix](lines([list(range(50))] * 200).encode())
    file.write_bytes(data[:-9])
    with pytest.raises(MemtaxError, match=rf"data\.jsonl{suffix}::train cannot be read"):
        read(file)


def test_a_pattern_is_one_source_of_its_files_in_order(tmp_path):
    for name, row in (("b.jsonl", [3]), ("a.jsonl", [1, 2])):
        (tmp_path / name).write_text(lines([row]))
    pattern = str(tmp_path / "*.jsonl")
    assert read(pattern) == [[1, 2], [3]]
    assert next(iter(open_dataset(Source(pattern, split="train[:1]"))))["tokens"] == [1, 2]
    before = fingerprint_path(pattern)
    (tmp_path / "b.jsonl").write_text(lines([[4]]))
    assert fingerprint_path(pattern) != before
    assert read(pattern) == [[1, 2], [4]]
    (tmp_path / "c.csv").write_text("tokens\n1\n")
    with pytest.raises(MemtaxError, match=r"several formats \(\.csv, \.jsonl\)"):
        read(str(tmp_path / "*"))
    with pytest.raises(MemtaxError, match="does not exist"):
        read(str(tmp_path / "*.parquet"))
