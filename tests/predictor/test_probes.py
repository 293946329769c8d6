import numpy as np
import pytest
import torch

from helpers.models import VOCABULARY, build
from memtax.errors import MemtaxError
from memtax.predictor.probes import hidden_states, probe, shuffle_units
from memtax.report.model_figures import probe_layers
from memtax.report.saving import svg


def layers(rows=900, width=24, seed=0):
    """Layer 0 is noise; layer 1 knows the class in one direction, layer 2 in all."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, rows)
    states = rng.normal(size=(3, rows, width)).astype(np.float32)
    states[1, :, 5] += labels
    states[2] += 2 * rng.normal(size=(3, width))[labels]
    return states, labels, rng


def test_probes_find_what_is_there_and_nothing_else():
    states, labels, rng = layers()
    factors = np.column_stack([rng.normal(size=len(labels)), labels + rng.normal(size=len(labels))])
    rows = {(row["layer"], row["probe"]): row for row in probe(states, labels, factors, name="category", resamples=50)}
    assert len(rows) == 3 * 2 + 1
    assert all(row["metric"] == "balanced_accuracy" and row["low"] <= row["value"] <= row["high"] for row in rows.values())
    # Chance is 1/3; 180 test rows leave a standard error of .035.
    assert rows[0, "category"]["value"] == pytest.approx(1 / 3, abs=0.12)
    assert rows[1, "category"]["value"] > 0.5
    assert rows[2, "category"]["low"] > 0.95
    for layer in range(3):
        assert rows[layer, "category, shuffled labels"]["value"] == pytest.approx(1 / 3, abs=0.2)
    assert rows[None, "category, factors only"]["value"] > 0.45


def test_two_classes_are_ranked():
    states, labels, _ = layers()
    rows = probe(states, (labels > 0).astype(np.int64), resamples=30)
    assert {row["metric"] for row in rows} == {"roc_auc"}
    assert rows[4]["probe"] == "memorized"
    assert rows[4]["value"] > 0.97


def test_test_rows_do_not_teach():
    # A direction that tells the class in test rows alone stays unknown: training saw noise there.
    from memtax.predictor.split import stratified_split

    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 1000)
    states = rng.normal(size=(1, 1000, 8)).astype(np.float32)
    test = stratified_split(labels, 0.2, 0.2, 1024).test
    states[0, test, 3] = 0.01 * labels[test]
    assert probe(states, labels, resamples=30)[0]["value"] == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("name", ["gpt_neox", "llama"])
def test_hidden_states_are_those_of_the_model(name):
    model = build(name)
    sequences = np.random.default_rng(0).integers(0, VOCABULARY, (5, 12)).tolist()
    with torch.no_grad():
        expected = torch.stack(model(torch.tensor(sequences), output_hidden_states=True).hidden_states)
    assert expected.shape[0] == 3  # embeddings and two layers
    np.testing.assert_allclose(hidden_states(model, sequences, batch=2), expected.mean(2), atol=1e-5)
    np.testing.assert_allclose(hidden_states(model, sequences, "last"), expected[:, :, -1], atol=1e-5)
    with pytest.raises(MemtaxError, match="of one length are needed, not of 2, 3"):
        hidden_states(model, [[1, 2], [1, 2, 3]])


def test_refusals_and_figure():
    states, labels, _ = layers(60)
    with pytest.raises(MemtaxError, match="do not fit"):
        probe(states, labels[:5])
    with pytest.raises(MemtaxError, match="each class needs 10 training rows"):
        probe(states[:, :20], labels[:20])
    rows = probe(*layers(200)[:2], factors=np.random.default_rng(0).normal(size=(200, 2)), resamples=20)
    text = svg(probe_layers(rows))
    assert text == svg(probe_layers(rows))
    assert text.count("<path") > 10


def test_shuffled_labels_stay_alike_within_documents():
    rng = np.random.default_rng(3)
    units = rng.permutation(np.repeat(np.arange(30), rng.integers(4, 20, 30)))
    labels = (units % 3 == 0).astype(np.int64)
    shuffled = shuffle_units(labels, units, rng)
    assert sorted(shuffled) == sorted(labels)
    assert (shuffled != labels).any()
    pure = [len(set(shuffled[units == unit].tolist())) == 1 for unit in range(30)]
    assert np.mean(pure) > 0.5
    rows = shuffle_units(labels, np.arange(len(labels)), rng)
    assert sorted(rows) == sorted(labels)
    agreement = [(shuffle_units(labels, np.arange(len(labels)), rng) == labels).mean() for _ in range(200)]
    assert np.mean(agreement) == pytest.approx(labels.mean() ** 2 + (1 - labels.mean()) ** 2, abs=0.02)
