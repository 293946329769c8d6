"""Files of tokens: what is read, and what every kind of damage says."""

import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from memtax.corpus import binary
from memtax.corpus.opening import Reading, open_sources
from memtax.counting.counter import count
from memtax.counting.spans import Span, cut_windows
from memtax.errors import MemtaxError

CODES = {"u1": 1, "i1": 2, "<i2": 3, "<i4": 4, "<i8": 5, "<u2": 8}
ROWS = [[1, 2, 3, 4], [5], [], [6, 7, 100, 9, 10]]


def megatron(folder, rows, dtype="<u2", name="corpus"):
    """The layout of Megatron's IndexedDataset, written down from its definition."""
    flat = np.array([token for row in rows for token in row], dtype)
    (folder / f"{name}.bin").write_bytes(flat.tobytes())
    sizes = np.array([len(row) for row in rows], "<i4")
    pointers = (np.cumsum(sizes, dtype="<i8") - sizes) * np.dtype(dtype).itemsize
    head = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, CODES[dtype], len(rows), len(rows) + 1)
    documents = np.arange(len(rows) + 1, dtype="<i8")
    (folder / f"{name}.idx").write_bytes(head + sizes.tobytes() + pointers.astype("<i8").tobytes() + documents.tobytes())
    return folder / f"{name}.bin"


def read(names, shard_tokens=2**23, **how):
    names = [names] if not isinstance(names, list) else names
    corpus = open_sources([str(name) for name in names], Reading(**how))
    rows = []
    for shard in corpus.shards(shard_tokens):
        for block in shard.blocks():
            assert block.first_row == len(rows)
            rows += [block.tokens[a:b].tolist() for a, b in zip(block.offsets, block.offsets[1:], strict=False)]
    assert (corpus.rows, corpus.tokens) == (len(rows), sum(map(len, rows)))
    return rows


@pytest.mark.parametrize("dtype", list(CODES))
@pytest.mark.parametrize("shard_tokens", [1, 4, 100])
def test_megatron_pairs_of_every_integer_type(dtype, shard_tokens, tmp_path, monkeypatch):
    monkeypatch.setattr(binary, "BLOCK_TOKENS", 3)
    path = megatron(tmp_path, ROWS, dtype)
    for name in (path, path.with_suffix(".idx"), path.with_suffix("")):
        assert read(name, shard_tokens) == ROWS


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "int32"])
@pytest.mark.parametrize("shard_tokens", [1, 12, 1000])
def test_headerless_files_are_cut_into_sequences(dtype, shard_tokens, tmp_path, monkeypatch):
    monkeypatch.setattr(binary, "BLOCK_TOKENS", 11)
    rows = np.random.default_rng(0).integers(0, 60_000, (7, 5))
    rows.astype(dtype).tofile(tmp_path / "document.bin")
    assert read(tmp_path / "document.bin", shard_tokens, sequence_length=5, dtype=dtype) == rows.tolist()


@pytest.mark.parametrize("dtype", ["<u2", "<u4", "<i4", "<i8", "u1"])
def test_npy_matrices(dtype, tmp_path):
    rows = np.random.default_rng(0).integers(0, 200, (6, 9))
    np.save(tmp_path / "a.npy", rows.astype(dtype))
    np.save(tmp_path / "flat.npy", rows.astype(dtype).reshape(-1))
    assert read(tmp_path / "a.npy", 20) == rows.tolist()
    assert read(tmp_path / "flat.npy", 20, sequence_length=9) == rows.tolist()


def test_lists_and_globs_go_on_with_the_row_numbers(tmp_path):
    first, second = megatron(tmp_path, ROWS, name="a"), megatron(tmp_path, ROWS[:1], name="b")
    np.save(tmp_path / "c.npy", np.array([[8, 8]], np.uint16))
    pq.write_table(pa.table({"tokens": [[9], [9, 9]]}), tmp_path / "d.parquet", row_group_size=1)
    assert read([first, second], 1) == [*ROWS, ROWS[0]]
    assert read([tmp_path / "?.bin"], 3) == read([tmp_path / "[ab]*"], 3) == [*ROWS, ROWS[0]]
    assert read([second, tmp_path / "c.npy", tmp_path / "*.parquet"], 1) == [ROWS[0], [8, 8], [9], [9, 9]]
    with pytest.raises(MemtaxError, match=r"no file matches .*\*\.none"):
        read(tmp_path / "*.none")


def test_parquet_is_read_in_place(tmp_path):
    import datasets

    rows = [[i, i + 1] for i in range(2500)] + [[], [5]]
    pq.write_table(pa.table({"x": list(range(2502)), "tokens": rows}), tmp_path / "a.parquet", row_group_size=700)
    corpus = open_sources([str(tmp_path)])
    # An empty row counts as one token in a Parquet footer.
    assert corpus.tokens == 5002
    found = [
        b.tokens[i:j].tolist()
        for s in corpus.shards(2000)
        for b in s.blocks()
        for i, j in zip(b.offsets, b.offsets[1:], strict=False)
    ]
    assert found == rows
    assert not list(datasets.config.HF_DATASETS_CACHE.rglob("*.arrow"))


def test_a_damaged_parquet_shard_is_named(tmp_path):
    for name in "ab":
        rows = np.random.default_rng(0).integers(0, 9, (4000, 8)).tolist()
        pq.write_table(pa.table({"tokens": rows}), tmp_path / f"{name}.parquet", row_group_size=1000, compression="zstd")
    data = bytearray((tmp_path / "b.parquet").read_bytes())
    data[200:2000] = b"\xff" * 1800
    (tmp_path / "b.parquet").write_bytes(bytes(data))
    with pytest.raises(MemtaxError, match=r"b\.parquet \(row group 0 of 4 or later\) cannot be read: ") as caught:
        count(open_sources([str(tmp_path)]), None)
    assert "\n" not in str(caught.value)


def test_damaged_data(tmp_path):
    path = megatron(tmp_path, ROWS)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(
        MemtaxError, match=r"corpus\.bin has 17 bytes but .*corpus\.idx requires 20: the data is truncated at byte offset 17"
    ):
        read(path)
    path = megatron(tmp_path, ROWS)
    path.write_bytes(path.read_bytes() + b"12")
    with pytest.raises(MemtaxError, match="too long from byte offset 20 on"):
        read(path)


def test_damaged_indexes(tmp_path):
    path = megatron(tmp_path, ROWS)
    index = path.with_suffix(".idx")
    good = index.read_bytes()

    def bad(data):
        index.write_bytes(data)
        with pytest.raises(MemtaxError) as caught:
            read(path)
        assert "corpus.idx" in str(caught.value)
        return str(caught.value)

    # Header of 34 bytes, four sizes of 4, four pointers of 8, five documents of 8: 122.
    assert len(good) == 122
    assert "truncated at byte offset 121" in bad(good[:-1])
    assert "truncated at byte offset 20: its header" in bad(good[:20])
    assert "too long from byte offset 122" in bad(good + b"0")
    assert "not a Megatron index" in bad(b"nothing" + good[7:])
    assert "version 2 at byte offset 9" in bad(good[:9] + b"\x02" + good[10:])
    assert "dtype code 7 at byte offset 17" in bad(good[:17] + b"\x07" + good[18:])
    # The second size starts at byte 38, its pointer at 34 + 16 + 8 = 58.
    assert "sequence 1 the length -1 at byte offset 38" in bad(good[:38] + struct.pack("<i", -1) + good[42:])
    assert "points sequence 1 to byte 6 (at byte offset 58)" in bad(good[:58] + struct.pack("<q", 6) + good[66:])
    other = tmp_path / "other"
    other.mkdir()
    megatron(other, ROWS[:2])
    assert "requires 10: the data is too long from byte offset 10" in bad((other / "corpus.idx").read_bytes())
    index.unlink()
    with pytest.raises(MemtaxError, match=r"corpus\.bin has no index \(corpus\.idx\) next to it; .*--sequence-length"):
        read(path)
    (path.with_suffix(".idx")).write_bytes(good)
    path.unlink()
    with pytest.raises(MemtaxError, match=r"corpus\.bin is missing, but its index"):
        read(index)


def test_headerless_sizes_that_do_not_fit(tmp_path):
    path = tmp_path / "document.bin"
    np.arange(12, dtype=np.uint16).tofile(path)
    with pytest.raises(
        MemtaxError, match=r"document\.bin is not a whole number of sequences of 5 tokens: 2 token.s. .* byte offset 20"
    ):
        read(path, sequence_length=5)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(
        MemtaxError, match=r"document\.bin has 25 bytes, which is not a whole number of uint16 tokens: .* byte offset 24"
    ):
        read(path, sequence_length=5)
    with pytest.raises(MemtaxError, match="dtype 'float32' is not one of"):
        read(path, sequence_length=5, dtype="float32")
    with pytest.raises(MemtaxError, match="at least 1 token, got 0"):
        read(path, sequence_length=0)
    path.write_bytes(b"")
    with pytest.raises(MemtaxError, match=r"document\.bin is empty"):
        read(path, sequence_length=5)


def test_a_file_that_is_cut_off_while_it_is_read_is_named(tmp_path, monkeypatch):
    # Four sequences of two tokens of two bytes, two sequences per block. A page is larger: here, reading on would not crash.
    monkeypatch.setattr(binary, "BLOCK_TOKENS", 4)
    path = tmp_path / "document.bin"
    np.arange(8, dtype="<u2").tofile(path)
    (shard,) = open_sources([str(path)], Reading(sequence_length=2)).shards(2**23)
    blocks = shard.blocks()
    assert next(blocks).tokens.tolist() == [0, 1, 2, 3]
    with path.open("r+b") as file:
        file.truncate(10)
    with pytest.raises(
        MemtaxError, match=r"document\.bin was truncated to 10 bytes while it was read; it had at least 16 bytes"
    ):
        next(blocks)
    path.unlink()  # what is mapped stays
    assert next(shard.blocks()).tokens.tolist() == [0, 1, 2, 3]


def test_damaged_npy(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.ones((100, 10), np.uint16))
    path.write_bytes(path.read_bytes()[:-1])
    # A header of 128 bytes and 100 x 10 x 2 bytes.
    with pytest.raises(MemtaxError, match=r"a\.npy is truncated at byte offset 2127: .* needs 2128 bytes"):
        read(path)
    for array, message in (
        (np.ones((2, 2)), "contains float64"),
        (np.ones(4, np.int32), r"has shape \(4,\); give a matrix"),
        (np.ones((0, 4), np.int32), "contains no tokens"),
        (np.ones((2, 3, 4), np.int32), r"has shape \(2, 3, 4\)"),
    ):
        np.save(path, array)
        with pytest.raises(MemtaxError, match=message):
            read(path)
    path.write_bytes(b"not numpy at all")
    with pytest.raises(MemtaxError, match=r"a\.npy is not a \.npy file"):
        read(path)


@pytest.mark.parametrize("shard_tokens", [5, 1000])
def test_a_bad_id_is_named_with_file_and_byte(shard_tokens, tmp_path):
    rows = np.ones((20, 5), np.uint16)
    rows[13, 2] = 500
    rows.tofile(tmp_path / "document.bin")
    corpus = open_sources([str(tmp_path / "document.bin")], Reading(sequence_length=5))
    # Token 13 * 5 + 2 = 67 starts at byte 134.
    with pytest.raises(
        MemtaxError, match=r"token id 500 in row 13 of .*document\.bin \(byte offset 134\) is outside the vocabulary of 500"
    ):
        count(corpus, None, vocabulary_size=500, shard_tokens=shard_tokens)
    wide = np.ones((20, 5), np.uint32)
    wide[13, 2] = 2**31
    wide.tofile(tmp_path / "wide.bin")
    corpus = open_sources([str(tmp_path / "wide.bin")], Reading(sequence_length=5, dtype="uint32"))
    with pytest.raises(MemtaxError, match=r"token id 2147483648 in .*wide\.bin \(byte offset 268\)"):
        count(corpus, None, vocabulary_size=500, shard_tokens=shard_tokens)


def test_windows_are_cut_by_span(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(40, dtype=np.uint16).reshape(4, 10))
    megatron(tmp_path, ROWS)
    (cut, late) = cut_windows(open_sources([str(tmp_path / "a.npy")]), [Span(2, 4), Span(0, 10)])
    assert cut.windows.tolist() == [[2, 3], [12, 13], [22, 23], [32, 33]]
    assert (cut.ids.tolist(), late.windows.shape) == ([0, 1, 2, 3], (4, 10))
    (cut,) = cut_windows(open_sources([str(tmp_path / "corpus.bin")]), [Span(1, 3)])
    assert (cut.windows.tolist(), cut.ids.tolist(), cut.skipped) == ([[2, 3], [7, 100]], [0, 3], 2)
    with pytest.raises(MemtaxError, match=r"no row of the sequences has the 64 tokens .*32:64.*longest has 5"):
        cut_windows(open_sources([str(tmp_path / "corpus.bin")]), [Span(32, 64)])
    for text in ("32", "a:b", "5:5", "-1:3", "4:2"):
        with pytest.raises(MemtaxError, match="is not a window; write start:stop"):
            Span.parse(text)
