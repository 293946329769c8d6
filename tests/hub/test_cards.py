import pyarrow as pa
import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard

from memtax.errors import MemtaxError
from memtax.hub.cards import plain, render
from memtax.hub.folder import Config, write_dataset


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<script>", "&lt;script&gt;"),
        ("a | b\n# c", r"a \| b \# c"),
        ("[x](http://y)", r"\[x\]\(http://y\)"),
        ("a\x1b[31mb\u202ec", r"a\[31mbc"),
        ("AT&T", "AT&amp;T"),
    ],
)
def test_foreign_text_is_inert_in_markdown(text, expected):
    assert plain(text) == expected


def test_front_matter_is_yaml_whatever_the_values():
    card = render(
        "dataset.md.j2",
        {"pretty_name": "a: b\n---\n!!python/object:x", "license": None},
        title="t",
        summary={},
        configs=[Config("c", "row", {"train": pa.table({"sequence_id": [1]})})],
        columns={"c": []},
        categories=(),
        version="0",
    )
    # Read as the Hub reads it.
    assert DatasetCard(card).data.to_dict() == {"pretty_name": "a: b\n---\n!!python/object:x"}


def test_a_folder_loads_with_its_splits_and_class_names(tmp_path):
    splits = {
        "train": pa.table({"sequence_id": [1, 2], "taxonomy": [0, None]}),
        "test": pa.table({"sequence_id": [3], "taxonomy": [2]}),
    }
    write_dataset(tmp_path / "d", [Config("first", "A row.", splits)], "title", {"a": 1})
    loaded = load_dataset(str(tmp_path / "d"), "first", cache_dir=str(tmp_path / "cache"))
    assert {name: split.num_rows for name, split in loaded.items()} == {"train": 2, "test": 1}
    assert loaded["train"].features["taxonomy"].int2str(0) == "recitation"
    assert loaded["train"]["taxonomy"] == [0, None]


def test_a_folder_written_again_loads_the_new_rows(tmp_path):
    for values in ([1, 2], [3, 4]):
        configs = [Config("first", "A row.", {"train": pa.table({"sequence_id": values})})]
        write_dataset(tmp_path / "d", configs, "title", {})
        loaded = load_dataset(str(tmp_path / "d"), "first", split="train", cache_dir=str(tmp_path / "cache"))
        assert loaded["sequence_id"][:] == values


def test_a_column_that_is_not_declared_never_gets_published(tmp_path):
    with pytest.raises(MemtaxError, match="unknown column 'mystery'"):
        write_dataset(tmp_path / "d", [Config("c", "row", {"train": pa.table({"mystery": [1]})})], "title", {})
    assert not (tmp_path / "d").exists()
