"""An audit of unlearning halves the documents to forget, trains on one half, and says what comes back of the other."""

import importlib.util
import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

import memtax
from helpers import special_tokens as small
from helpers.models import oracle
from memtax.errors import MemtaxError
from memtax.pipeline import audit_unlearning, unlearning
from memtax.report.comparison import compare
from memtax.statistics import Units

PROMPT, CONTINUATION, STEPS, RATE = 3, 3, 12, 1e-2


def by_hand(model, sequences, steps, rate):
    """Relearning row by row, without padding."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    rng, order = np.random.default_rng(1024), []
    for _ in range(steps):
        order = order or rng.permutation(len(sequences)).tolist()
        batch, order = order[: unlearning.BATCH], order[unlearning.BATCH :]
        losses, targets = [], 0
        for row in batch:
            ids = torch.tensor([sequences[row]])
            logprobs = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
            losses.append(-logprobs[torch.arange(ids.shape[1] - 1), ids[0, 1:]].sum())
            targets += ids.shape[1] - 1
        optimizer.zero_grad()
        (sum(losses) / targets).backward()
        optimizer.step()


def test_relearning_is_that_of_rows_without_padding():
    sequences = [row[: 4 + number % 5] for number, row in enumerate(small.rows(13, 12))]
    model, other = small.model(), small.model()
    model.requires_grad_(False)
    before = {name: value.clone() for name, value in model.named_parameters()}
    unlearning.relearn(model, sequences, 4, 1e-3, (small.BOS,))
    by_hand(other, [[small.BOS, *row] for row in sequences], 4, 1e-3)
    for (name, value), expected in zip(model.named_parameters(), other.parameters(), strict=True):
        assert not torch.equal(value, before[name])
        # AdamW's first steps have the size of the rate, whatever the gradient.
        assert torch.allclose(value, expected, atol=2e-5), name
    assert not any(one.requires_grad for one in model.parameters())


def test_of_an_adapter_its_matrices_are_trained():
    model = get_peft_model(small.model(), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    model.requires_grad_(False)
    before = {name: value.clone() for name, value in model.named_parameters()}
    unlearning.relearn(model, small.rows(4, 8), 2, 1e-2, ())
    changed = [name for name, value in model.named_parameters() if not torch.equal(value, before[name])]
    assert changed == [name for name in before if "lora_" in name]


def test_figures_count_what_is_memorized_now_and_was_not():
    sets = np.array([unlearning.FORGET] * 3 + [unlearning.TRAINED] + [unlearning.HELD_OUT] * 2, object)
    columns = {
        "as given: memorized": [True, False, False, False, False, None],
        "as given: logprob": [-1.0, -5.0, -6.0, -7.0, -5.5, -9.0],
        "relearned: memorized": [True, True, False, True, False, False],
        "relearned: logprob": [-1.0, -1.0, -6.0, -1.0, -5.5, -9.0],
    }
    found = unlearning.figures(pa.table(columns), sets, Units(np.arange(6), "document"))
    given, relearned = found["states"]["as given"], found["states"]["relearned"]
    assert [given[name]["memorized"] for name in given] == [1, 0, 0]
    assert [relearned[name]["memorized"] for name in relearned] == [2, 1, 0]
    back = found["came_back"]["relearned"]
    # Of the sequences that are memorized as given, none can come back.
    assert {name: (row["memorized"], row["sequences"]) for name, row in back.items()} == {
        unlearning.FORGET: (1, 2),
        unlearning.TRAINED: (1, 1),
        unlearning.HELD_OUT: (0, 2),
    }
    table = unlearning.as_table(found).to_pylist()
    assert [row["came_back"] for row in table] == [None] * 3 + [1, 1, 0]


def share(memorized, sequences, low, high):
    names = ("memorized", "sequences", "rate", "low", "high", "unit", "units", "reason")
    return dict(zip(names, (memorized, sequences, memorized / sequences, low, high, "document", 30, None), strict=True))


@pytest.mark.parametrize(
    ("own", "unseen", "expected"),
    [
        (share(12, 30, 0.2, 0.6), share(0, 30, 0.0, 0.1), "shown"),
        (share(12, 30, 0.2, 0.6), share(9, 30, 0.1, 0.5), "not shown"),
        (share(0, 30, 0.0, 0.1), share(0, 30, 0.0, 0.1), "not shown"),
        (share(2, 3, None, None), share(0, 30, 0.0, 0.1), "withheld"),
        (share(12, 30, 0.2, 0.6), None, "shown"),
    ],
)
def test_verdict(own, unseen, expected):
    sets = {unlearning.FORGET: own} | ({} if unseen is None else {unlearning.HELD_OUT: unseen})
    found = {"steps": 20, "rate": 1e-5, "unmeasured": {"4 bits": "no bitsandbytes"}, "came_back": {"relearned": sets}}
    told = audit_unlearning.verdict(found)
    assert told["verdict"] == expected
    assert "4 bits (no bitsandbytes)" in told["sentence"]
    assert f"{own['memorized']} of {own['sequences']} sequences that the model had forgotten" in told["sentence"]
    empty = {**share(0, 1, None, None), "sequences": 0}
    kept = audit_unlearning.verdict({**found, "came_back": {"relearned": {**sets, unlearning.FORGET: empty}}})
    assert (kept["verdict"], "nothing can come back" in kept["sentence"]) == ("not measured", True)
    none = audit_unlearning.verdict({**found, "came_back": {}})
    assert (none["verdict"], none["sentence"]) == ("not measured", "Not measured: 4 bits (no bitsandbytes).")


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """An audit of a model that knows nothing; every text to forget occurs in two documents."""
    folder = tmp_path_factory.mktemp("unlearning")
    path = small.save("bos", folder / "model")
    texts = [small.words(row) for row in small.rows(26, PROMPT + CONTINUATION, seed=4)]
    rng = random.Random(2)
    sets = {"forget": rng.sample(texts[:10] * 2, 20), "retain": texts[10:14], "held": texts[14:]}
    files = {}
    for name, rows in sets.items():
        files[name] = str(folder / f"{name}.jsonl")
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    options = {"prompt": PROMPT, "continuation": CONTINUATION, "resamples": 20, "generate": 0}
    options |= {"relearn_steps": STEPS, "relearn_rate": RATE, "output": folder / "audit"}
    memtax.audit(model=path, forget=files["forget"], retain=files["retain"], held_out=files["held"], **options)
    return folder, path, files


def test_what_comes_back_is_what_a_model_relearned_by_hand_gives(audited):
    folder, path, _ = audited
    figures = json.loads((folder / "audit/summary.json").read_text())["figures"]
    found = figures["unlearning"]
    table = pq.read_table(folder / "audit/run/sequences/train.parquet").to_pylist()
    forget = [row for row in table if row["is_member"]]
    documents = sorted({row["document"] for row in forget}, key=lambda name: int(name.split()[-1]))
    assert len(documents) == 20
    half = np.random.default_rng(1024).permutation(np.arange(20))[:10]
    trained = {documents[place] for place in half}
    model = AutoModelForCausalLM.from_pretrained(path)
    before = AutoModelForCausalLM.from_pretrained(path).eval()
    by_hand(model, [[small.BOS, *row["tokens"]] for row in forget if row["document"] in trained], STEPS, RATE)

    def memorized(which, row):
        return bool(oracle(which.eval(), [small.BOS, *row["tokens"]])[1][-CONTINUATION:].all())

    others = [row for row in forget if row["document"] not in trained]
    back = [row["sequence_id"] for row in others if memorized(model, row) and not memorized(before, row)]
    assert found["sequence_ids"] == back
    assert 0 < len(back) < len(others)
    states = found["states"]
    assert states["relearned"]["forget"]["memorized"] == sum(memorized(model, row) for row in others)
    assert states["as given"]["forget"]["sequences"] == states["as given"]["forget, trained on again"]["sequences"] == 10
    assert (states["as given"]["retain"]["sequences"], states["as given"]["held out"]["sequences"]) == (4, 12)
    assert sorted(row["sequence_id"] for row in found["sequences"]) == sorted(
        {row["text"]: row["sequence_id"] for row in reversed([row for row in others if row["sequence_id"] in back])}.values()
    )
    if importlib.util.find_spec("bitsandbytes") is None:
        assert "needs bitsandbytes" in found["unmeasured"]["4 bits"]
    page = (folder / "audit/index.html").read_text()
    assert "Does what was forgotten come back?" in page
    assert all(row["text"] in page for row in found["sequences"])
    assert pq.read_table(next((folder / "audit/dataset/unlearning").rglob("*.parquet"))).num_rows == 8


def test_compare_of_two_audits_says_what_came_back(audited):
    folder = audited[0] / "audit"
    lines = compare(folder, folder).lines()
    figures = json.loads((folder / "summary.json").read_text())["figures"]["unlearning"]
    back = figures["came_back"]["relearned"]["forget"]
    counts = back["memorized"], back["sequences"]
    assert 0 < counts[0] < counts[1] <= 10
    before, after = f"{counts[0]} of {counts[1]} forgotten sequences", f"{counts[0]} of {counts[1]}"
    assert f"relearned: {before} came back before, {after} after" in lines


def test_training_data_or_what_to_forget_is_given(audited, tmp_path):
    _, path, files = audited
    for given in ({}, {"train": files["held"], "forget": files["forget"]}, {"train": files["held"], "retain": files["retain"]}):
        with pytest.raises(MemtaxError, match=r"--train.*--forget"):
            memtax.audit(model=path, output=tmp_path / "out", **given)
    with pytest.raises(MemtaxError, match="a served model does not allow"):
        memtax.audit(model="openai:http://localhost:1/v1#m", forget=files["forget"], output=tmp_path / "out")
