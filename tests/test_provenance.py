import datasets
import pyarrow as pa
import pytest
import yaml

from memtax import provenance

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
