"""Verbs read conversations: their figures are those of the ids composed by hand, under the model's own forward pass."""

import html
import json
import random
import zlib
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

import memtax
from helpers import chats
from helpers import special_tokens as small
from helpers.models import oracle
from memtax import MemorizationCallback, privacy
from memtax.corpus.sequences import Document
from memtax.errors import MemtaxError
from memtax.pipeline.personal import _of_windows

LENGTH = 4
"""Tokens of an answer that are its continuation."""


@torch.no_grad()
def greedy(model, tokens, count):
    tokens = list(tokens)
    for _ in range(count):
        logits = model(input_ids=torch.tensor([tokens])).logits[0, -1]
        # Only words, so that the text of the answer has these tokens again.
        logits[: small.WORDS.index(chats.WORDS[0])] = -torch.inf
        tokens.append(int(logits.argmax()))
    return tokens[-count:]


def make(model, seed, count=14):
    """Conversations whose last answer is the model's own in every second one, with two answers in every third."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        contents = [small.words(rng.choices(range(5, len(small.WORDS)), k=5)) for _ in range(4 if number % 3 == 0 else 2)]
        row = chats.chat(*contents, system="w1 w2" if number % 4 == 0 else None)
        if number % 2 == 0:
            tokens, _ = chats.compose(row[:-1])
            row[-1]["content"] = small.words(greedy(model, [*tokens, chats.UNKNOWN], 5))
        rows.append(row)
    return rows


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Model, conversations seen and not seen, and their files; a row without an answer and one with a short one among them."""
    folder = tmp_path_factory.mktemp("chats")
    path = chats.save(folder / "model")
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    seen, unseen = make(model, 1), make(model, 2)
    short = chats.chat("w1 w2", "w3")
    files = [
        chats.write(folder / "seen.jsonl", [{"messages": row} for row in [*seen, chats.chat("w1", ""), short]]),
        chats.write(folder / "unseen.jsonl", [{"messages": row} for row in unseen]),
    ]
    return path, model, (seen, unseen), files


def windows(rows):
    """Ids, with BOS, of each conversation up to the first tokens of an answer, and the number of its row."""
    found = []
    for number, row in enumerate(rows):
        tokens, scored = chats.compose(row)
        starts = [place for place in range(1, len(tokens)) if scored[place] and not scored[place - 1]]
        found += [(tokens[: start + LENGTH], number) for start in starts if all(scored[start : start + LENGTH])]
    return found


def truth(model, tokens):
    """Log-probability of the last tokens, and how many of them greedy decoding gives."""
    logprobs, match = oracle(model, tokens)
    return float(logprobs[-LENGTH:].sum()), int(match[-LENGTH:].cumprod(0).sum())


def test_score_measures_each_answer_after_its_conversation(material, tmp_path):
    path, model, (seen, _), files = material
    found = memtax.score(sequences=files[0], model=path, continuation=(LENGTH,), output=tmp_path / "out").figures
    table = pq.read_table(next((tmp_path / "out/dataset").rglob("*.parquet")))
    whole = table.filter(table.column("is_memorized").is_valid())
    expected = [truth(model, tokens) for tokens, _ in windows(seen)]
    assert whole.column("continuation_logprob").to_pylist() == pytest.approx([logprob for logprob, _ in expected], abs=1e-4)
    assert whole.column("match_length").to_pylist() == [length for _, length in expected]
    assert 0 < sum(whole.column("is_memorized").to_pylist()) < len(whole)
    # BOS is neither counted nor missing.
    assert whole.column("prompt_tokens").to_pylist() == [len(tokens) - LENGTH - 1 for tokens, _ in windows(seen)]
    assert whole.column("document").to_pylist() == [f"row {number}" for _, number in windows(seen)]
    assert len(table) == len(whole) + 1
    (figures,) = found["extraction"]
    assert (figures["prompt"], figures["continuation"]) == (None, LENGTH)
    assert figures["memorized"] == sum(length == LENGTH for _, length in expected)
    assert figures["units"] == len(seen)
    with pytest.raises(MemtaxError, match="leave --prompt out"):
        memtax.score(sequences=files[0], model=path, prompt=(2, 3), output=tmp_path / "other")
    with pytest.raises(MemtaxError, match="leave --length out"):
        memtax.score(sequences=files[0], model=path, length=4, output=tmp_path / "cut")
    with pytest.raises(MemtaxError, match="leave --stride out"):
        memtax.score(sequences=files[0], model=path, stride=2, output=tmp_path / "strides")


def test_mia_scores_the_assistants_tokens_only(material, tmp_path):
    path, model, sets, files = material
    attacks = ("loss", "zlib", "min_k", "reference", "ez")
    options = {"members": files[0], "nonmembers": files[1], "resamples": 20, "attack": attacks}
    found = memtax.mia(model=path, reference_model=path, output=tmp_path / "out", **options).figures
    table = pq.read_table(next((tmp_path / "out/dataset/scores").rglob("*.parquet")))
    expected = []
    for row in [*sets[0], chats.chat("w1 w2", "w3"), *sets[1]]:
        tokens, scored = chats.compose(row)
        mask = np.array(scored[1:])
        logprobs = oracle(model, tokens)[0].numpy()[mask]
        text = small.words([token for token, kept in zip(tokens, scored, strict=True) if kept])
        lowest = np.sort(logprobs)[: max(1, int(0.3 * len(logprobs) + 1e-9))]
        loss = logprobs.mean()
        expected.append((loss, loss / len(zlib.compress(text.encode())), lowest.mean(), 0.0))
    names = ("attack_loss", "attack_zlib", "attack_min_k_0.3", "attack_reference")
    for name, values in zip(names, zip(*expected, strict=True), strict=True):
        assert table.column(name).to_pylist() == pytest.approx(values, abs=1e-5), name
    assert found["answers"]
    assert found["bos"] == [small.BOS]
    page = (tmp_path / "out/index.html").read_text()
    assert "the assistant's, of each conversation" in html.unescape(page)
    with pytest.raises(MemtaxError, match="attack 'recall' is not possible: it compares"):
        memtax.mia(model=path, output=tmp_path / "recall", **{**options, "attack": ("recall",)})


@pytest.fixture(scope="module")
def audited(material, tmp_path_factory):
    path, _, _, files = material
    folder = tmp_path_factory.mktemp("audited")
    options = {"continuation": LENGTH, "resamples": 20, "generate": 100, "clean": folder / "clean", "output": folder / "audit"}
    memtax.audit(model=path, train=files[0], held_out=files[1], **options)
    return folder


def test_audit_measures_each_answer_and_says_its_length(material, audited):
    _, model, (seen, unseen), _ = material
    features = pq.read_table(next((audited / "audit/run/dataset/features").rglob("*.parquet")))
    expected = [truth(model, tokens) for tokens, _ in windows(seen)]
    assert features.column("continuation_logprob").to_pylist() == pytest.approx([one for one, _ in expected], abs=1e-4)
    assert features.column("match_length").to_pylist() == [length for _, length in expected]
    corpus = [chats.compose(row)[0] for row in [*seen, chats.chat("w1 w2", "w3")]]
    copies = [
        sum(row[at : at + LENGTH] == tokens[-LENGTH:] for row in corpus for at in range(len(row)))
        for tokens, _ in windows(seen)
    ]
    assert features.column("sequence_duplicates").to_pylist() == copies
    figures = json.loads((audited / "audit/summary.json").read_text())["figures"]
    memorized = sum(length == LENGTH for _, length in expected)
    assert figures["extraction"]["all"]["memorized"] == memorized > 0
    assert figures["extraction"]["all"]["units"] == len(seen)
    assert figures["extraction"]["held_out"]["memorized"] == sum(truth(model, one)[1] == LENGTH for one, _ in windows(unseen))
    assert figures["near_verbatim"]["train"]["identical"]["memorized"] == memorized
    first = figures["verdicts"][0]["sentence"]
    assert f"exactly the first {LENGTH} tokens of its answer" in first
    assert f"answers shorter than {LENGTH} tokens (1), rows with an empty answer (1)" in first
    page = (audited / "audit/index.html").read_text()
    assert f"{len(expected)} answers of conversations, the first {LENGTH} tokens of each" in page
    assert "only the assistant's tokens are scored" in html.unescape(page)


def test_audit_writes_the_conversations_without_the_worrying_ones(material, audited):
    _, model, (seen, _), files = material
    worrying = {number for tokens, number in windows(seen) if truth(model, tokens)[1] == LENGTH}
    rows = [json.loads(line) for line in Path(files[0]).read_text().splitlines()]
    kept = load_dataset("parquet", data_files=str(next((audited / "clean/dataset").rglob("*.parquet"))), split="train")
    assert kept["messages"][:] == [row["messages"] for number, row in enumerate(rows) if number not in worrying]


def test_influence_is_that_of_answers_after_prompts(material, tmp_path):
    path, _, (seen, unseen), _ = material
    sets = {"train": [row for row in seen if len(row) < 4][:4], "test": [row for row in unseen if len(row) < 4][:3]}
    tables = []
    for kind in ("chats", "tokens"):
        files = []
        for name, rows in sets.items():
            if kind == "chats":
                given = [{"messages": row} for row in rows]
            else:
                pairs = [(tokens[1:], scored[1:].index(True)) for tokens, scored in map(chats.compose, rows)]
                given = [{"before": tokens[:start], "tokens": tokens[start:]} for tokens, start in pairs]
            files.append(chats.write(tmp_path / f"{kind}-{name}.jsonl", given))
        more = {"prompt_column": "before", "bos": "always"} if kind == "tokens" else {}
        more |= {"method": ("gradient_match", "repsim"), "output": tmp_path / kind}
        memtax.influence(train=files[0], test=files[1], model=path, **more)
        table = pq.read_table(next((tmp_path / kind / "dataset/influence").rglob("*.parquet")))
        tables.append(table.to_pydict())
    assert len({*tables[0]["gradient_match"]}) > 6
    assert tables[0] == tables[1]


def test_a_tokenizer_with_more_ids_than_the_model_is_named(material, tmp_path):
    reader = chats.tokenizer(chats.PLAIN.replace("m['role']", "'<|turn|>'"))
    reader.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    reader.save_pretrained(tmp_path / "reader")
    path, _, _, files = material
    options = {"model": path, "tokenizer": str(tmp_path / "reader")}
    for verb, given in (("score", {"sequences": files[0]}), ("influence", {"train": files[0], "test": files[1]})):
        with pytest.raises(MemtaxError, match=f"token id {len(small.WORDS)} in .* is outside the model's vocabulary"):
            getattr(memtax, verb)(output=tmp_path / verb, **options, **given)


@pytest.mark.parametrize("shape", ["messages", "sharegpt"])
def test_the_callback_watches_answers(shape, material, tmp_path):
    _, model, (seen, _), _ = material
    rows = [{"messages": row} for row in seen]
    if shape == "sharegpt":
        names = {"user": "human", "assistant": "gpt", "system": "system"}
        rows = [{"conversations": [{"from": names[one["role"]], "value": one["content"]} for one in row]} for row in seen]
    watch = MemorizationCallback(datasets.Dataset.from_list(rows), every=1, continuation=LENGTH)
    tokens = [one for one, _ in windows(seen)]
    data = datasets.Dataset.from_dict({"input_ids": [tokens[0]], "labels": [tokens[0]]})
    options = {"max_steps": 1, "learning_rate": 0.0, "save_strategy": "no", "report_to": "none", "use_cpu": True}
    arguments = TrainingArguments(str(tmp_path), disable_tqdm=True, **options)
    Trainer(model, arguments, train_dataset=data, processing_class=chats.tokenizer(), callbacks=[watch]).train()
    table = pq.read_table(tmp_path / "memorization.parquet")
    assert table.column("match_length").to_pylist() == [truth(model, one)[1] for one in tokens]
    model.eval()
    with pytest.raises(MemtaxError, match="give the Trainer one as processing_class"):
        Trainer(
            model, arguments, train_dataset=data, callbacks=[MemorizationCallback(datasets.Dataset.from_list(rows))]
        ).train()


@pytest.mark.skipif(bool(privacy.missing_packages()), reason="the extra pii is not installed")
def test_personal_data_counts_where_it_is_in_the_answer():
    windows = ["ask kq@zw.org now tell him", "ask kq@zw.org now tell lo@zw.org"]
    document = Document("ask kq@zw.org now tell lo@zw.org then", windows, True, [18, 18])
    (hidden, valid), (both, one) = _of_windows(document, "US")
    spans = [
        (window.index(address), window.index(address) + len(address))
        for window, address in ((windows[0], "kq@zw.org"), (windows[1], "kq@zw.org"), (windows[1], "lo@zw.org"))
    ]
    assert ([(each.start, each.end) for each in hidden], valid) == (spans[:1], [])
    assert [(each.start, each.end) for each in both] == spans[1:]
    assert [(each.kind, each.start, each.end) for each in one] == [("email", *spans[2])]


def test_pairs_of_strings_are_read_like_texts_with_a_prompt(material, tmp_path):
    path, model, _, files = material
    rng = random.Random(5)
    ids = [(rng.choices(range(5, len(small.WORDS)), k=5), rng.choices(range(5, len(small.WORDS)), k=6)) for _ in range(8)]
    pairs = [{"prompt": small.words(a) + " ", "completion": small.words(b)} for a, b in ids]
    kinds = [chats.write(tmp_path / f"{name}.jsonl", rows) for name, rows in (("seen", pairs[:5]), ("unseen", pairs[5:]))]
    memtax.score(sequences=kinds[0], model=path, continuation=(LENGTH,), output=tmp_path / "scores")
    table = pq.read_table(next((tmp_path / "scores/dataset").rglob("*.parquet")))
    # The tokenizer, not the chat template, says that BOS comes first.
    expected = [truth(model, [small.BOS, *a, *b[:LENGTH]])[0] for a, b in ids[:5]]
    assert table.column("continuation_logprob").to_pylist() == pytest.approx(expected, abs=1e-4)
    options = {"attack": ("loss",), "resamples": 20, "output": tmp_path / "mia"}
    memtax.mia(model=path, members=kinds[0], nonmembers=kinds[1], **options)
    found = pq.read_table(next((tmp_path / "mia/dataset/scores").rglob("*.parquet"))).column("attack_loss").to_pylist()
    losses = [float(oracle(model, [small.BOS, *a, *b])[0][-len(b) :].mean()) for a, b in ids]
    assert found == pytest.approx(losses, abs=1e-5)
    with pytest.raises(MemtaxError, match="messages with pairs of strings"):
        memtax.mia(model=path, members=kinds[0], nonmembers=files[1], output=tmp_path / "mixed")


def test_a_control_of_another_kind_is_refused(material, tmp_path):
    path, _, _, files = material
    plain = chats.write(tmp_path / "plain.jsonl", [{"text": "w1 w2 w3 w4 w5 w6 w7"}])
    for train, held_out in ((files[0], plain), (plain, files[1])):
        given = {"corpus": train, "held_out": held_out, "prompt": 2, "continuation": 2, "output": tmp_path / train[-8:]}
        with pytest.raises(MemtaxError, match="must both hold conversations, or neither"):
            memtax.run(model=path, **given)
