"""The verbs `fit`, `search` and `predict`, as typed."""

import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook
from typer.testing import CliRunner

from helpers import simulated
from helpers.models import VOCABULARY, build
from memtax import cli
from memtax.errors import MemtaxError, StaleOutputError
from memtax.predictor.predictor import Predictor
from memtax.results import read_summary, read_table


@pytest.fixture
def data(tmp_path):
    table = simulated.table(rows=2500)
    table = table.append_column("sequence_id", pa.array(np.arange(2500)))
    pq.write_table(table, tmp_path / "data.parquet")
    return str(tmp_path / "data.parquet")


def typed(*words):
    return CliRunner().invoke(cli.app, [str(word) for word in words], catch_exceptions=False)


def test_fit_then_predict(data, tmp_path):
    done = typed(
        "fit", data, "-o", tmp_path / "model", "--factors", "a, b", "--resamples", 20, "--calibration", "recalibration"
    )
    assert done.exit_code == 0
    assert f"predictor {tmp_path / 'model/models/predictor'}" in done.output
    assert {"README.md", "correlations.json", "figures", "inference.json", "model.safetensors", "predictor.json"} <= {
        path.name for path in (tmp_path / "model/models/predictor").iterdir()
    }
    predictor = Predictor.from_pretrained(tmp_path / "model")
    assert (predictor.factors, predictor.metrics["calibration"]) == (("a", "b"), "recalibration")
    for flags, model in ((), "taxonomic"), (("--baseline",), "baseline"):
        done = typed("predict", tmp_path / "model", data, "-o", tmp_path / model, *flags)
        assert done.exit_code == 0
        found = read_table(tmp_path / model, "predictions")["memorized_probability"].combine_chunks()
        assert found == predictor.predict(pq.read_table(data), model).cast("float32")


def test_a_folder_holds_the_predictor_of_one_table_and_one_set_of_options(data, tmp_path):
    words = ("fit", data, "-o", tmp_path / "model", "--factors", "a,b", "--resamples", 20, "--no-explain")
    with pytest.raises(MemtaxError, match="no column 'c'"):
        typed("fit", data, "-o", tmp_path / "model", "--factors", "a,c:log")
    # What could not be fitted does not stand in the way of what can.
    assert typed(*words).exit_code == 0
    before = (tmp_path / "model/models/predictor/predictor.json").read_bytes()
    assert typed(*words).exit_code == 0
    with pytest.raises(StaleOutputError, match=r"changed: seed\)"):
        typed(*words, "--seed", 5)
    pq.write_table(pq.read_table(data).slice(1), data)
    with pytest.raises(StaleOutputError, match=r"changed: inputs\)"):
        typed(*words)
    assert (tmp_path / "model/models/predictor/predictor.json").read_bytes() == before


def test_probes_of_a_model(tmp_path):
    rng = np.random.default_rng(0)
    table = simulated.table(rows=400)
    # Memorized sequences are of low tokens: even random layers tell them by their embeddings.
    memorized = np.array(table["is_memorized"])
    tokens = [rng.integers(0, 30 if one else VOCABULARY, 16).tolist() for one in memorized]
    pq.write_table(table.append_column("tokens", pa.array(tokens, pa.list_(pa.int32()))), tmp_path / "data.parquet")
    build("gpt_neox").save_pretrained(tmp_path / "lm")
    options = ("--factors", "a,b", "--resamples", 20, "--no-explain", "--probe", tmp_path / "lm", "--batch-size", 48)
    sizes = []

    def watch(module, inputs, output):
        if isinstance(module, torch.nn.Embedding):
            sizes.append(len(output))

    with register_module_forward_hook(watch):
        assert typed("fit", tmp_path / "data.parquet", "-o", tmp_path / "model", *options).exit_code == 0
    assert max(sizes) == 48
    rows = json.loads((tmp_path / "model/models/predictor/probes.json").read_text())["probes"]
    # Embeddings and two layers, each with shuffled labels, and the factors; for memorized-or-not and for the category.
    assert len(rows) == 2 * (3 * 2 + 1)
    found = {(row["probe"], row["layer"]): row["value"] for row in rows}
    assert found["memorized", 0] > 0.9
    assert found["memorized, shuffled labels", 0] < 0.8
    assert (tmp_path / "model/models/predictor/figures/probes_category.svg").exists()


def test_search_in_slices(data, tmp_path):
    words = ("search", data, "--factors", "a,b", "--split-on", "a,b", "--resamples", 20)
    assert typed(*words, "-o", tmp_path / "one", "--stop", 9).exit_code == 0
    assert not (tmp_path / "one/summary.json").exists()
    done = typed(*words, "-o", tmp_path / "two", "--start", 9, "--merge", tmp_path / "one", "--greedy")
    assert done.exit_code == 0
    # 2 ordered pairs x 9 pairs of quantiles.
    assert sorted(read_table(tmp_path / "two", "partitions")["partition"].to_pylist()) == list(range(18))
    assert "greedy" in read_summary(tmp_path / "two", "search")


def test_what_the_user_can_mend_is_one_line(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["memtax", "fit", data, "-o", str(tmp_path / "x"), "--factors", "absent:log"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert "no column 'absent'" in lines[-1]
    assert not (tmp_path / "x").exists()
