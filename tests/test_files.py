import errno
import json
import os
import stat

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors import SafetensorError

from memtax.files import asset, atomic_directory, atomic_path, system_error, write_json, write_parquet, write_text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_what_the_system_refuses_names_the_file_that_was_to_be(tmp_path):
    unfinished = tmp_path / ".part.memtax-12-0123456789abcdef-0.tmp" / "part"
    unfinished.mkdir(parents=True)
    with pytest.raises(OSError, match="No space left on device") as told, atomic_path(unfinished / "a.safetensors"):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert (told.value.errno, told.value.filename) == (errno.ENOSPC, str(tmp_path / "part" / "a.safetensors"))
    with pytest.raises(SafetensorError), atomic_path(tmp_path / "a.safetensors"):
        raise SafetensorError("Error while deserializing header")


def test_written_files_have_ordinary_permissions(tmp_path):
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    write_text(tmp_path / "ours", "x")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


def test_a_failed_directory_leaves_the_old_one(tmp_path):
    target = tmp_path / "d"
    with atomic_directory(target) as temporary:
        (temporary / "x").write_text("old")
    with pytest.raises(RuntimeError), atomic_directory(target) as temporary:
        (temporary / "x").write_text("new")
        raise RuntimeError
    assert (target / "x").read_text() == "old"
    assert os.listdir(tmp_path) == ["d"]


def test_a_directory_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "d"
    for name in ("first", "second"):
        with atomic_directory(target) as temporary:
            (temporary / name).touch()
    assert sorted(os.listdir(target)) == [".memtax-files", "second"]
    assert os.listdir(tmp_path) == ["d"]


def test_json_refuses_numbers_that_json_does_not_have(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not (tmp_path / "x.json").exists()
    write_json(tmp_path / "x.json", {"a": 1.5})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1.5}


def test_parquet_bytes_do_not_depend_on_chunks(tmp_path):
    whole = pa.table({"x": list(range(10))})
    chunked = pa.concat_tables([whole.slice(0, 3), whole.slice(3, 7)])
    write_parquet(tmp_path / "a.parquet", whole)
    write_parquet(tmp_path / "b.parquet", chunked)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert pq.read_table(tmp_path / "a.parquet") == whole


def test_assets_are_found_and_missing_ones_named():
    assert asset("training/train_lm.py").is_file()
    with pytest.raises(FileNotFoundError, match="no_such_asset"):
        asset("no_such_asset")


def test_the_systems_error_in_what_tokenizers_raises(tmp_path):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    with pytest.raises(Exception, match="os error") as caught:
        Tokenizer(WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "missing" / "tokenizer.json"))
    assert system_error(caught.value) == errno.ENOENT


def test_a_full_disk_in_what_torch_raises():
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.save({"a": torch.zeros(10_000)}, "/dev/full")
    assert system_error(caught.value) == errno.ENOSPC
