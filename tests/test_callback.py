"""The callback in real training runs: what is logged where, the table, stopping, and two processes."""

import json
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, Trainer, TrainerCallback, TrainingArguments

import memtax
from helpers.processes import torchrun
from memtax.errors import MemtaxError
from memtax.lm import extraction
from memtax.lm.scores import score

PROMPT, CONTINUATION, SIZE = 4, 6, 61
SMALL = {"prompt": PROMPT, "continuation": CONTINUATION}


def new_model():
    torch.manual_seed(0)
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=SIZE,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            max_position_embeddings=16,
        )
    )


def rows(count=12):
    return torch.randint(SIZE, (count, PROMPT + CONTINUATION), generator=torch.Generator().manual_seed(2)).tolist()


def trainer(output, callbacks, **options):
    data = datasets.Dataset.from_dict({"input_ids": rows(8), "labels": rows(8)})
    defaults = {"max_steps": 60, "per_device_train_batch_size": 8, "learning_rate": 5e-3, "logging_steps": 10}
    arguments = TrainingArguments(
        output_dir=str(output),
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        **{**defaults, **options},
    )
    return Trainer(model=new_model(), args=arguments, train_dataset=data, callbacks=callbacks)


class Integration(TrainerCallback):
    """Stands where TensorBoard and W&B stand: it sees what `on_log` is given."""

    def __init__(self):
        self.seen = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.seen.append((state.global_step, dict(logs)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that watches 8 sequences of the training data and 4 others, by category; one more is too short."""
    output = tmp_path_factory.mktemp("run")
    tokens = [*rows(), [1, 2, 3]]
    watched = datasets.Dataset.from_dict(
        {"tokens": tokens, "taxonomy": [0] * 6 + [2] * 6 + [None], "sequence_id": [10 * i for i in range(13)]}
    )
    callback = memtax.MemorizationCallback(watched, every=10, **SMALL)
    integration = Integration()
    run = trainer(output, [integration, callback])
    run.train()
    return run, callback, integration, output, tokens


def test_the_keys_reach_history_and_integrations_beside_the_trainers_own(finished):
    run, callback, integration, _, _ = finished
    history = [entry for entry in run.state.log_history if "memorization/rate" in entry]
    assert [entry["step"] for entry in history] == [10, 20, 30, 40, 50, 60]
    seen = [(step, logs) for step, logs in integration.seen if "memorization/rate" in logs]
    assert [step for step, _ in seen] == [10, 20, 30, 40, 50, 60]
    for (_, logs), entry, row in zip(seen, history, callback.rows, strict=True):
        assert logs.items() <= entry.items()
        assert logs["memorization/rate"] == row["memorized"] / 12  # the short one is not counted
        assert logs["memorization/count"] == row["memorized"]
        assert logs["memorization/recitation_count"] == row["categories"]["recitation"]["memorized"]
        assert row["categories"]["recollection"]["sequences"] == 6
        assert "memorization/reconstruction" not in logs  # no sequence has that category
    # The Trainer's loss was due at the same steps, and is not lost.
    assert [step for step, logs in integration.seen if "loss" in logs] == [10, 20, 30, 40, 50, 60]


def test_the_counts_are_those_of_the_final_model(finished):
    run, callback, _, _, tokens = finished
    found = extraction.columns(score(run.model, tokens), **SMALL)
    last = callback.rows[-1]
    assert last["memorized"] == sum(bool(value) for value in found["is_memorized"])
    assert last["match_length"] == sum(found["match_length"][:12]) / 12
    # Learned what it was trained on (6 recitations and 2 of the others), not the rest, and not from the start.
    assert last["categories"]["recitation"]["memorized"] == 6
    assert callback.rows[0]["memorized"] < last["memorized"] < 12


def test_the_table_holds_every_measurement(finished):
    _, callback, _, output, _ = finished
    table = datasets.Dataset.from_parquet(str(output / "memorization.parquet"))
    assert table.features["taxonomy"].names == ["recitation", "reconstruction", "recollection"]
    assert len(table) == 6 * 13
    assert table["step"][::13] == [10, 20, 30, 40, 50, 60]
    assert table["sequence_id"][:13] == [10 * i for i in range(13)]
    for number, row in enumerate(callback.rows):
        part = table.select(range(13 * number, 13 * number + 13))
        assert sum(bool(value) for value in part["is_memorized"]) == row["memorized"]
        assert part["is_memorized"][12] is part["match_length"][12] is None


def test_every_epoch_by_default_and_stopping_at_a_rate(tmp_path):
    callback = memtax.MemorizationCallback(rows(8), stop_at_rate=0.5, **SMALL)
    run = trainer(tmp_path, [callback], max_steps=-1, num_train_epochs=100)
    run.train()
    assert [row["epoch"] for row in callback.rows] == list(range(1, len(callback.rows) + 1))
    assert callback.rows[-1]["memorized"] >= 4 > callback.rows[-2]["memorized"]
    assert run.state.global_step < 100
    assert run.model.training  # as the Trainer left it


def test_training_is_the_same_whether_or_not_it_is_watched(tmp_path):
    plain = trainer(tmp_path / "plain", [])
    plain.train()
    watched = trainer(tmp_path / "watched", [memtax.MemorizationCallback(rows(), every=7, **SMALL)])
    watched.train()
    for (name, a), b in zip(plain.model.named_parameters(), watched.model.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_half_precision_training_is_watched_in_the_type_of_the_weights(tmp_path):
    found = []

    class Watch(memtax.MemorizationCallback):
        def _match_lengths(self, model):
            wrapped = model.forward
            inside = score(model, rows(), moments=True)
            # Accelerate's autocast is there again afterwards.
            assert model.forward is wrapped
            assert hasattr(model, "_original_forward")
            copy = new_model()
            copy.load_state_dict(model.state_dict())
            found.append((inside, score(copy.eval(), rows(), moments=True)))
            return super()._match_lengths(model)

    trainer(tmp_path, [Watch(rows(), every=2, **SMALL)], max_steps=4, bf16=True).train()
    assert len(found) == 2
    for inside, loaded in found:
        # The same weights, as a checkpoint would be scored: the same bits.
        assert (inside.logprobs == loaded.logprobs).all()
        assert (inside.means == loaded.means).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"every": 0}, "every=0"),
        ({"stop_at_rate": 0.0}, "stop_at_rate=0.0"),
        ({"prompt": 0}, "prompt=0"),
        ({"prompt": 40}, "none of the 12 sequences to watch has the 46 tokens"),
    ],
)
def test_what_cannot_work_is_said_at_once(wrong, message):
    with pytest.raises(MemtaxError, match=message):
        memtax.MemorizationCallback(rows(), **{**SMALL, **wrong})


def test_no_sequences_and_no_tokens():
    with pytest.raises(MemtaxError, match="none of the 0 sequences"):
        memtax.MemorizationCallback([])
    with pytest.raises(MemtaxError, match="has no column 'tokens'"):
        memtax.MemorizationCallback(datasets.Dataset.from_dict({"text": ["a"]}))


SCRIPT = """
import sys, json
sys.path.insert(0, sys.argv[2])
from test_callback import SMALL, Integration, rows, trainer
import memtax
callback = memtax.MemorizationCallback(rows(), every=20, **SMALL)
run = trainer(sys.argv[1], [callback], per_device_train_batch_size=4)
run.train()
assert run.args.world_size == 2
if run.is_world_process_zero():
    print("ROWS", json.dumps(callback.rows))
"""


def test_two_processes_share_the_sequences(tmp_path):
    here = Path(__file__).parent
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    done = torchrun(script, tmp_path / "out", here, cards=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("ROWS"))[5:])
    # Two halves of the batch of 8: the same training as with one process, up to rounding.
    callback = memtax.MemorizationCallback(rows(), every=20, **SMALL)
    trainer(tmp_path / "one", [callback]).train()
    assert [row["sequences"] for row in found] == [12, 12, 12]
    assert [row["memorized"] for row in found] == [row["memorized"] for row in callback.rows]
    assert pq.read_table(tmp_path / "out" / "memorization.parquet").num_rows == 36
