"""Models trained with and without each text: what they say of it, and LiRA and RMIA on top of it."""

import json
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import ttest_ind
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
from typer.testing import CliRunner

from helpers.processes import torchrun
from helpers.small import WORDS, random_texts, word_tokenizer
from memtax.cli import app
from memtax.errors import MemtaxError, StaleOutputError
from memtax.membership.in_minus_out import Training, _summary, compare, describe, subsets
from memtax.results import read_summary


def test_every_text_is_in_half_of_the_models():
    found = subsets(21, Training("m", models=6))
    assert found.shape == (6, 21)
    assert found.sum(axis=1).tolist() == [10] * 6
    # Pairs are opposite: at most the middle text of an odd number is in neither.
    assert (found[0] & found[1]).sum() == 0
    assert (subsets(20, Training("m", models=6)).sum(axis=0) == 3).all()
    assert not (subsets(20, Training("m", models=6, seed=1)) == subsets(20, Training("m", models=6))).all()
    with pytest.raises(MemtaxError, match="at least 4"):
        Training("m", models=2)


def test_in_minus_out_with_its_interval():
    scores = [[-1.0, -2.0, None], [-1.5, -2.0, None], [-3.0, -2.0, None], [-2.0, -2.0, None]]
    included = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 0], [0, 0, 0]], bool)
    first, second, third = compare([7, 8, 9], scores, included).to_pylist()
    # (-1 - 1.5) / 2 - (-3 - 2) / 2 = 1.25.
    assert first["counterfactual_memorization"] == pytest.approx(1.25)
    interval = ttest_ind([-1.0, -1.5], [-3.0, -2.0], equal_var=False).confidence_interval()
    assert (first["counterfactual_low"], first["counterfactual_high"]) == pytest.approx((interval.low, interval.high))
    assert second["counterfactual_memorization"] is None  # one model only was trained with it
    assert third["counterfactual_memorization"] is None
    assert third["model_scores"] == [None] * 4
    # Two models that agree to the bit have no variance; two without any leave no interval. No warning in either case.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = compare(
            [1, 2], [[-1.0, -1.0], [-1.0, -1.0], [-3.0, -2.0], [-2.0, -2.0]], np.array([[1, 1], [1, 1], [0, 0], [0, 0]], bool)
        )
    one, same = rows.to_pylist()
    # Welch: the standard error is that of (-3, -2) alone, .5, with its one degree of freedom: 12.706 of it on both sides.
    assert one["counterfactual_high"] - 1.5 == pytest.approx(12.7062 * 0.5, rel=1e-5)
    assert (same["counterfactual_low"], same["counterfactual_high"]) == (1, 1)


def save_base(folder):
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
        bos_token_id=0,
        eos_token_id=0,
    )
    GPTNeoXForCausalLM(config).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return str(folder)


def test_the_summary_counts_what_chance_and_benjamini_hochberg_leave():
    rng = np.random.default_rng(6)
    models, rows = 10, 60
    included = np.array([[(row + model) % 2 == 0 for model in range(models)] for row in range(rows)])
    shift = np.where(np.arange(rows) < 15, 2.0, 0.0)
    scores = rng.normal(size=(rows, models)) * 0.5 + shift[:, None] * included
    table = compare(range(rows), scores.T.tolist(), included.T)
    documents = pa.table({"document": [f"d{row // 5}" for row in range(rows)], "text": [f"t{row}" for row in range(rows)]})
    found = _summary(table, Training("m", models=models), documents)
    p_values = [
        ttest_ind(scores[row][included[row]], scores[row][~included[row]], equal_var=False, alternative="greater").pvalue
        for row in range(rows)
    ]
    kept = max([rank for rank, p in enumerate(sorted(p_values), 1) if p <= 0.05 * rank / rows], default=0)
    assert found["memorized_by_fdr"] == kept >= 14
    # The 95% interval lies above 0 for 2.5% of the texts by chance.
    assert found["expected_by_chance"] == pytest.approx(0.025 * rows)
    assert found["clearly_memorized"] == sum(low > 0 for low in table["counterfactual_low"].to_pylist())
    assert found["units"] == {"name": "documents", "number": 12}
    assert found["interval"]["low"] < found["mean"] < found["interval"]["high"]
    assert any("1.5 are expected by chance" in line for line in describe(found))


def test_two_processes_train_the_same_models(tmp_path):
    base = save_base(tmp_path / "base")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in random_texts(8, 10)))
    command = ["counterfactual", str(tmp_path / "rows.jsonl"), "--model", base, "--models", "5"]
    command += ["--epochs", "2", "--learning-rate", "0.01", "--output"]
    done = torchrun("-m", "memtax", *command, tmp_path / "two")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("summary  ") == 1
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert CliRunner().invoke(app, [*command, str(tmp_path / "one")], catch_exceptions=False).exit_code == 0
    finally:
        torch.set_num_threads(threads)
    one, two = (sorted((tmp_path / name / "models").glob("*/adapter_model.safetensors")) for name in ("one", "two"))
    assert len(one) == 5
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    files = [tmp_path / name / "dataset" / "counterfactual" / "train.parquet" for name in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_counterfactual_and_strong_attacks(tmp_path):
    save_base(tmp_path / "base")
    texts = random_texts(64, 14, seed=3)
    (tmp_path / "data").mkdir()
    for kind, part in (("member", texts[:32]), ("nonmember", texts[32:])):
        (tmp_path / "data" / f"x.{kind}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in part))
    arguments = ["counterfactual", str(tmp_path / "data"), "--model", str(tmp_path / "base"), "--full", "--models", "5"]
    arguments += ["--epochs", "40", "--learning-rate", "0.01", "--batch-size", "32", "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    scores = pq.read_table(tmp_path / "out" / "dataset" / "counterfactual" / "train.parquet").to_pylist()
    # With the text in the training data it is likelier, nearly always.
    values = [row["counterfactual_memorization"] for row in scores if row["counterfactual_memorization"] is not None]
    assert np.mean([value > 0 for value in values]) > 0.95
    # The fifth model is attacked; the other four are its references.
    target = tmp_path / "out" / "models" / "004"
    used = set(json.loads((target / "training_rows.json").read_text())["rows"])
    assert used == {number for number, row in enumerate(scores) if row["model_included"][4]}
    rows = [{"text": text, "label": int(number in used)} for number, text in enumerate(texts)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = pq.read_table(tmp_path / "out" / "dataset" / "counterfactual" / "train.parquet")
    for name in ("model_scores", "model_included"):
        cut = [values[:4] for values in table.column(name).to_pylist()]
        field = table.schema.field(name)
        table = table.set_column(table.column_names.index(name), field, pa.chunked_array([pa.array(cut, field.type)]))
    pq.write_table(table, tmp_path / "references.parquet")
    command = ["mia", str(tmp_path / "rows.jsonl"), "--model", str(target), "--output", str(tmp_path / "mia")]
    command += ["--attack", "loss", "--attack", "lira", "--attack", "rmia", "--resamples", "100"]
    done = CliRunner().invoke(app, [*command, "--references", str(tmp_path / "references.parquet")], catch_exceptions=False)
    assert done.exit_code == 0
    figures = read_summary(tmp_path / "mia", "mia")["domains"]["all"]
    # A quarter of the 32 non-members is RMIA's population.
    assert figures["nonmembers"] == 24
    assert figures["attacks"]["lira"]["auroc"]["low"] > 0.8
    assert figures["attacks"]["rmia"]["auroc"]["low"] > 0.8
    # Nothing is trained again, unless the settings are others.
    weights = target / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    assert weights.stat().st_mtime_ns == before
    with pytest.raises(StaleOutputError):
        CliRunner().invoke(app, [*arguments, "--seed", "2"], catch_exceptions=False)
