"""Served models: the values of the same weights in transformers, refusals of lies, failures, and what is recorded."""

import json

import numpy as np
import pytest
import torch

from helpers import special_tokens as small
from helpers.served import KINDS, LIES, Server
from memtax import http_json
from memtax.errors import MemtaxError, StaleOutputError
from memtax.jobs.audit import Audit
from memtax.jobs.mia import Mia
from memtax.jobs.score import Score
from memtax.lm import resident, served
from memtax.lm.scores import score
from memtax.lm.special_tokens import bos_before
from memtax.membership import measure
from memtax.membership.canaries import Canary, read_out
from memtax.membership.evidence import AttackFilter
from memtax.pipeline import scoring
from memtax.results import read_summary

FAULTS = [429, 500, "cut", "not JSON", "[]", '{"choices": []}', 503]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(http_json, "FIRST_DELAY", 0.001)
    yield
    resident.release()


@pytest.fixture(scope="module")
def model():
    return small.model()


@pytest.fixture(scope="module", params=["none", "bos"])
def kind_of_tokenizer(request):
    return request.param


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small.save("none", tmp_path_factory.mktemp("saved") / "model")


def start(model, tokens, kind="vllm", **options):
    """A server of a kind that puts BOS before texts as the tokenizer does."""
    return Server(model, small.tokenizer(tokens), kind, bos=small.ADDED[tokens] if kind == "llama" else (), **options)


def saved(tokens, tmp_path):
    return small.save(tokens, tmp_path / tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_those_of_the_weights_in_transformers(model, kind, kind_of_tokenizer, tmp_path):
    server = start(model, kind_of_tokenizer, kind)
    bos = small.ADDED[kind_of_tokenizer]
    rows = [*small.rows(4, 12), *small.rows(2, 12), [7], []]
    found = score(served.connect(server.name, saved(kind_of_tokenizer, tmp_path), bos), rows)
    with bos_before(model, bos):
        expected = score(model, rows, ranks=True)
    np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=1e-5)
    np.testing.assert_array_equal(found.match, expected.match)
    np.testing.assert_array_equal(found.offsets, expected.offsets)
    assert found.unknown is None
    assert (found.ranks is not None) == (kind == "vllm")
    if found.ranks is not None:
        np.testing.assert_array_equal(found.ranks, expected.ranks)


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("kind", ["vllm", "sglang", "llama"])
def test_a_server_that_lies_is_refused_in_one_line(model, kind, lie, folder):
    if (kind, lie) == ("vllm", "no prompt"):
        kind = "vllm echo"
    with pytest.raises(MemtaxError) as error:
        served.connect(start(model, "none", kind, lie=lie).name, folder, ())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "added", "expected", "message"),
    [
        ("llama", (), (small.BOS,), "--bos never"),
        ("llama", (small.BOS,), (), "--bos always"),
        ("vllm", (small.BOS,), (), "17 prompt_logprobs for 16 tokens"),
        ("sglang", (small.BOS,), (), "17 tokens for 16"),
    ],
)
def test_a_bos_that_is_added_or_left_out_is_refused(model, folder, kind, added, expected, message):
    server = Server(model, small.tokenizer("bos"), kind, bos=added)
    with pytest.raises(MemtaxError, match=message):
        served.connect(server.name, folder, expected)


def test_another_tokenizer_is_refused(model, folder):
    other = small.tokenizer("none")
    known = {word: number for number, word in enumerate(small.WORDS) if number < 20}
    other.backend_tokenizer.model = type(other.backend_tokenizer.model)(known, unk_token="<unk>")
    with pytest.raises(MemtaxError, match="at the server"):
        served.connect(Server(model, other, "sglang").name, folder, ())


def sequences(path, rows):
    path.write_text("".join(json.dumps({"tokens": row}) + "\n" for row in rows))
    return str(path)


def test_a_score_through_failures_is_that_of_the_folder_and_null_where_a_server_gives_nothing(model, folder, tmp_path):
    rows = sequences(tmp_path / "rows.jsonl", [*small.rows(30, 16), [3, 4, 5]])
    options = {"prompt": (8,), "continuation": (8,), "sequences": rows, "token_logprobs": True}
    more = {"moments": True, "attention": True, "generate": True, "temperature": 2.0}
    plain = Score(model=folder, output=tmp_path / "plain", **options).run().table().to_pylist()
    server = start(model, "none", faults=[None] * 12 + FAULTS)
    done = Score(model=server.name, tokenizer=folder, output=tmp_path / "served", **options, **more, batch_size=4).run()
    given = {"sequence_perplexity", "continuation_logprob", "is_memorized", "match_length", "exact_memorization"}
    for ours, theirs in zip(done.table().to_pylist(), plain, strict=True):
        missing = {name for name in given if theirs[name] is None}
        assert missing == {name for name in given if ours[name] is None}
        assert [ours[name] for name in given - missing] == pytest.approx([theirs[name] for name in given - missing], rel=1e-5)
        assert ours["token_logprobs"] == pytest.approx(theirs["token_logprobs"], abs=1e-5)
        assert [ours[name] for name in ("token_means", "attention_gini", "memorization_score", "decoding_logprob")] == [
            None
        ] * 4
    nulls = read_summary(tmp_path / "served", "score")["nulls"]
    assert nulls["token_means"] == {"rows": 31, "reason": "a server gives no distribution over the vocabulary"}
    assert not server.faults
    assert 1 < server.most_under_way <= 4


def members(path):
    for name, seed in (("member", 1), ("nonmember", 2)):
        texts = [small.words(row) for row in small.rows(24, 20, seed)]
        (path / f"all.{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


@pytest.mark.parametrize("kind", KINDS)
def test_attacks_have_the_scores_of_the_folder(model, folder, kind, kind_of_tokenizer, tmp_path):
    where = saved(kind_of_tokenizer, tmp_path)
    attacks = ("loss", "zlib", "min_k", "lowercase", "recall", "ez", "wbc", "reference")
    prefixes = (("all", tuple(small.rows(1, 20, 7)[0])),)
    texts = [small.words(row) for row in small.rows(6, 20, 1)]
    batch = {"text": texts, "tokens": [[small.WORDS.index(word) for word in text.split()] for text in texts]}
    batch |= {"chunk_start": [None] * 6, "chunk_end": [None] * 6, "domain": ["all"] * 6}
    options = {"attacks": attacks, "prefixes": prefixes, "reference_model": small.save("none", tmp_path / "base", seed=1)}
    ours = AttackFilter(start(model, kind_of_tokenizer, kind).name, tokenizer=where, **options)(batch)
    theirs = AttackFilter(where, **options)(batch)
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        np.testing.assert_allclose(np.array(ours[name], float), np.array(values, float), rtol=1e-4, err_msg=name)


def test_membership_is_that_of_the_folder_without_the_attacks_that_need_more(model, folder, tmp_path):
    (tmp_path / "texts").mkdir()
    data = members(tmp_path / "texts")
    plain = Mia(data=data, model=folder, output=tmp_path / "plain", resamples=20).run()
    server = start(model, "none", faults=[None] * 12 + FAULTS)
    done = Mia(data=data, model=server.name, tokenizer=folder, output=tmp_path / "served", resamples=20).run()
    ours, theirs = done.table("scores"), plain.table("scores")
    names = [name for name in theirs.column_names if "min_k_plus_plus" not in name]
    assert ours.column_names == names
    for name in names:
        if name.startswith("attack_"):
            np.testing.assert_allclose(ours.column(name).to_numpy(), theirs.column(name).to_numpy(), rtol=1e-4)
        else:
            assert ours.column(name) == theirs.column(name)
    assert "left out: min_k_plus_plus: it needs the distribution over the vocabulary" in list(done.lines)
    assert "Min-K%++" in (tmp_path / "served" / "index.html").read_text()
    with pytest.raises(MemtaxError, match="min_k_plus_plus cannot be computed"):
        Mia(data=data, model=server.name, attack=("min_k_plus_plus",), output=tmp_path / "none", tokenizer=folder).run()


def test_a_text_longer_than_the_server_allows_is_read_in_windows(model, folder, tmp_path):
    (tmp_path / "texts").mkdir()
    data = members(tmp_path / "texts")
    server = start(model, "none", limit=31)
    for name in ("member", "nonmember"):
        path = tmp_path / "texts" / f"all.{name}.jsonl"
        path.write_text(path.read_text().replace('"}', " " + small.words(small.rows(1, 18, 9)[0]) + '"}'))
    done = Mia(data=data, model=server.name, tokenizer=folder, attack=("loss",), output=tmp_path / "mia", resamples=20).run()
    assert done.table("scores").column("attack_loss").null_count == 0
    assert all(len(json.loads(prompt)) <= 30 for prompt in server.asked)


def test_a_run_that_died_asks_for_nothing_that_is_finished(model, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "ROWS_PER_BATCH", 5)
    rows = small.rows(40, 16)
    options = {"prompt": (8,), "continuation": (8,), "tokenizer": folder, "output": tmp_path / "out"}
    source = sequences(tmp_path / "rows.jsonl", rows)
    server = start(model, "none")
    server.die_after = 40
    with pytest.raises(MemtaxError, match="refuses"):
        Score(model=server.name, sequences=source, **options).run()
    finished = {json.dumps(row) for row in rows if server.asked[json.dumps(row)]}
    server.die_after, before = None, dict(server.asked)
    resident.release()
    table = Score(model=server.name, sequences=source, **options).run().table()
    assert table.column("sequence_perplexity").null_count == 0
    again = [row for row in finished if server.asked[row] > before[row]]
    assert len(finished) > 15
    assert len(again) <= 5
    with pytest.raises(StaleOutputError):
        Score(model=start(model, "none").name, sequences=source, **options).run()


def test_keys_and_passwords_are_sent_and_never_recorded(model, folder, tmp_path, monkeypatch):
    source = sequences(tmp_path / "rows.jsonl", small.rows(3, 16))
    options = {"prompt": (8,), "continuation": (8,), "sequences": source, "tokenizer": folder}
    monkeypatch.setenv(served.KEY, "sesame-open-key")
    server = start(model, "none", key="sesame-open-key")
    Score(model=server.name, output=tmp_path / "key", **options).run()
    monkeypatch.setenv(served.KEY, "another-wrong-key")
    resident.release()
    with pytest.raises(MemtaxError, match=served.KEY) as error:
        Score(model=server.name, output=tmp_path / "wrong", **options).run()
    assert "wrong-key" not in str(error.value)
    server = start(model, "none", login="anna:sesame-password")
    name = server.name.replace("://", "://anna:sesame-password@")
    Score(model=name, output=tmp_path / "login", **options).run()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("127.0.0.1" in path.read_text(errors="ignore") for path in files)
    assert not [path for path in files if b"sesame" in path.read_bytes()]


@pytest.mark.parametrize("kind", KINDS)
def test_canaries_are_read_out_as_from_the_folder(model, folder, kind):
    canaries = []
    for number, row in enumerate(small.rows(16, 10, 5)):
        for at in range(5, 10) if number % 4 == 1 else ():
            row[at] = int(model(torch.tensor([row[:at]])).logits[0, -1].argmax())
        canaries.append(Canary(tuple(row), number % 2))
    ours, theirs = (read_out(canaries, name, tokenizer=folder) for name in (start(model, "none", kind).name, folder))
    assert ours["each"] == theirs["each"]
    assert sum(each["extracted"] for each in ours["each"]) == 4


@pytest.mark.long
def test_an_audit_leaves_out_what_a_server_cannot_give(model, folder, tmp_path):
    texts = [small.words(row) for row in small.rows(30, 20, 1)]
    for name, part in (("train", texts[:20]), ("held_out", texts[20:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in part))
    files = {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "held_out")}
    server = start(model, "none")
    options = {**files, "prompt": 8, "continuation": 8, "resamples": 20, "canaries": tmp_path / "canaries"}
    (tmp_path / "canaries").mkdir()
    for kind, repetitions in (("member", 2), ("nonmember", 0)):
        rows = [{"tokens": row, "repetitions": repetitions} for row in small.rows(12, 10, repetitions)]
        (tmp_path / "canaries" / f"canaries.{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Audit(model=server.name, tokenizer=folder, output=tmp_path / "audit", **options).run()
    found = read_summary(tmp_path / "audit", "audit")
    attacks = {name.partition("_0")[0].partition("_1")[0] for name in found["membership"]["domains"]["all"]["attacks"]}
    assert attacks == {"loss", "zlib", "min_k"}
    assert read_summary(tmp_path / "audit" / "membership", "mia")["left_out"].keys() == {"min_k_plus_plus"}
    assert found["canaries"]["planted"] == 12
    assert "not for continuations" in found["near_verbatim"]["reason"]
    assert "tiny" in (tmp_path / "audit" / "index.html").read_text()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("openai:http://127.0.0.1:1/v1", "names no served model"),
        ("openai:localhost:8000#x", "names no served model"),
        ("openai:http://127.0.0.1:1/v1#x", "gave no answer in 6 attempts"),
    ],
)
def test_what_cannot_be_asked_is_said_in_one_line(name, message, folder):
    with pytest.raises(MemtaxError, match=message) as error:
        resident.scorer(name, tokenizer=folder)
    assert "\n" not in str(error.value)


def test_verbs_that_need_the_weights_refuse_a_served_model(folder):
    with pytest.raises(MemtaxError, match="only gives log-probabilities"):
        resident.get("openai:http://127.0.0.1:1/v1#x")


def test_attacks_without_a_server_are_all_kept(folder):
    assert measure.without_unavailable(measure.DEFAULT, folder) == (measure.DEFAULT, {})
