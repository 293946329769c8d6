"""One call from a model and a dataset to a table, against the same figures taken the slow way."""

import datasets
import numpy as np
import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

import memtax
from memtax.errors import MemtaxError

PROMPT, CONTINUATION = 4, 3


@pytest.fixture(scope="module")
def material():
    """A small random model, and rows of which a third are what it writes by itself."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = GPTNeoXConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
    )
    model = GPTNeoXForCausalLM(config).eval()
    rng = np.random.default_rng(0)
    rows = rng.integers(1, 30, (12, PROMPT + CONTINUATION)).tolist()
    with torch.inference_mode():
        for row in rows[:4]:
            for place in range(PROMPT, PROMPT + CONTINUATION):
                row[place] = int(model(torch.tensor([row[:place]])).logits[0, -1].argmax())
    rows.append([1, 2])
    dataset = datasets.Dataset.from_dict(
        {
            "tokens": rows,
            "text": [" ".join(map(str, row)) for row in rows],
            "sequence_duplicates": [9, 1] * 6 + [1],
            "is_member": [1] * 6 + [0] * 7,
        }
    )
    return model, dataset


def figures(table):
    return {(row["metric"], row["measure"]): row for row in table.to_pylist()}


def test_figures_are_those_of_the_slow_way(material):
    model, dataset = material
    names = ["k_extractability", "probabilistic_extraction", "membership_inference", "membership_scores"]
    names += ["memorization_taxonomy", "templating", "coding_length"]
    options = {"probabilistic_extraction": {"samples": [50], "probabilities": [0.5]}, "membership_inference": {"resamples": 0}}
    found = figures(memtax.evaluate_model(model, dataset, names, prompt=PROMPT, continuation=CONTINUATION, options=options))
    extracted, reached, likelihoods = [], [], []
    with torch.inference_mode():
        for row in dataset["tokens"][:]:
            logprobs = model(torch.tensor([row])).logits[0].double().log_softmax(-1)
            mine = [logprobs[t - 1, row[t]].item() for t in range(1, len(row))]
            likelihoods.append(np.mean(mine))
            if len(row) == PROMPT + CONTINUATION:
                greedy = [logprobs[t - 1].argmax().item() for t in range(PROMPT, len(row))]
                extracted.append(greedy == row[PROMPT:])
                reached.append(1 - (1 - np.exp(sum(mine[PROMPT - 1 :]))) ** 50 >= 0.5)
    assert sum(extracted) >= 4
    rate = found["k_extractability", "k_extractable"]
    assert (rate["value"], rate["rows"]) == (pytest.approx(np.mean(extracted)), 12)
    assert rate["low"] < rate["value"] < rate["high"]
    assert found["probabilistic_extraction", "extractable_n50_p0.5"]["value"] == pytest.approx(np.mean(reached))
    members = np.array(dataset["is_member"][:], bool)
    likelihoods = np.array(likelihoods)
    pairs = likelihoods[members][:, None] > likelihoods[~members][None, :]
    assert found["membership_inference", "auroc"]["value"] == pytest.approx(pairs.mean())
    assert found["membership_inference", "auroc"]["low"] is None
    assert found["membership_scores", "auroc_loss"]["value"] == pytest.approx(pairs.mean())
    assert found["memorization_taxonomy", "recitation_rate"]["value"] == pytest.approx(np.mean(extracted[::2]))
    assert found["coding_length", "sequences"]["value"] == 13


@pytest.mark.parametrize(
    ("names", "more", "message"),
    [
        (["auroc"], {}, "no metric 'auroc'"),
        ([], {}, "metrics are none"),
        (["templating"], {"options": {"x": {}}}, "options are for x"),
        (["calibration_error"], {}, "has no column 'memorized_probability'"),
        (["k_extractability"], {"prompt": 9, "continuation": 9}, "no row has 18 tokens"),
        (["k_extractability"], {"prompt": 0}, "at least 1 token"),
    ],
)
def test_what_is_missing_is_named(material, names, more, message):
    with pytest.raises(MemtaxError, match=message):
        memtax.evaluate_model(*material, names, **{"prompt": PROMPT, "continuation": CONTINUATION, **more})
