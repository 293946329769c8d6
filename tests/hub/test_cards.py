from pathlib import Path

import pyarrow as pa
import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard

from memtax.errors import MemtaxError
from memtax.hub.cards import finish, plain, render
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
        here="org/name",
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


def code(card):
    """The card's Python block."""
    return card.split("```python\n")[1].split("```")[0]


@pytest.mark.parametrize("output", ["runs/demo", 'it\'s a "run" -->`<b>'])
def test_the_load_line_of_a_local_card_works_as_it_stands(tmp_path, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = Path(output) / "dataset"
    write_dataset(folder, [Config("first", "A row.", {"test": pa.table({"sequence_id": [5, 6]})})], "title", {})
    card = (folder / "README.md").read_text()
    found = {}
    exec(code(card), found)
    assert found["dataset"]["sequence_id"][:] == [5, 6]
    published = finish(card, "org/name", {}, {})
    assert 'load_dataset("org/name", "first", split="test")' in published
    assert "<!--" not in published
    assert output.split("/")[-1] not in published


def test_a_card_written_into_an_unfinished_folder_names_the_finished_one(tmp_path, monkeypatch):
    from memtax.engine import once

    monkeypatch.chdir(tmp_path)
    configs = [Config("first", "A row.", {"train": pa.table({"sequence_id": [1]})})]
    once("runs/data", {}, lambda folder: write_dataset(folder / "dataset", configs, "title", {}))
    assert 'load_dataset("runs/data/dataset",' in (tmp_path / "runs/data/dataset/README.md").read_text()


def test_a_foreign_card_is_published_as_it_is():
    text = finish('---\nlicense: mit\n---\n\n# Mine\n\n`load("x/y")`\n', "org/name", {}, {})
    assert '# Mine\n\n`load("x/y")`\n' in text
