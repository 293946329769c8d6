"""Every verb replays from its own `run.yaml` to the same bytes."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers import simulated
from helpers.models import build
from helpers.replay import replay
from helpers.small import random_texts, word_tokenizer
from memtax.jobs import VERBS, job_class
from memtax.jobs.base import Job


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Settings of each verb, over a tiny model and a table of factors."""
    folder = tmp_path_factory.mktemp("given")
    model = str(folder / "model")
    build("gpt_neox").save_pretrained(model)
    word_tokenizer().save_pretrained(model)
    texts = random_texts(24, 12)
    rows = [{"text": text, "paraphrases": random_texts(2, 12, seed)} for seed, text in enumerate(texts)]
    for name, part in (("all", rows), ("first", rows[:12]), ("second", rows[12:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    every, first, second = (str(folder / f"{name}.jsonl") for name in ("all", "first", "second"))
    table = simulated.table(300)
    ids = pa.array(range(table.num_rows), pa.int64())
    pq.write_table(table.append_column("sequence_id", ids), folder / "table.parquet")
    data = str(folder / "table.parquet")
    lengths = {"prompt": "4", "continuation": "4"}
    return {
        "count": {"corpus": (every,), "tokenizer": model, "window": ("4:8",)},
        "score": {"sequences": every, "model": model, **lengths},
        "filter": {"names": ("compressibility", every)},
        "fit": {"data": data, "factors": ("a", "b"), "resamples": 20},
        "search": {"data": data, "factors": ("a",), "split_on": ("a", "b"), "resamples": 20},
        "align": {"pairs": every, "model": model},
        "mia": {"members": first, "nonmembers": second, "model": model, "resamples": 20},
        "influence": {"train": first, "test": second, "model": model},
        "paraphrase": {"data": first, "model": model, "count": 1, "min_ratio": 0.1, "max_ratio": 10.0},
        "counterfactual": {"data": first, "model": model, "models": 4, "epochs": 1.0, "max_length": 16},
        "run": {"corpus": first, "model": model, "held_out": second, "prompt": 4, "continuation": 4},
        "audit": {"train": first, "model": model, "held_out": second, "prompt": 4, "continuation": 4, "resamples": 20},
    }


@pytest.mark.parametrize(
    "verb", ["count", "filter", "search", "align", "mia", "influence", "paraphrase", "counterfactual", "run", "audit"]
)
def test_the_record_replays_to_the_same_bytes(given, tmp_path, verb):
    replay(verb, given[verb], tmp_path)


def test_a_fit_and_its_predictions_replay(given, tmp_path):
    predictor = replay("fit", given["fit"], tmp_path / "fit")
    replay("predict", {"predictor": predictor, "data": given["fit"]["data"]}, tmp_path / "predict")


def test_scores_and_their_comparison_replay(given, tmp_path):
    scores = replay("score", given["score"], tmp_path / "score")
    replay("compare", {"first": scores, "second": scores}, tmp_path / "compare")


def test_every_verb_with_an_output_is_replayed(given):
    # The record of a demo is that of its run. A verb may be replayed in a test file of its own.
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    verbs = {verb for verb in VERBS if issubclass(job_class(verb), Job)}
    assert {verb for verb in verbs - {*given} if f'replay("{verb}"' not in tests} <= {"demo"}
