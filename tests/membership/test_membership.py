"""From texts to figures: loaders, metrics, the blind baseline, and the command in one and two processes."""

import gzip
import json
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from typer.testing import CliRunner

from helpers.processes import python, torchrun
from helpers.small import bigram_model, random_texts, save, transitions
from memtax import statistics
from memtax.cli import app
from memtax.corpus.membership_texts import load_membership, load_neighbours
from memtax.errors import MemtaxError
from memtax.membership.attacks import choose
from memtax.membership.blind import (
    Features,
    blind_p_value,
    blind_scores,
    fit_and_choose,
    ngram_overlap,
    permuted,
    shift,
    strongest_number,
)
from memtax.membership.estimates import METRICS, attack_metrics, figures, roc, set_test, verdict
from memtax.membership.late import late_scores
from memtax.results import read_summary, read_table


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def kinds(table):
    return list(zip(*(table.column(name).to_pylist() for name in ("domain", "is_member", "text")), strict=True))


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=40), st.sampled_from([0.0, 0.01, 0.2, 0.5, 1.0])
)
@settings(max_examples=150, deadline=None)
def test_operating_points_are_those_of_the_best_threshold(rows, rate):
    labels, scores = np.array([a for a, _ in rows]), np.array([b for _, b in rows], float)
    if labels.all() or not labels.any():
        return
    points = [
        (np.mean(scores[labels] >= threshold), np.mean(scores[~labels] >= threshold))
        for threshold in [*np.unique(scores), np.inf]
    ]
    assert statistics.tpr_at_fpr(labels, scores, rate) == pytest.approx(max(t for t, f in points if f <= rate))
    assert (
        statistics.fpr_at_tpr(labels, scores, rate) == pytest.approx(min(f for t, f in points[:-1] if t >= rate)) or rate == 0
    )


def test_metrics_of_known_rankings():
    # Members 3, 2, non-members 1, 0: every pair is in order.
    perfect = attack_metrics([True, True, False, False, True], [3, 2, 1, 0, None], resamples=50)
    assert (perfect["members"], perfect["nonmembers"], perfect["without_score"]) == (2, 2, 1)
    assert [perfect[name]["value"] for name in METRICS] == [1, None, None, 0]
    # Larger is a member: turned round, nothing is right.
    turned = attack_metrics([True, True, False, False], [0, 1, 2, 3], resamples=50)
    assert [turned[name]["value"] for name in METRICS] == [0, None, None, 1]
    # One of four pairs is wrong.
    assert attack_metrics([True, True, False, False], [3, 1, 2, 0], resamples=50)["auroc"]["value"] == 0.75
    assert attack_metrics([True, True], [1, 2])["auroc"] is None
    assert attack_metrics([True, False], [None, None])["auroc"] is None


@given(st.integers(50, 400), st.integers(0, 2**16), st.booleans())
@settings(max_examples=30, deadline=None)
def test_a_curve_has_the_best_threshold_at_each_rate_that_enough_non_members_support(count, seed, ties):
    random = np.random.default_rng(seed)
    labels = np.arange(2 * count) < count
    scores = random.normal(size=2 * count) + labels
    scores = scores.round() if ties else scores
    curve = roc(labels.tolist(), [*scores.tolist()], count)
    thresholds = [*np.unique(scores), np.inf]
    points = [(np.mean(scores[labels] >= cut), np.mean(scores[~labels] >= cut)) for cut in thresholds]
    assert (curve["fpr"][-1], curve["tpr"][-1]) == (1, 1)
    assert all(count * rate >= 5 - 1e-9 for rate in curve["fpr"])
    for rate, found in zip(curve["fpr"], curve["tpr"], strict=True):
        assert found == pytest.approx(max(true for true, false in points if false <= rate + 1e-9))


def test_a_curve_over_less_than_a_decade_is_withheld():
    labels, scores = [True] * 40 + [False] * 40, list(range(80))
    assert roc(labels, scores, 40) is None
    assert roc(labels, None, 1000) is None
    assert roc([True, False], [1.0, None], 1000) is None


def test_intervals_hold_the_value_and_shrink():
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2 == 0
    scores = rng.normal(size=400) + labels
    few, many = (attack_metrics(labels[:n], scores[:n].tolist(), resamples=300)["auroc"] for n in (60, 400))
    # Two normals one deviation apart: AUROC = Phi(1 / sqrt 2) = .760.
    assert many["low"] < 0.760 < many["high"]
    assert many["high"] - many["low"] < few["high"] - few["low"]


def test_the_verdict_asks_for_more_than_chance_and_more_than_without_the_model():
    def interval(value):
        return {"value": value, "low": value - 0.05, "high": value + 0.05}

    assert verdict(interval(0.8), interval(0.5))["shows_membership"] is True
    assert verdict(interval(0.8), interval(0.75))["shows_membership"] is False
    assert verdict(interval(0.8), interval(0.95))["shows_membership"] is False
    assert verdict(interval(0.54), interval(0.4))["shows_membership"] is False
    assert verdict(interval(0.9), interval(0.5), fewest=4)["shows_membership"] is None
    assert verdict(None, interval(0.5))["shows_membership"] is None
    assert "shows nothing" in verdict(interval(0.8), interval(0.95))["reason"]


def test_chance_has_three_cases_and_a_blind_baseline_below_it_vetoes_nothing():
    def case(value, low, high):
        return verdict({"value": value, "low": low, "high": high}, {"value": 0.45, "low": 0.41, "high": 0.49})

    assert case(0.433, 0.377, 0.472)["reason"] == "shows nothing: below chance (.5)"
    assert case(0.49, 0.45, 0.53)["reason"] == "shows nothing: the interval reaches chance (.5)"
    assert case(0.54, 0.51, 0.57)["shows_membership"] is True
    few = verdict({"value": 0.92, "low": None, "high": None}, {"value": 0.5, "low": None, "high": None}, 8, unit="documents")
    assert few["shows_membership"] is None
    assert "On these documents only: 0.920, without the model 0.500" in few["reason"]


def test_few_units_withhold_rates_and_intervals():
    labels, scores = [True] * 100 + [False] * 500, list(range(600, 0, -1))
    assert attack_metrics(labels, scores, resamples=20)["tpr_at_fpr_0.01"]["value"] == 1
    nearly = attack_metrics(labels[:-1], scores[:-1], resamples=20)
    assert (nearly["tpr_at_fpr_0.01"]["value"], nearly["tpr_at_fpr_0.01"]["needed"]) == (None, 500)
    assert nearly["tpr_at_fpr_0.05"]["value"] == 1
    # 500 rows of 8 documents are 8 units.
    grouped = attack_metrics(labels, scores, 20, [*range(100, 200), *(row % 8 for row in range(500))], "documents")
    assert (grouped["auroc"]["value"], grouped["auroc"]["low"]) == (1, None)
    assert grouped["tpr_at_fpr_0.05"]["value"] is None


def test_blind_p_value_is_uniform_without_a_difference_and_small_with_one():
    rng = np.random.default_rng(0)
    texts = random_texts(40, 12, seed=9)
    units = np.repeat(np.arange(20), 2)
    # Rows of a unit share a word, so rows permuted one by one would look like a signal.
    texts = [f"{text} only{unit}" for text, unit in zip(texts, units, strict=True)]
    p_values = [
        blind_p_value(texts, (rng.permutation(20) < 8)[units].tolist(), units=units, permutations=39, seed=seed)
        for seed in range(40)
    ]
    assert kstest(p_values, "uniform").pvalue > 0.01
    members = units < 8
    told = [text + (" seen" if member else "") for text, member in zip(texts, members, strict=True)]
    assert blind_p_value(told, members.tolist(), units=units, permutations=39) == 1 / 40


def test_choosing_never_sees_the_labels_that_are_scored():
    texts, labels = random_texts(60, 10, seed=3), np.arange(60) % 2
    features, train, test = Features(texts), np.arange(40), np.arange(40, 60)
    scores = fit_and_choose(features, labels[train], train, train, test, 1)
    other = labels.copy()
    other[test] = 1 - other[test]
    assert (fit_and_choose(features, other[train], train, train, test, 1) == scores).all()


def test_texts_of_both_kinds_are_refused_or_left_out(tmp_path):
    same = write_lines(tmp_path / "same.jsonl", [{"text": "a"}, {"text": "b"}])
    with pytest.raises(MemtaxError, match="all 2 texts"):
        load_membership(members=same, nonmembers=same)
    more = write_lines(tmp_path / "more.jsonl", [{"text": "a", "document": "d"}, {"text": "c"}])
    table = load_membership(members=same, nonmembers=more)
    assert table.column("document").to_pylist() == [None, None, "d", None]
    table = table.append_column("attack_loss", pa.array([1.0, 2.0, 3.0, 4.0]))
    found = figures(table, ["attack_loss"], 20)["all"]
    assert (found["shared"], found["members"], found["nonmembers"]) == (1, 1, 1)


def test_blind_baseline_sees_a_word_and_a_length_but_no_noise():
    texts = random_texts(160, 15, seed=4)
    labels = [row % 2 == 0 for row in range(160)]
    told = [text + (" seen in 2019" if label else " seen in 2023") for text, label in zip(texts, labels, strict=True)]
    assert statistics.auroc(labels, blind_scores(told, labels)) > 0.95
    longer = [text if label else text + " w1 w2 w3 w4" for text, label in zip(texts, labels, strict=True)]
    assert statistics.auroc(labels, blind_scores(longer, labels)) > 0.95
    assert 0.3 < statistics.auroc(labels, blind_scores(texts, labels)) < 0.7
    # Equal texts with different labels: in one fold, so that none is known from the other's.
    twins = [text for text in texts[:40] for _ in (0, 1)]
    assert (
        abs(
            statistics.auroc([row % 2 == 0 for row in range(80)], blind_scores(twins, [row % 2 == 0 for row in range(80)]))
            - 0.5
        )
        < 0.1
    )
    assert blind_scores(["a", "b", "c"], [True, False, False]) is None


def test_a_length_that_beats_the_baseline_is_what_attacks_have_to_beat(monkeypatch):
    rng = np.random.default_rng(2)
    labels = np.arange(120) % 2 == 0
    lengths = rng.integers(5, 15, 120) + 3 * labels
    texts = [" ".join(rng.choice(["a", "b"], length)) for length in lengths]
    name, values = strongest_number(texts, labels.tolist(), lengths.tolist())
    assert "length" in name
    alone = statistics.auroc(labels, values)
    assert alone >= max(statistics.auroc(labels, lengths), 0.5)
    # The direction is that of members.
    assert statistics.auroc(~labels, strongest_number(texts, (~labels).tolist(), lengths.tolist())[1]) == alone
    assert strongest_number(["a"] * 4, [True, False] * 2) is None
    assert strongest_number(texts, [True] * 120) is None
    # A baseline that learned nothing: the attack is the length itself, and shows nothing.
    monkeypatch.setattr("memtax.membership.estimates.blind_scores", lambda texts, *_, **__: rng.normal(size=len(texts)))
    tokens = [list(range(length)) for length in lengths]
    columns = {"domain": ["x"] * 120, "is_member": labels.tolist(), "text": texts, "tokens": tokens}
    columns |= {"chunk_start": [0] * 120, "chunk_end": [None] * 120, "attack_length": lengths * 1.0}
    one = figures(pa.table(columns), ["attack_length"], resamples=50)["x"]
    assert one["blind"]["auroc"]["value"] >= one["attacks"]["length"]["auroc"]["value"]
    assert one["blind"]["feature"]["classifier"]["value"] < one["blind"]["auroc"]["value"]
    assert one["blind"]["verdict"]["chance"] == "above chance"
    # Chosen on labels that mean nothing, a length may have an interval above chance; the permutation test knows of the choice.
    monkeypatch.setattr("memtax.membership.estimates.blind_p_value", lambda *_, **__: 0.3)
    one = figures(pa.table(columns), ["attack_length"], resamples=50)["x"]
    assert (one["blind"]["auroc"]["low"] > 0.5, one["blind"]["verdict"]["chance"]) == (True, "reaches chance")
    assert one["attacks"]["length"]["auroc"]["low"] > 0.5
    assert one["attacks"]["length"]["verdict"]["shows_membership"] is False


def test_units_of_both_kinds_keep_their_shares_and_give_a_uniform_p_value():
    rng = np.random.default_rng(3)
    # Half of the units hold rows of both kinds, the others of one.
    units = np.repeat(np.arange(16), 6)
    kinds = np.repeat(rng.random(16) < 0.5, 6)
    mixed = units % 2 == 0
    texts = [f"{text} only{unit}" for text, unit in zip(random_texts(96, 10, seed=5), units, strict=True)]
    p_values = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        pure = (rng.permutation(16) < 8)[units]
        labels = np.where(mixed, rng.random(96) < 0.5, pure)
        p_values.append(blind_p_value(texts, labels.tolist(), units=units, permutations=39, seed=seed))
    assert kstest(p_values, "uniform").pvalue > 0.01
    labels = np.where(mixed, np.arange(96) % 3 == 0, kinds)
    for shuffled in permuted(labels, units, np.zeros(96, np.int64), 20, 1):
        for unit in range(16):
            own = units == unit
            if unit % 2 == 0:
                assert shuffled[own].sum() == labels[own].sum() == 2
            else:
                assert len(set(shuffled[own].tolist())) == 1
        assert shuffled.sum() == labels.sum()
    told = [text + (" seen" if member else "") for text, member in zip(texts, labels, strict=True)]
    assert blind_p_value(told, labels.tolist(), units=units, permutations=39) == 1 / 40


def test_shift_measures_overlap_length_and_years():
    members = ["a b c d e f g h in 2019", "b c d e f g h i"]
    others = ["a b c d e f g z", "q r s in 2024"]
    found = shift(members + others, [True, True, False, False], [10, 8, 8, 5])
    # 7-grams: the first member has 4, of which b..h is the second's too; the second has 2. Of the non-members one has 2, a..g
    # being the first member's; the other is too short.
    assert ngram_overlap(members + others, [True, True, False, False], 7) == [0.25, 0.5, 0.5, None]
    assert found["overlap_of_7_grams"]["members"] == pytest.approx(0.375)
    assert found["overlap_of_13_grams"] == {"members": None, "nonmembers": None, "texts": 0, "auroc": None}
    assert (found["tokens"]["members"], found["tokens"]["nonmembers"]) == (9, 6.5)
    assert (found["latest_year"]["members"], found["latest_year"]["nonmembers"]) == (2019, 2024)
    assert found["latest_year"]["auroc"]["value"] == 0


def test_set_test_adds_weak_scores_up():
    rng = np.random.default_rng(2)
    labels = np.arange(600) % 2 == 0
    weak = [(rng.normal(size=600) + 0.25 * labels).tolist() for _ in range(6)]
    assert set_test(labels, weak)["p_value"] < 1e-3
    noise = [set_test(labels, [rng.normal(size=600).tolist()], seed=seed)["p_value"] for seed in range(40)]
    # Under no membership p is uniform: 2 of 40 below .05 on average, more than 8 with probability 1e-4.
    assert sum(p < 0.05 for p in noise) <= 8
    assert set_test([True, False] * 3, [[1.0] * 6]) is None
    assert set_test([True, False] * 6, [[None] * 12]) is None


def test_layouts(tmp_path):
    expected = [("code", True, "m1"), ("code", True, "m2"), ("code", False, "n1")]
    write_lines(tmp_path / "a" / "code.member.jsonl", [{"text": "m1"}, {"text": "m2"}])
    write_lines(tmp_path / "a" / "code.nonmember.jsonl", [{"text": "n1"}])
    assert kinds(load_membership(str(tmp_path / "a"))) == expected
    # One folder a domain, and MIMIR's two folders of bare strings.
    write_lines(tmp_path / "b" / "code" / "train_text.jsonl", [{"text": "m1"}, {"text": "m2"}])
    write_lines(tmp_path / "b" / "code" / "test_text.jsonl", [{"text": "n1"}])
    assert kinds(load_membership(str(tmp_path / "b"))) == expected
    write_lines(tmp_path / "c" / "train" / "code.jsonl", ["m1", "m2"])
    write_lines(tmp_path / "c" / "test" / "code.jsonl", ["n1"])
    assert kinds(load_membership(str(tmp_path / "c"))) == expected
    # A label column; a column of each kind; two sources.
    rows = [{"input": "m1", "label": 1}, {"input": "n1", "label": 0}]
    assert kinds(load_membership(write_lines(tmp_path / "d.jsonl", rows))) == [("all", True, "m1"), ("all", False, "n1")]
    rows = [{"member": "m1", "nonmember": "n1"}, {"member": "m2", "nonmember": None}]
    found = load_membership(write_lines(tmp_path / "e.jsonl", rows))
    assert sorted(text for _, member, text in kinds(found) if member) == ["m1", "m2"]
    (tmp_path / "f.jsonl.gz").write_bytes(gzip.compress(b'{"text": "m1"}\n'))
    pq.write_table(
        pa.table({"tokens": [[1, 2, 0], [3, 0, 0]], "attention_mask": [[1, 1, 0], [0, 0, 0]]}), tmp_path / "g.parquet"
    )
    found = load_membership(members=str(tmp_path / "f.jsonl.gz"), nonmembers=str(tmp_path / "g.parquet"))
    assert found.column("tokens").to_pylist() == [None, [1, 2], []]
    assert found.column("sequence_id").to_pylist() == [0, 1, 2]


def test_mimir_by_its_name_on_the_hub(tmp_path, monkeypatch):
    """Its data files are read, since its loading script is refused; the Hub is played by a folder."""
    import huggingface_hub

    for kind, row in (("train", "m1"), ("test", "n1")):
        write_lines(tmp_path / "cache_100_200_1000_512" / kind / "github_ngram_7_0.2.jsonl", [row])
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repo, file, repo_type: str(tmp_path / file))
    assert kinds(load_membership("iamgroot42/mimir:github:ngram_7_0.2")) == [("github", True, "m1"), ("github", False, "n1")]
    with pytest.raises(MemtaxError, match="needs a domain"):
        load_membership("iamgroot42/mimir")


def test_chunks_of_wikimia_concat(tmp_path):
    text = " ".join(f"x{number}" for number in range(70))
    found = load_membership(write_lines(tmp_path / "concat.jsonl", [{"input": text, "label": [0, 1]}])).to_pylist()
    # 70 words are two chunks of 32 and a rest.
    assert [row["is_member"] for row in found] == [False, True]
    chunks = [row["text"][row["chunk_start"] : row["chunk_end"]].split() for row in found]
    assert chunks == [text.split()[:32], text.split()[32:64]]
    rows = [{"text": "a b c d e", "label": 1}, {"text": "f g h", "label": 0}]
    cut = load_membership(write_lines(tmp_path / "cut.jsonl", rows), chunk_words=2).to_pylist()
    assert [row["text"][row["chunk_start"] : row["chunk_end"]] for row in cut] == ["a b", "c d", "f g"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a", "label": 1}], "no non-members"),
        ([{"text": "a", "label": 2}], "label 2"),
        ([{"text": "a"}], "no label"),
        ([{"name": "a", "label": 1}], "no column of text"),
        ([[1]], "no label"),
    ],
)
def test_bad_input_is_named(tmp_path, rows, message):
    with pytest.raises(MemtaxError, match=message):
        load_membership(write_lines(tmp_path / "bad.jsonl", rows))


@pytest.fixture(scope="module")
def mia_inputs(tmp_path_factory):
    """Members drawn from the very model, non-members from another: likelihood tells them, words hardly do."""
    folder = tmp_path_factory.mktemp("mia")
    rng = np.random.default_rng(0)
    from helpers.small import VOCABULARY, WORDS

    def draw(probabilities):
        tokens = [int(rng.integers(1, VOCABULARY))]
        while len(tokens) < 40:
            tokens.append(int(rng.choice(VOCABULARY, p=probabilities[tokens[-1]])))
        return " ".join(WORDS[token] for token in tokens)

    mixed = transitions() * 0.5 + np.full((VOCABULARY, VOCABULARY), 0.5 / VOCABULARY)
    write_lines(folder / "data" / "code.member.jsonl", [{"text": draw(transitions())} for _ in range(40)])
    write_lines(folder / "data" / "code.nonmember.jsonl", [{"text": draw(mixed)} for _ in range(40)])
    write_lines(folder / "data" / "prose.member.jsonl", [{"text": draw(mixed)} for _ in range(30)])
    write_lines(folder / "data" / "prose.nonmember.jsonl", [{"text": draw(mixed)} for _ in range(30)])
    return folder / "data", save(bigram_model(transitions()), folder / "model")


def test_command_writes_numbers(mia_inputs, tmp_path):
    data, model = mia_inputs
    gradients = pa.table({"sequence_id": np.arange(140), "gradient_norm": np.linspace(0, 1, 140)})
    pq.write_table(gradients, tmp_path / "gradients.parquet")
    arguments = ["mia", str(data), "--model", model, "--output", str(tmp_path / "out"), "--resamples", "100"]
    arguments += ["--columns", str(tmp_path / "gradients.parquet")]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    found = read_summary(tmp_path / "out", "mia")
    assert list(found["domains"]) == ["code", "prose", "all"]
    code, prose = found["domains"]["code"], found["domains"]["prose"]
    # Eight non-members of each domain are ReCaLL's prefix, but at most a quarter of them.
    assert (code["members"], code["nonmembers"], prose["nonmembers"]) == (40, 32, 23)
    assert code["attacks"]["loss"]["auroc"]["low"] > 0.85
    assert code["attacks"]["loss"]["verdict"]["shows_membership"]
    assert not prose["attacks"]["loss"]["verdict"]["shows_membership"]
    assert code["attacks"]["gradient_norm"]["auroc"]["value"] == 1.0  # smaller in the first rows, which are the members
    metrics = read_table(tmp_path / "out", "metrics")
    assert metrics.schema.field("value").type == pa.float64()
    scores = read_table(tmp_path / "out", "scores")
    assert scores.num_rows == 140 - 8 - 7
    page = (tmp_path / "out" / "index.html").read_text()
    # The attacks on code show membership, those on prose nothing: two domains and all texts together.
    shown = [any(each["verdict"]["shows_membership"] for each in one["attacks"].values()) for one in found["domains"].values()]
    assert f"Membership can be inferred in {sum(shown)} of 3 domains" in page
    assert "shows nothing" in page
    assert "blind baseline" in done.output


def test_published_neighbours_are_those_of_their_texts(tmp_path):
    from helpers.small import ids

    model = save(bigram_model(transitions()), tmp_path / "model")
    texts = random_texts(12, 10, seed=1)
    near = [[random_texts(1, 10, seed=100 + 3 * row + place)[0] for place in range(3)] for row in range(12)]
    source = write_lines(tmp_path / "x.jsonl", [{"input": text, "label": row % 2} for row, text in enumerate(texts)])
    rows = [{"input": one, "label": row % 2} for row, group in enumerate(near) for one in group]
    perturbed = write_lines(tmp_path / "x_perturbed.jsonl", rows)
    command = ["mia", source, "--model", model, "--resamples", "20", "--attack", "neighbour", "--neighbour-texts"]
    done = CliRunner().invoke(app, [*command, perturbed, "--output", str(tmp_path / "out")], catch_exceptions=False)
    assert done.exit_code == 0
    scores = read_table(tmp_path / "out", "scores").column("attack_neighbour").to_pylist()
    logs = np.log(transitions())

    def likelihood(text):
        tokens = ids(text)
        return np.mean([logs[a, b] for a, b in pairwise(tokens)])

    expected = [likelihood(text) - np.mean([likelihood(one) for one in group]) for text, group in zip(texts, near, strict=True)]
    assert scores == pytest.approx(expected, abs=1e-4)
    table = load_neighbours(perturbed, load_membership(source))
    assert table.column("neighbour_texts").to_pylist() == near
    for wrong, message in ((rows[:-1], "not a multiple"), (rows[3:] + rows[:3], "in another order"), ([], "is empty")):
        with pytest.raises(MemtaxError, match=message):
            load_neighbours(write_lines(tmp_path / "wrong.jsonl", wrong), load_membership(source))
    with pytest.raises(MemtaxError, match="not both"):
        CliRunner().invoke(
            app, [*command, perturbed, "--output", str(tmp_path / "o"), "--neighbour-model", "m"], catch_exceptions=False
        )


def test_what_cannot_run_says_so(mia_inputs, tmp_path):
    _, model = mia_inputs
    rows = write_lines(tmp_path / "few.jsonl", [{"text": f"w1 w2 w{number + 3}", "label": number % 2} for number in range(6)])
    for attack, message in (
        ("recall", "at least 4"),
        ("gradient_norm", "--columns"),
        ("lira", "--references"),
        ("x", "unknown"),
    ):
        arguments = ["mia", rows, "--model", model, "--output", str(tmp_path / attack), "--attack", attack]
        with pytest.raises(MemtaxError, match=message):
            CliRunner().invoke(app, arguments, catch_exceptions=False)
    # By default, what needs more texts is left out.
    done = CliRunner().invoke(app, ["mia", rows, "--model", model, "--output", str(tmp_path / "all"), "--resamples", "20"])
    assert done.exit_code == 0
    assert "too few texts" in done.output


def test_tables_about_other_texts_are_refused(tmp_path):
    table = pa.table({"sequence_id": [0, 1], "text": ["one", "two"], "attack_loss": [-1.0, -2.0]})
    norms = {"sequence_id": [1, 0, 7], "text": ["two", "one", "seven"], "gradient_norm": [3.0, 4.0, 5.0]}
    found = late_scores(table, choose(["gradient_norm"]), pa.table(norms), None, [])
    assert found.column("attack_gradient_norm").to_pylist() == [-4.0, -3.0]
    with pytest.raises(MemtaxError, match="sequence_id 0 is a different text in the table of --columns"):
        late_scores(table, choose(["gradient_norm"]), pa.table({**norms, "text": ["two", "x", "y"]}), None, [])
    # What memtax counterfactual wrote has its texts beside the scores.
    scores = {"sequence_id": [0, 1], "model_scores": [[-1.0] * 4] * 2, "model_included": [[True, True, False, False]] * 2}
    pq.write_table(pa.table({**scores, "text": ["two", "one"]}), tmp_path / "scores.parquet")
    with pytest.raises(MemtaxError, match="a different text in the table of --references"):
        late_scores(table, choose(["lira"]), None, read_table(tmp_path / "scores.parquet"), [])


def test_two_processes_give_the_same_bytes(mia_inputs, tmp_path):
    _, model = mia_inputs
    rows = [{"text": text, "label": number % 2} for number, text in enumerate(random_texts(300, 12))]
    source = write_lines(tmp_path / "rows.jsonl", rows)
    command = ["-m", "memtax", "mia", source, "--model", model, "--resamples", "20", "--attack", "loss", "--attack", "min_k"]
    for name, launch in (("one", python), ("two", torchrun)):
        done = launch(*command, "--output", tmp_path / name)
        assert done.returncode == 0, done.stderr
    for name in ("dataset/scores/train.parquet", "dataset/metrics/train.parquet", "summary.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
