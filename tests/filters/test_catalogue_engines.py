"""Every catalogued filter gives the same parts here and in two processes of Accelerate; tests/engine has Spark."""

from pathlib import Path

import pytest
from test_catalogue import built as built
from test_catalogue import rows as rows

from helpers.processes import torchrun
from memtax.engine import run
from memtax.filters import CATALOGUE

WORKER = """
import pickle, sys
import datasets
from memtax.engine import run
rows, filters, output = sys.argv[1:]
with open(filters, "rb") as file:
    for name, each in pickle.load(file).items():
        run(datasets.load_from_disk(rows), each, f"{output}/{name}", rows_per_batch=1)
"""


def parts(folder):
    found = {path.relative_to(folder): path.read_bytes() for path in sorted(Path(folder).rglob("part-*.parquet"))}
    assert len(found) == 3  # 40 rows in shards of 16
    return found


@pytest.fixture(scope="module")
def local(built, rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    for name, each in built.items():
        run(rows, each, folder / name, rows_per_batch=1)
    return {name: parts(folder / name) for name in CATALOGUE}


def test_two_processes_give_the_parts_of_one(built, rows, local, tmp_path):
    import pickle

    rows.save_to_disk(tmp_path / "rows")
    (tmp_path / "filters.pickle").write_bytes(pickle.dumps(built))
    (tmp_path / "worker.py").write_text(WORKER)
    done = torchrun(tmp_path / "worker.py", tmp_path / "rows", tmp_path / "filters.pickle", tmp_path / "two", timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in CATALOGUE:
        assert parts(tmp_path / "two" / name) == local[name], name
