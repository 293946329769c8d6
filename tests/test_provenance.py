import ast
import hashlib
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
import yaml

from memtax import provenance
from memtax.files import atomic_directory

ROWS = {
    "sequence_id": [5, 6, 7],
    "tokens": [[1, 2], [], [3]],
    "text": ["a", None, "bc"],
    "flag": [True, None, False],
    "x": [0.5, None, 2.0],
}


def fingerprint(rows):
    return provenance.fingerprint_dataset(datasets.Dataset.from_dict(rows), list(rows))


def test_a_dataset_is_known_by_its_values_not_by_its_chunks(tmp_path):
    whole = datasets.Dataset.from_dict(ROWS)
    table = whole.with_format("arrow")[:]
    chunked = datasets.Dataset(pa.concat_tables([table.slice(0, 1), table.slice(1, 2)]))
    whole.to_parquet(tmp_path / "x.parquet")
    loaded = datasets.Dataset.from_parquet(str(tmp_path / "x.parquet"), cache_dir=str(tmp_path / "cache"))
    picked = datasets.concatenate_datasets([whole, whole]).select([0, 4, 2])
    expected = fingerprint(ROWS)
    for dataset in (whole, chunked, loaded, picked):
        assert provenance.fingerprint_dataset(dataset, list(ROWS)) == expected


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("sequence_id", [5, 6, 8]),
        ("tokens", [[1], [2], [3]]),  # same values, other row lengths
        ("text", ["ab", None, "c"]),  # same characters, other row lengths
        ("text", ["a", "", "bc"]),
        ("flag", [True, False, False]),
        ("x", [0.5, 0.0, 2.0]),
    ],
)
def test_any_changed_value_changes_the_fingerprint(column, values):
    assert fingerprint({**ROWS, column: values}) != fingerprint(ROWS)


def test_a_folder_is_known_by_its_files_wherever_it_is(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "f").write_text("x")
    assert provenance.fingerprint_path(tmp_path / "one") == provenance.fingerprint_path(tmp_path / "two")
    (tmp_path / "two" / "sub" / "f").write_text("y")
    assert provenance.fingerprint_path(tmp_path / "one") != provenance.fingerprint_path(tmp_path / "two")


def test_the_record_is_plain_yaml_without_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    provenance.write_record(tmp_path / "run.yaml", "run", {"model": "m", "checkpoints": ["a"]}, {"corpus": "0" * 32})
    text = (tmp_path / "run.yaml").read_text()
    assert yaml.safe_load(text)["config"] == {"model": "m", "checkpoints": ["a"]}
    assert "hf_secret" not in text
    assert "hf_secret" not in str(provenance.environment())


def test_a_table_has_the_fingerprint_of_its_dataset():
    table = pa.table({"a": [1, None, 3] * 30_000, "b": [[1, 2], [], None] * 30_000, "c": ["x", "", None] * 30_000})
    dataset = datasets.Dataset(table, fingerprint="given")
    assert provenance.fingerprint_dataset(table, ["c", "a", "b"]) == provenance.fingerprint_dataset(dataset, ["c", "a", "b"])
    assert provenance.fingerprint_dataset(table.slice(1), ["a"]) != provenance.fingerprint_dataset(
        table.slice(0, 89_999), ["a"]
    )


def test_a_note_in_a_folder_that_memtax_made_does_not_count(tmp_path):
    with atomic_directory(tmp_path / "counts") as folder:
        (folder / "table").write_text("1")
    before = provenance.fingerprint_path(tmp_path / "counts")
    (tmp_path / "counts" / "notes.txt").write_text("mine")
    assert provenance.fingerprint_path(tmp_path / "counts") == before
    (tmp_path / "counts" / "table").write_text("2")
    assert provenance.fingerprint_path(tmp_path / "counts") != before


def test_a_file_is_hashed_once_while_it_is_unchanged(tmp_path, monkeypatch):
    """A file that was written just now may change within its time stamp, and is read each time."""
    reads = []
    real = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *arguments: reads.append(1) or real(*arguments))
    for name in "ab":
        (tmp_path / name).write_text(name)
    first = provenance.fingerprint_path(tmp_path)
    (tmp_path / "b").write_text("c")
    assert provenance.fingerprint_path(tmp_path) != first
    assert len(reads) == 4
    monkeypatch.setattr(provenance, "SETTLED_NS", 0)
    before = provenance.fingerprint_path(tmp_path)
    assert provenance.fingerprint_path(tmp_path) == before
    assert provenance.fingerprint_path(tmp_path / "a") != before
    assert len(reads) == 6
    (tmp_path / "moved").write_text("d")
    (tmp_path / "moved").replace(tmp_path / "b")
    assert provenance.fingerprint_path(tmp_path) != before
    assert len(reads) == 7


def test_every_dataset_of_a_table_is_given_its_fingerprint():
    """Without one, `datasets` pickles the whole table to hash it."""
    unnamed = []
    for path in sorted((Path(provenance.__file__).parent).rglob("*.py")):
        if path.name == "canaries.py":
            continue  # few rows, of any features of the user's
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            made = called in ("datasets.Dataset", "Dataset") and "fingerprint" not in {word.arg for word in node.keywords}
            if made or (called.rpartition("Dataset.")[2] in ("from_dict", "from_list", "from_pandas") and "Dataset." in called):
                unnamed.append(f"{path.name}:{node.lineno}")
    assert not unnamed
