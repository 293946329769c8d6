import json
import os
from pathlib import Path

import pyarrow as pa
import pytest

from memtax import checksums
from memtax.checksums import RECORD, Parts, Record, checksum, damage, seal, verify
from memtax.errors import MemtaxError


@pytest.fixture
def folder(tmp_path):
    """A sealed directory of three files, and a nested one."""
    run = tmp_path / "run"
    (run / "dataset" / "features").mkdir(parents=True)
    (run / "dataset" / "features" / "train.parquet").write_bytes(bytes(range(256)) * 40)
    (run / "dataset" / "README.md").write_text("---\ntags: []\n---\nA card\n")
    (run / "metrics.json").write_text('{"a": 1}')
    (run / "run.yaml").write_text("memtax: score\nconfig: {}\nfinished: '2026'\nseconds: 3.1\n")
    seal(run, "the same memtax score command", {"a": 1})
    return run


def flip(path, place, bit=0):
    """One bit, the file's time kept."""
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_checksum_is_that_of_the_public_xxh3(tmp_path):
    # The value that xxhsum -H2 prints of the empty input (https://github.com/Cyan4973/xxHash).
    (tmp_path / "empty").touch()
    assert checksum(tmp_path / "empty") == "99aa06d3014798d86001c324468d497f 0"


@pytest.mark.parametrize("name", ["dataset/features/train.parquet", "metrics.json", "run.yaml"])
def test_every_bit_of_every_file_counts(folder, name):
    size = (folder / name).stat().st_size
    times = (folder / name).read_bytes().find(b"finished:") if name == "run.yaml" else size
    verify(folder)
    for place in {0, 1, times // 2, times - 1}:
        for bit in range(8):
            flip(folder / name, place, bit)
            with pytest.raises(MemtaxError, match="run the same memtax score command again, or remove") as told:
                verify(folder)
            assert name in str(told.value)
            assert name in damage(folder, {"a": 1})
            flip(folder / name, place, bit)
    verify(folder)


def test_every_bit_of_the_record_counts(folder):
    for place in range(0, (folder / RECORD).stat().st_size, 7):
        flip(folder / RECORD, place, place % 8)
        with pytest.raises(MemtaxError, match="is damaged"):
            verify(folder / "metrics.json")
        assert "is damaged" in damage(folder, {"a": 1})
        flip(folder / RECORD, place, place % 8)
    assert damage(folder, {"a": 1}) is None


def test_a_file_is_checked_by_the_record_above_it_and_a_foreign_one_not_at_all(folder, tmp_path):
    path = folder / "dataset" / "features" / "train.parquet"
    verify(path)
    path.write_bytes(path.read_bytes()[:-1])
    for checked in (path, path.parent, folder / "dataset"):
        with pytest.raises(MemtaxError, match=r"has 10,239 bytes and not the 10,240"):
            verify(checked)
    verify(folder / "metrics.json")
    (folder / "mine.json").write_text("{}")
    verify(folder / "mine.json")
    verify(tmp_path / "nowhere")
    path.unlink()
    with pytest.raises(MemtaxError, match="is missing"):
        verify(folder)


def test_a_card_may_be_edited(folder, capsys):
    (folder / "dataset" / "README.md").write_text("Mine.")
    verify(folder)
    assert "README.md was changed since memtax wrote it; it is used as it is" in capsys.readouterr().err
    (folder / "dataset" / "README.md").unlink()
    with pytest.raises(MemtaxError, match=r"README\.md is missing"):
        verify(folder)


def test_the_times_of_a_record_do_not_count(folder):
    before = (folder / RECORD).read_bytes()
    (folder / "run.yaml").write_text("memtax: score\nconfig: {}\nfinished: '2027'\nseconds: 30.5\n")
    verify(folder)
    seal(folder, "the same memtax score command", {"a": 1})
    assert (folder / RECORD).read_bytes() == before


def test_other_work_is_told(folder):
    assert "of other work" in damage(folder, {"a": 2})
    assert "of other work" in damage(folder, {"a": 1}, ["totals.json"])
    (folder / RECORD).unlink()
    assert "no checksums" in damage(folder, {"a": 1})
    verify(folder)


@pytest.mark.parametrize(
    "files", [{"../secret": "0" * 32 + " 1"}, {"/etc/passwd": "0" * 32 + " 1"}, {"a": 3}, {"a": "x"}, [1], "a", 3, None]
)
def test_a_hostile_record_is_damaged(tmp_path, files):
    # Its own digest is right: anybody can compute that.
    (tmp_path / "a").write_text("a")
    try:
        text = checksums._text("x", "y", files)
    except TypeError:
        text = json.dumps(files)
    for content in (text, "[" * 100_000, "{}", "[]", "\x00"):
        (tmp_path / RECORD).write_text(content)
        with pytest.raises(MemtaxError, match="is damaged"):
            verify(tmp_path / "a")


def test_a_part_is_of_its_work_its_name_and_its_bytes(tmp_path, capsys):
    table = pa.table({"a": [1, 2]})
    parts = Parts.of(tmp_path, {"a": 1})
    parts.write_parquet("one.parquet", table)
    parts.write_parquet("two.parquet", table)
    assert parts.names() == ["one.parquet", "two.parquet"]
    assert parts.is_usable("one.parquet")
    assert not parts.is_usable("three.parquet")
    assert not Parts.of(tmp_path, {"a": 2}).is_usable("one.parquet")
    # The bytes of both are the same: only the name in the record tells them apart.
    (tmp_path / ".one.parquet.sum").write_bytes((tmp_path / ".two.parquet.sum").read_bytes())
    assert not parts.is_usable("one.parquet")
    assert capsys.readouterr().err.count("one.parquet does not match its checksum; it is made again") == 2
    parts.remove("one.parquet")
    assert parts.names() == ["two.parquet"]


def test_a_part_that_fails_leaves_what_was_there(tmp_path):
    parts = Parts.of(tmp_path, "work")
    with parts.writing("part") as path:
        path.write_text("whole")
    with pytest.raises(RuntimeError), parts.writing("part") as path:
        path.write_text("half")
        raise RuntimeError
    assert parts.is_usable("part")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".part.sum", "part"]


def test_what_a_model_is_loaded_from_in_a_checkpoint_is_checked(tmp_path):
    folder = tmp_path / "checkpoint-3"
    folder.mkdir()
    for name in ("model.safetensors", "config.json", "optimizer.pt", "trainer_state.json"):
        (folder / name).write_text(f'{{"{name}": 1}}')
    digests = {path.name: checksum(path).split() for path in folder.iterdir()}
    files = {name: [int(size), digest] for name, (digest, size) in digests.items()}
    (folder / "checksums.json").write_text(json.dumps({"files": files}))
    verify(folder)
    (folder / "optimizer.pt").write_text("other")
    (folder / "README.md").write_text("a card")
    verify(folder)
    for name in ("model.safetensors", "config.json"):
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(before.replace(b"1", b"2"))
        with pytest.raises(MemtaxError, match=f"{name} does not match its checksum; train again"):
            verify(folder)
        (folder / name).unlink()
        with pytest.raises(MemtaxError, match=f"{name} is missing; train again"):
            verify(folder)
        (folder / name).write_bytes(before)
    for record in ("{", "[]", '{"files": {"config.json": 3}}', '{"files": {"config.json": [1]}}'):
        (folder / "checksums.json").write_text(record)
        with pytest.raises(MemtaxError):
            verify(folder)
    (folder / "checksums.json").unlink()
    verify(folder)


@pytest.mark.parametrize("record", ["pipe", "device", "folder"])
def test_what_is_no_file_is_not_read(tmp_path, record):
    """A pipe would be waited for, and a device never ends."""
    parts = Parts.of(tmp_path, {"a": 1})
    parts.write_parquet("x.parquet", pa.table({"a": [1]}))
    make = {"pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "folder": Path.mkdir}[record]
    for name in (".x.parquet.sum", "x.parquet", RECORD):
        (tmp_path / name).unlink(missing_ok=True)
        make(tmp_path / name)
        assert not parts.is_usable("x.parquet")
    with pytest.raises(MemtaxError, match="is damaged"):
        Record.read(tmp_path)
