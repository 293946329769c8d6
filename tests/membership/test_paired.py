"""EZ and WBC against published vectors, loops in float64 over a random model and a perturbed copy, and rules for edge cases."""

import math

import numpy as np
import pytest
import torch

from helpers.models import build, oracle
from helpers.small import WORDS, batch, bigram_model, save, word_tokenizer
from memtax.membership.attacks import ATTACKS
from memtax.membership.column_scores import score_rows
from memtax.membership.evidence import AttackFilter
from memtax.membership.paired import FORCED, SIZES, ez, raise_forced, wbc, window_sizes

DELTAS = np.array([0.5, -1, 0.25, 0.25, -0.1, 2])
WRONG = np.array([1, 1, 0, 1, 1, 0], bool)


def slow_ez(deltas, wrong):
    """Class (0: a ratio, 1: no losses, 2: no errors) and value, by a loop."""
    gains, losses, count = 0.0, 0.0, 0
    for place, (delta, is_wrong) in enumerate(zip(deltas, wrong, strict=True)):
        if place and is_wrong:
            count += 1
            gains, losses = gains + max(delta, 0), losses + max(-delta, 0)
    if not len(deltas):
        return None
    if not count:
        return 2, 0.0
    if losses == 0:
        return 1, gains / (1 + gains)
    return (0, gains / losses) if count >= 2 else None


def slow_wbc(deltas, sizes=SIZES):
    shares = []
    for size in sizes:
        size = min(size, len(deltas))
        sums = [math.fsum(deltas[start : start + size]) for start in range(len(deltas) - size + 1)]
        shares.append(sum(value > 0 for value in sums) / len(sums))
    return sum(shares) / len(shares)


def test_published_vectors():
    assert ez(DELTAS, WRONG) == pytest.approx(0.2272727272727273)
    # With a neutral token before, the first position counts: P = .75, N = 1.1.
    assert ez(np.r_[0, DELTAS], np.r_[True, WRONG]) == pytest.approx(0.6818181818181818)
    assert wbc(DELTAS, (1, 2, 3)) == pytest.approx(0.5888888888888889)
    assert wbc(DELTAS) == pytest.approx(0.8433333333333334)
    assert (wbc(np.array([0.3])), wbc(np.array([-0.3])), wbc(np.zeros(2))) == (1, 0, 0)
    assert window_sizes() == (2, 3, 4, 5, 8, 11, 15, 21, 29, 40)


def test_edge_cases_rank_as_members_and_others_are_null():
    nothing = np.empty(0)
    one_error = np.array([False, True, False])
    losing = ez(np.array([0.1, -0.2, 0.3]), one_error)
    no_losses = ez(np.array([0.5, 0.3, 0.2]), np.array([False, True, True]))
    no_errors = ez(np.array([0.1, 0.2]), np.zeros(2, bool))
    assert losing is ez(nothing, nothing.astype(bool)) is wbc(nothing) is None
    assert 1e9 < FORCED < no_losses < no_errors
    assert ez(np.array([math.nan, 1.0]), np.ones(2, bool)) is wbc(np.array([-math.inf, 1.0])) is None
    # The largest ratio is 7; P = .5 without losses: 7 + 1 + .5 / 1.5.
    assert raise_forced([7.0, None, no_losses, 0.2, no_errors]) == pytest.approx([7, None, 8 + 1 / 3, 0.2, 9], nan_ok=True)
    assert raise_forced([no_errors, no_losses]) == pytest.approx([2, 1 + 1 / 3])


def test_scores_are_those_of_loops():
    rng = np.random.default_rng(0)
    for _ in range(200):
        length = int(rng.integers(1, 60))
        deltas, wrong = rng.normal(size=length) * rng.choice([0, 1, 1], length), rng.random(length) < rng.choice([0, 0.1, 0.6])
        assert wbc(deltas) == pytest.approx(slow_wbc(deltas))
        expected, found = slow_ez(deltas, wrong), ez(deltas, wrong)
        if expected is None:
            assert found is None
        elif expected[0]:
            assert found == pytest.approx(FORCED * (expected[0] + expected[1]))
        else:
            assert found == pytest.approx(expected[1])


def test_the_filter_gives_the_scores_of_a_model_and_its_base(tmp_path):
    model, base = build("gpt_neox", vocab_size=len(WORDS)), build("gpt_neox", vocab_size=len(WORDS))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    rng = np.random.default_rng(4)
    texts = [" ".join(rng.choice(WORDS[1:], length)) for length in (2, 3, 9, 30, 60)]
    found = AttackFilter(
        save(model, tmp_path / "model"), ("ez", "wbc", "reference"), reference_model=save(base, tmp_path / "base")
    )(batch(texts))
    for row, text in enumerate(texts):
        ids = word_tokenizer()(text)["input_ids"]
        (ours, match), (theirs, _) = oracle(model, ids), oracle(base, ids)
        deltas = (ours - theirs).tolist()
        assert found["attack_reference"][row] == pytest.approx(np.mean(deltas), abs=1e-5)
        assert found["attack_wbc"][row] == pytest.approx(slow_wbc(deltas))
        kind = slow_ez(deltas, (~match).tolist())
        expected = None if kind is None else FORCED * sum(kind) if kind[0] else kind[1]
        assert found["attack_ez"][row] == (None if expected is None else pytest.approx(expected, rel=1e-4))


def test_a_gradient_step_on_a_text_raises_its_scores(tmp_path):
    base, model = build("gpt2", vocab_size=len(WORDS)), build("gpt2", vocab_size=len(WORDS))
    rng = np.random.default_rng(5)
    members, others = ([" ".join(rng.choice(WORDS[1:], 40)) for _ in range(6)] for _ in range(2))
    ids = torch.tensor([word_tokenizer()(text)["input_ids"] for text in members])
    model(input_ids=ids, labels=ids).loss.backward()
    with torch.no_grad():
        for weight in model.parameters():
            weight -= 0.05 * weight.grad
    folders = save(model, tmp_path / "model"), save(base, tmp_path / "base")
    found = AttackFilter(folders[0], ("reference", "ez", "wbc"), reference_model=folders[1])(batch(members + others))
    for name in ("reference", "ez", "wbc"):
        values = found[f"attack_{name}"]
        assert min(values[:6]) > np.mean(values[6:]), name


def test_another_tokenizer_gives_no_paired_score(tmp_path):
    words = WORDS[:20]
    model = save(bigram_model(np.full((len(WORDS),) * 2, 1 / len(WORDS))), tmp_path / "model")
    other = save(bigram_model(np.full((20, 20), 1 / 20)), tmp_path / "other", words)
    found = AttackFilter(model, ("reference", "ez", "wbc"), reference_model=other)(batch(["w1 W2 w3 w4"]))
    assert found["attack_ez"] == found["attack_wbc"] == [None]
    assert found["attack_reference"][0] is not None


def test_columns_of_logprobs_give_the_same_scores():
    theirs = [(-3 - DELTAS).tolist(), [-3.5, -3.3, -3.2], None]
    ours = [[-3.0] * 6, [-3.0] * 3, None]
    found = score_rows(ours, reference_predictions=theirs, matches=[(~WRONG).tolist(), [1, 0, 0], None])
    assert found["wbc"] == pytest.approx([wbc(DELTAS), 1.0, None], nan_ok=True)
    # The second has no losses at its errors (P = .5): above the largest ratio by 1 + .5 / 1.5.
    assert found["ez"] == pytest.approx([5 / 22, 5 / 22 + 4 / 3, None], nan_ok=True)
    assert ATTACKS["ez"].needs == ("deltas", "errors")
