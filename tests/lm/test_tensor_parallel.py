"""Tensor parallelism: every layer is split over two processes, and the values are those of one process."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers import processes
from helpers.models import build, random_sequences
from helpers.versions import older
from memtax.errors import MemtaxError
from memtax.filters import LanguageModelFilter
from memtax.jobs.run import Run
from memtax.jobs.score import Score


def saved(folder, name):
    build(name).save_pretrained(folder / name)
    return str(folder / name)


def scores(output):
    (part,) = sorted((output / "dataset" / "scores").glob("*.parquet"))
    return pq.read_table(part)


@pytest.mark.skipif(older("transformers", "5.21"), reason="transformers splits such models since 5.21")
@pytest.mark.parametrize("name", ["gpt_neox", "llama_tied"])
def test_two_processes_with_half_of_each_layer_score_as_one(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tokens = random_sequences([8 + number % 9 for number in range(40)], seed=3)
    pq.write_table(pa.table({"sequence_id": range(len(tokens)), "tokens": tokens}), "rows.parquet")
    lengths = {"prompt": (4,), "continuation": (4,)}
    one = Score(
        sequences="rows.parquet", model=saved(tmp_path, name), **lengths, moments=True, ranks=True, output=tmp_path / "one"
    )
    one.run()
    ended = processes.torchrun(
        *("-m", "memtax", "score", "rows.parquet", "--model", name, "--prompt", "4", "--continuation", "4"),
        *("--moments", "--ranks", "--device-map", "tensor", "--output", "two"),
        cards=False,
    )
    assert ended.returncode == 0, ended.stderr
    here, there = scores(tmp_path / "one"), scores(tmp_path / "two")
    assert here.schema == there.schema
    for column in here.column_names:
        expected, found = here[column].to_pylist(), there[column].to_pylist()
        if here.schema.field(column).type in (pa.float32(), pa.list_(pa.float32())):
            flat = [np.array([x for row in rows if row is not None for x in np.atleast_1d(row)]) for rows in (expected, found)]
            np.testing.assert_allclose(*flat, rtol=1e-5, atol=1e-5, err_msg=column)
        else:
            assert expected == found, column
    assert json.loads((tmp_path / "two" / "summary.json").read_text())["figures"]["extraction"]


def test_what_cannot_be_split_is_refused(tmp_path):
    model = saved(tmp_path, "gpt_neox")
    rows = {"sequence_id": [0], "tokens": [[1, 2, 3]]}
    with pytest.raises(MemtaxError, match="torchrun --nproc_per_node N"):
        LanguageModelFilter(model, prompt=1, continuation=1, device_map="tensor")(rows)
    with pytest.raises(MemtaxError, match="attention needs all heads"):
        LanguageModelFilter(model, attention=True, device_map="tensor")
    job = Run(model=model, corpus="none", output=tmp_path / "run", device_map="tensor")
    with pytest.raises(MemtaxError, match="memtax run cannot split layers"):
        job.run()
