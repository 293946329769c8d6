"""What the build scripts write has the published layout, and the filters take it in place of one's own counts."""

from pathlib import Path

import datasets
import numpy as np
import pytest

from helpers.processes import python
from memtax.errors import MemtaxError
from memtax.filters.duplicates import DuplicateFilter
from memtax.filters.token_frequencies import TokenFrequencyFilter

SCRIPTS = Path(__file__).parents[2] / "dataset_scripts"


def script(name, *arguments):
    done = python(SCRIPTS / name, *arguments, cwd=SCRIPTS.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_num_duplicates(tmp_path):
    rows = np.random.default_rng(0).integers(0, 50, (40, 80)).astype(np.uint16)
    rows[3] = rows[30]
    np.save(tmp_path / "duped.npy", rows)
    np.save(tmp_path / "deduped.npy", rows[:30])
    for split in ("duped", "deduped"):
        corpus = tmp_path / f"{split}.npy"
        said = script(
            "num_duplicates.py", corpus, "--split", split, "--output", tmp_path / "out", "--push", "org/name", "--dry-run"
        )
    assert "dataset org/name: 3 files" in said
    assert "data/deduped.parquet" in said
    assert "data/duped.parquet" in said
    folder = tmp_path / "out" / "dataset"
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {split: part.num_rows for split, part in loaded.items()} == {"duped": 40, "deduped": 30}
    assert loaded["duped"].column_names == ["sequence_id", "counts"]
    batch = {"sequence_id": [3, 4, 39]}
    assert DuplicateFilter(f"{folder}::duped")(batch) == {"sequence_duplicates": [2, 1, 1]}
    with pytest.raises(MemtaxError, match=r"has the splits .*; choose one: .*::"):
        DuplicateFilter(str(folder))(batch)
    # Row 39 is not in the deduplicated corpus.
    assert DuplicateFilter(f"{folder}::deduped")(batch) == {"sequence_duplicates": [1, 1, None]}


def test_num_frequencies(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[1, 2], [2, 3], [3, 3]], np.uint16))
    datasets.Dataset.from_dict({"index": [2]}).to_parquet(tmp_path / "memorized.parquet")
    script(
        "num_frequencies.py", tmp_path / "a.npy", "--memorized", tmp_path / "memorized.parquet", "--output", tmp_path / "out"
    )
    folder = tmp_path / "out" / "dataset"
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert loaded["memorized"].to_dict() == {"TokenID": [0, 1, 2, 3], "Frequency": [0, 0, 0, 2]}
    assert loaded["non_memorized"].to_dict() == {"TokenID": [0, 1, 2, 3], "Frequency": [0, 1, 2, 1]}
    # Both splits are summed: 1 occurs once, 3 three times.
    found = TokenFrequencyFilter(str(folder))({"tokens": [[1, 3]]})
    assert (found["max_frequency"], found["min_frequency"]) == ([3], [1])
