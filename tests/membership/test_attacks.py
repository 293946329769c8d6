"""Attack scores against closed forms: a uniform model, and one whose next token depends on the last one alone."""

import itertools
import math
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import norm

from helpers.small import VOCABULARY, WORDS, batch, bigram_model, ids, random_texts, save, transitions, word_tokenizer
from memtax import schema
from memtax.errors import MemtaxError
from memtax.membership import attacks
from memtax.membership.attacks import ATTACKS, EVIDENCE, GRID, Attack, choose
from memtax.membership.evidence import AttackFilter, token_values
from memtax.membership.strong import deviations, lira, rmia, shrink_variances

PLAIN = ("loss", "zlib", "min_k", "min_k_plus_plus", "lowercase", "recall")


@pytest.fixture(scope="module")
def bigram(tmp_path_factory):
    return save(bigram_model(transitions()), tmp_path_factory.mktemp("bigram"))


@pytest.fixture(scope="module")
def uniform(tmp_path_factory):
    return save(bigram_model(np.full((VOCABULARY, VOCABULARY), 1 / VOCABULARY)), tmp_path_factory.mktemp("uniform"))


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    file = tmp_path_factory.mktemp("counts") / "token_frequencies.parquet"
    table = pa.table({"token_id": np.arange(VOCABULARY), "token_frequency": np.arange(VOCABULARY) * 3})
    pq.write_table(table.cast(schema.arrow_schema(("token_id", "token_frequency"))), file)
    return str(file.parent)


def known(text, probabilities):
    """log p of tokens 1.. and the mean and deviation of log p, by loops in float64."""
    tokens = ids(text)
    logp = np.array([math.log(probabilities[a][b]) for a, b in itertools.pairwise(tokens)])
    means = np.array([sum(p * math.log(p) for p in probabilities[a]) for a in tokens[:-1]])
    squares = np.array([sum(p * math.log(p) ** 2 for p in probabilities[a]) for a in tokens[:-1]])
    return logp, means, np.sqrt(squares - means**2)


def lowest_mean(values, k):
    """Exact arithmetic on tenths: floor(k T) without rounding."""
    count = max(1, round(k * 10) * len(values) // 10)
    return sum(sorted(values)[:count]) / count


def test_uniform_model(uniform, counts):
    texts = random_texts(3, 12, seed=5)
    prefixes = (("all", tuple(ids("w1 w2 w3"))),)
    names = (*PLAIN, "reference", "dc_pdd")
    found = AttackFilter(uniform, names, prefixes=prefixes, reference_model=uniform, frequencies=counts)(batch(texts))
    level = -math.log(VOCABULARY)
    for row, text in enumerate(texts):
        # Every token has log p = -log V; the mean of any share of equal numbers is that number.
        assert found["attack_loss"][row] == pytest.approx(level, abs=1e-6)
        for k in GRID:
            assert found[f"attack_min_k_{k:g}"][row] == pytest.approx(level, abs=1e-6)
            # The deviation of log p is 0: no token says anything.
            assert found[f"attack_min_k_plus_plus_{k:g}"][row] is None
        assert found["attack_zlib"][row] == pytest.approx(level / len(zlib.compress(text.encode())), rel=1e-6)
        # Same likelihood in lower case, after a prefix and under the reference.
        assert found["attack_lowercase"][row] == pytest.approx(1, abs=1e-6)
        assert found["attack_recall"][row] == pytest.approx(1, abs=1e-6)
        assert found["attack_reference"][row] == pytest.approx(0, abs=1e-6)
        # p = 1/V at each first occurrence after the first token; q = (3 id + 1) / (3 V (V - 1) / 2 + V).
        tokens = ids(text)
        total = 3 * VOCABULARY * (VOCABULARY - 1) / 2 + VOCABULARY
        first = [token for place, token in enumerate(tokens) if token not in tokens[:place] and place]
        values = [min(-math.log((3 * token + 1) / total) / VOCABULARY, 0.01) for token in first]
        assert found["attack_dc_pdd"][row] == pytest.approx(np.mean(values), rel=1e-5)


def test_bigram_model(bigram):
    probabilities = transitions()
    texts = random_texts(4, 9, seed=1) + random_texts(2, 30, seed=2) + ["w1 w2"]
    prefixes = (("all", tuple(ids("w5 w5 w9"))),)
    found = AttackFilter(bigram, PLAIN, prefixes=prefixes)(batch(texts))
    for row, text in enumerate(texts):
        logp, means, deviations = known(text, probabilities)
        assert found["attack_loss"][row] == pytest.approx(logp.mean(), rel=1e-5)
        for k in GRID:
            assert found[f"attack_min_k_{k:g}"][row] == pytest.approx(lowest_mean(logp, k), rel=1e-5)
            expected = lowest_mean((logp - means) / deviations, k)
            assert found[f"attack_min_k_plus_plus_{k:g}"][row] == pytest.approx(expected, rel=1e-4, abs=1e-4)
        lower = known(text.lower(), probabilities)[0]
        assert found["attack_lowercase"][row] == pytest.approx(lower.mean() / logp.mean(), rel=1e-5)
        # The prefix ends before the text's first token, which is not scored: a bigram forgets it.
        assert found["attack_recall"][row] == pytest.approx(1, rel=1e-5)


def test_reference_of_another_tokenization_counts_bytes(bigram, tmp_path):
    # The other vocabulary does not know the capital words.
    words = WORDS[:20]
    theirs = np.full((20, 20), 1 / 20)
    other = save(bigram_model(theirs), tmp_path / "other", words)
    text = "w1 W2 w3 w4"
    found = AttackFilter(bigram, ("reference",), reference_model=other)(batch([text]))["attack_reference"][0]
    size = len(text.encode())
    # Three scored tokens each; under the other model each has log p = -log 20.
    assert found == pytest.approx((known(text, transitions())[0].sum() + 3 * math.log(20)) / size, rel=1e-5)


def test_chunks_are_scored_in_their_place(bigram):
    text = "w1 w2 W3 w4 w5 W6"
    rows = {
        **batch([text, text]),
        "chunk_start": [0, 9],
        "chunk_end": [8, 17],
    }
    found = AttackFilter(bigram, ("loss", "zlib"))(rows)
    logp = known(text, transitions())[0]
    # Words 0..2 hold scored tokens 1 and 2; words 3..5 all three, the first of them after what stands before the chunk.
    assert found["attack_loss"] == [pytest.approx(logp[:2].mean(), rel=1e-5), pytest.approx(logp[2:].mean(), rel=1e-5)]
    assert found["attack_zlib"][1] == pytest.approx(logp[2:].mean() / len(zlib.compress(b"w4 w5 W6")), rel=1e-5)


def test_texts_of_no_one_and_ten_thousand_tokens(bigram):
    long = random_texts(1, 10_000, seed=3)[0]
    padding = "<end> <end> <end> <end>"
    prefixes = (("all", tuple(ids("w5 w6"))),)
    found = AttackFilter(bigram, PLAIN, prefixes=prefixes)(batch(["", "w3", padding, long]))
    for column in found.values():
        # No token follows another.
        assert column[:2] == [None, None]
        assert column[2] is not None
        assert column[3] is not None
    # A bigram remembers one token, so windows of 64 positions lose nothing.
    assert found["attack_loss"][3] == pytest.approx(known(long, transitions())[0].mean(), rel=1e-5)
    assert found["attack_loss"][2] == pytest.approx(math.log(transitions()[0][0]), rel=1e-5)


def test_windows_keep_half_of_the_positions_as_context():
    torch.manual_seed(0)
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=8,
        initializer_range=0.5,
    )
    model = GPTNeoXForCausalLM(config).eval()
    tokens = torch.randint(40, (21,)).tolist()
    found = token_values(model, [tokens, tokens[:5], tokens], False)
    expected = []
    for place in range(1, 21):
        # The first 8 tokens are one window; then each window adds 4 tokens behind 4 known ones.
        start = 0 if place < 8 else (place - 8) // 4 * 4 + 4
        with torch.no_grad():
            logits = model(torch.tensor([tokens[start:place]])).logits[0, -1]
        expected.append(float(logits.double().log_softmax(-1)[tokens[place]]))
    np.testing.assert_allclose(found[0][0], expected, atol=2e-5)
    np.testing.assert_allclose(found[1][0], expected[:4], atol=2e-5)
    np.testing.assert_array_equal(found[0][0], found[2][0])


def test_more_likely_is_a_larger_score(bigram):
    """Signs: the likelier of two texts of the same tokens scores higher under every attack on likelihood."""
    evidence = {"logprobs": np.array([-1.0, -2.0, -3.0]), "text": "abc", "lowercase": -2.5, "neighbours": [-3.0, -3.5]}
    evidence |= {"moments": (np.full(3, -2.5), np.full(3, 0.5)), "rates": (-2.0, -2.5), "prefixed": (-2.4, -2.0)}
    evidence |= {"frequencies": (np.array([True, True, False]), np.array([0.2, 0.1, 0.2]))}
    better = {**evidence, "logprobs": evidence["logprobs"] + 0.5, "rates": (-1.5, -2.5), "prefixed": (-2.4, -1.5)}
    for name in ("loss", "zlib", "min_k", "min_k_plus_plus", "reference", "lowercase", "neighbour", "recall"):
        worse_scores, better_scores = ATTACKS[name].scores(evidence), ATTACKS[name].scores(better)
        for column in ATTACKS[name].columns:
            assert better_scores[column] > worse_scores[column], column
    # DC-PDD: a token of corpus probability .2 that the model gives e^-8 and e^-7; both below the cap.
    rare = (np.array([True]), np.array([0.2]))
    assert attacks.dc_pdd(np.array([-7.0]), rare) == pytest.approx(-math.exp(-7) * math.log(0.2))
    assert attacks.dc_pdd(np.array([-7.0]), rare) > attacks.dc_pdd(np.array([-8.0]), rare)
    # A smaller gradient and a better aligned one.
    assert ATTACKS["gradient_norm"].scores({"column:gradient_norm": 2.0})["attack_gradient_norm"] == -2.0
    assert ATTACKS["gradient_alignment"].scores({"column:gradient_alignment": 0.4})["attack_gradient_alignment"] == 0.4


def test_lira_is_the_gaussian_ratio():
    inside, outside = [-1.0, -1.4, -1.1], [-3.0, -2.5, -2.9, -3.2]
    direct = norm(np.mean(inside), np.std(inside, ddof=1)).logpdf(-1.5) - norm(
        np.mean(outside), np.std(outside, ddof=1)
    ).logpdf(-1.5)
    assert lira(-1.5, inside, outside) == pytest.approx(direct)
    # Offline: standard deviations above the models without it.
    assert lira(-2.0, [], outside) == pytest.approx((-2.0 - np.mean(outside)) / np.std(outside, ddof=1))
    assert lira(-1.5, inside, [-2.0]) is None
    assert lira(-1.0, [], outside) > lira(-2.0, [], outside)


def test_pooled_variances_are_the_mean_over_texts_and_one_formula_serves_all():
    rng = np.random.default_rng(5)
    pairs = [(rng.normal(size=3).tolist(), rng.normal(size=4).tolist()) for _ in range(9)]
    inside, outside = (math.sqrt(np.mean([np.var(pair[side], ddof=1) for pair in pairs])) for side in (0, 1))
    for pair, spread in zip(pairs, deviations(pairs), strict=True):
        assert spread == pytest.approx((inside, outside))
        direct = norm(np.mean(pair[0]), inside).logpdf(0.3) - norm(np.mean(pair[1]), outside).logpdf(0.3)
        assert lira(0.3, *pair, spread) == pytest.approx(direct)
    # One text without a model trained on it: offline for all.
    pairs[4] = ([], pairs[4][1])
    assert all(spread == (None, pytest.approx(outside)) for spread in deviations(pairs))
    with pytest.raises(MemtaxError, match="variances"):
        deviations(pairs, "x")


@pytest.mark.parametrize(("models", "least"), [(4, 0.17), (8, 0.23), (16, 0.25), (64, 0.28)])
def test_pooled_and_shrunk_variances_find_members_with_few_models(models: int, least: float):
    def tpr(spread: float, variances: str) -> float:
        """TPR at 1% FPR on texts whose difficulty differs by 1 nat and whose deviations differ by `spread` in logs."""
        rng = np.random.default_rng(12)
        member, deviation = np.arange(1500) % 2 == 0, 0.2 * np.exp(spread * rng.normal(size=1500))
        center, shift = rng.normal(-3, 1, 1500), np.full(1500, 0.4)
        inside, outside = center[:, None] + deviation[:, None] * rng.normal(size=(2, 1500, models // 2))
        pairs = list(zip((inside + shift[:, None]).tolist(), outside.tolist(), strict=True))
        scores = center + shift * member + deviation * rng.normal(size=1500)
        spreads = deviations(pairs, variances)
        ratios = np.array([lira(*row) for row in zip(scores, *zip(*pairs, strict=True), spreads, strict=True)])
        return float((ratios[member] > np.sort(ratios[~member])[-8]).mean())

    assert tpr(0.0, "pooled") >= least
    assert tpr(0.0, "shrunk") >= least
    if models > 4:
        assert tpr(0.6, "shrunk") > 1.2 * tpr(0.6, "pooled")


def test_shrunk_variances_are_limmas():
    from scipy.special import digamma, polygamma
    from scipy.stats import chi2, invgamma

    rng = np.random.default_rng(3)
    # Inverse gamma with shape d0 / 2 = 4 and scale d0 s0^2 / 2: d0 = 8, s0^2 = 0.04; 5 degrees of freedom each.
    true = invgamma(4, scale=4 * 0.04).rvs(40_000, random_state=rng)
    own = true * chi2(5).rvs(40_000, random_state=rng) / 5
    shrunk = np.array(shrink_variances([*own.tolist(), None], [5] * 40_000 + [0]))
    assert shrunk[-1] == pytest.approx(0.04, rel=0.03)
    np.testing.assert_allclose(shrunk[:-1], (8 * 0.04 + 5 * own) / 13, rtol=0.08)
    logs = np.log(own) - digamma(2.5) + np.log(2.5)
    weight = (shrunk[0] - shrunk[1]) / (own[0] - own[1])
    assert polygamma(1, 5 * (1 / weight - 1) / 2) == pytest.approx(logs.var(ddof=1) - polygamma(1, 2.5))
    same = shrink_variances([0.04] * 9, [5] * 9)
    assert same == pytest.approx([0.04] * 9)
    assert shrink_variances([None, None], [0, 0]) == [None, None]


def test_rmia_offline_takes_models_with_the_text_to_have_a_times_p_and_the_rest():
    population, theirs = np.log([0.1, 0.2, 0.3, 0.4]), np.log([0.2] * 4)
    for a in (0.0, 0.3, 1.0):
        expected = ((1 + a) * 0.15 + (1 - a)) / 2
        share = np.mean(0.31 / expected >= np.array([0.5, 1, 1.5, 2]))
        assert abs(rmia(math.log(0.31), [], [math.log(0.15)], population, theirs, a=a) - share) < 0.125
    with pytest.raises(MemtaxError, match="between 0 and 1"):
        rmia(-1.0, [], [-1.0], population, theirs, a=2)


def test_rmia_is_a_share_of_the_population():
    population = np.log([0.1, 0.2, 0.3, 0.4])
    theirs = np.log([0.2, 0.2, 0.2, 0.2])
    # Ratios of z: .5, 1, 1.5, 2. x: .3 / mean(.25, .15) = 1.5 is at least three of them, up to less than one text's share.
    found = rmia(math.log(0.3), [math.log(0.25)], [math.log(0.15)], population, theirs)
    assert abs(found - 0.75) < 0.125
    scores = [rmia(value, [], [math.log(0.2)], population, theirs) for value in np.log([0.05, 0.15, 0.25, 0.35, 0.5, 0.6])]
    assert scores == sorted(scores)
    assert rmia(-1.0, [], [], population, theirs) is None
    with pytest.raises(MemtaxError, match="population"):
        rmia(-1.0, [], [-1.0], np.array([]), np.array([]))


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=lambda attack: attack.name)
def test_every_attack_is_documented_and_null_without_evidence(attack: Attack):
    assert attack.function.__doc__
    assert attack.gather or all(need in EVIDENCE or need.startswith("column:") for need in attack.needs)
    assert all(schema.column(column).dtype == "float64" for column in attack.columns)
    assert set(attack.scores({}).values()) == {None}
    assert set(attack.scores({"logprobs": np.array([]), "text": "", "moments": (np.array([]),) * 2}).values()) == {None}


def test_what_is_not_there_is_said(bigram):
    with pytest.raises(MemtaxError, match="unknown attack 'los'"):
        choose(["los"])
    with pytest.raises(MemtaxError, match="needs reference_model"):
        AttackFilter(bigram, ("reference",))
    with pytest.raises(MemtaxError, match="finished tables"):
        AttackFilter(bigram, ("lira",))


def test_masked_neighbours_change_words_only(tmp_path):
    from transformers import BertConfig, BertForMaskedLM

    from memtax.membership.masked_neighbors import neighbours

    words = ["<pad>", "<mask>", *WORDS]
    tokenizer = word_tokenizer(words)
    tokenizer.add_special_tokens({"mask_token": "<mask>", "pad_token": "<pad>"})
    torch.manual_seed(1)
    config = BertConfig(vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    BertForMaskedLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    text = "w1  w2\nw3 w4 w5 w6 w7 w8 w9 w10 w11 w12 w13 w14"
    found = neighbours([text, "", "w3"], str(tmp_path), count=4)
    assert [len(texts) for texts in found] == [4, 0, 4]
    for near in found[0]:
        # 15% of 14 words is 2; spaces and line ends stay.
        assert sum(a != b for a, b in zip(near.split(), text.split(), strict=True)) == 2
        assert [c for c in near if c.isspace()] == [c for c in text if c.isspace()]
        assert not {"<mask>", "<pad>"} & set(near.split())
    assert found == neighbours([text, "", "w3"], str(tmp_path), count=4)
    # And as an attack: LL minus the mean LL of these very neighbors.
    model = save(bigram_model(transitions()), tmp_path / "lm")
    score = AttackFilter(model, ("neighbour",), neighbour_model=str(tmp_path), neighbours=4)(batch([text]))
    expected = known(text, transitions())[0].mean() - np.mean([known(near, transitions())[0].mean() for near in found[0]])
    assert score["attack_neighbour"][0] == pytest.approx(expected, abs=1e-5)
