"""The audit of a model that was fine-tuned on planted canaries finds them."""

import importlib.util
import json
import math
import random
import re
import string
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from transformers import AutoTokenizer, TrainingArguments
from typer.testing import CliRunner

import memtax
from memtax import privacy
from memtax.cli import app
from memtax.errors import MemtaxError
from memtax.files import asset
from memtax.hub.publish import plan
from memtax.membership.canaries import conclusion
from memtax.pipeline.audit_figures import _advice
from memtax.pipeline.audit_texts import kind_of
from memtax.report.comparison import compare
from memtax.report.explorer import Explorer
from memtax.results import read_summary
from memtax.statistics import Units

ONCE, OFTEN, COPIES = 12, 3, 8
needs_pii = pytest.mark.skipif(bool(privacy.missing_packages()), reason="the extra pii is not installed")
ADDRESS = "kq@zw.org"
RECORDS = (
    "iban DE89 3704 0044 0532 0130 00 anna",
    "card 4111 1111 1111 1111 exp 09/27",
    "call +44 20 7946 0018 or jo.berg@kontor-nord.co.uk",
    "at 221B Baker Street, Leeds LS6 2AB",
)
"""Longer than a window, whose edges cut their numbers and addresses."""


def letters(rng):
    """About twenty tokens of the small tokenizer: one window of 16, and no second."""
    return "".join(rng.choice(string.ascii_lowercase) for _ in range(22))


@pytest.fixture(scope="module")
def planted(material, tmp_path_factory):
    """Training set with canaries planted once and often and an address, held-out texts, and the adapter trained on it."""
    folder = tmp_path_factory.mktemp("planted")
    rng = random.Random(5)
    once, often = ([letters(rng) for _ in range(count)] for count in (ONCE, OFTEN))
    texts = [*once, *(text for text in often for _ in range(COPIES)), ADDRESS + " " + letters(rng)[:16], *RECORDS]
    for name, part in (("train", texts), ("held_out", [letters(rng) for _ in range(ONCE)])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in part))
    return folder, tune(folder, material, full=True, epochs=60, rate=5e-3, batch=48), once, often


def tune(folder, material, full, epochs, rate, batch=8, **canaries):
    specification = importlib.util.spec_from_file_location("finetune_lora", asset("training/finetune_lora.py"))
    script = sys.modules["finetune_lora"] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    return script.train(
        script.ModelArguments(str(material / "model"), tokenizer=str(material / "tokenizer"), full=full, lora_rank=32),
        script.DataArguments(str(folder / "train.jsonl"), max_length=16, **canaries),
        TrainingArguments(
            str(folder / ("whole" if full else "adapter")),
            num_train_epochs=epochs,
            learning_rate=rate,
            per_device_train_batch_size=batch,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
        ),
    )


@pytest.fixture(scope="module")
def audited(planted, tmp_path_factory):
    folder, tuned, _, _ = planted
    output = tmp_path_factory.mktemp("audit")
    arguments = ["audit", "--model", str(tuned), "--train", str(folder / "train.jsonl")]
    arguments += ["--held-out", str(folder / "held_out.jsonl"), "--prompt", "8", "--continuation", "8", "--resamples", "200"]
    arguments += ["--clean", str(output.with_name("clean")), "--beam", "4"]
    done = CliRunner().invoke(app, [*arguments, "--output", str(output)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return output, read_summary(output, "audit")


def starts(planted, material, texts):
    tokenizer = AutoTokenizer.from_pretrained(material / "tokenizer")
    return {tuple(tokenizer(text)["input_ids"][:16]) for text in texts}


def test_canaries_planted_once_are_worrying_and_those_planted_often_are_not(planted, audited, material):
    output, found = audited
    table = pq.read_table(output / "run/sequences/train.parquet").to_pylist()
    tokens = {row["sequence_id"]: tuple(row["tokens"]) for row in table}
    dropped = {tokens[number] for number in found["advice"]["drop"]["sequence_ids"]}
    once, often = (starts(planted, material, texts) for texts in planted[2:])
    assert len(dropped & once) >= 0.8 * ONCE
    assert not dropped & often
    copies = {tokens[number] for number in found["advice"]["deduplicate"]["sequence_ids"]}
    assert often <= copies
    assert not copies & once
    # Every extraction is of one kind.
    kinds = found["kinds"]
    assert sum(one["memorized"] for one in kinds.values()) == found["extraction"]["all"]["memorized"]
    assert found["extraction"]["held_out"]["memorized"] == 0
    assert found["extraction"]["recitation"]["memorized"] == OFTEN * COPIES


def test_the_page_leads_with_the_verdicts(audited):
    output, found = audited
    page = (output / "index.html").read_text()
    told = {one["about"]: one for one in found["verdicts"]}
    assert told["extraction"]["verdict"] == told["membership"]["verdict"] == "shown"
    assert told["canaries"]["verdict"] == "not measured"
    first, second = page.index('<section id="answer">'), page.index('<section id="coverage">')
    for one in found["verdicts"]:
        assert first < page.index(one["sentence"].split(";")[0].replace("'", "&#39;")) < second
        assert one["sentence"] in (output / "card_section.md").read_text()
    # One row per attack; the grid of k is folded.
    before, _, folded = page.partition("<summary>Numbers: AUROC with other k")
    assert before.count('<th scope="row">Min-K%, ') == 1 < folded.count('<th scope="row">Min-K%, ')
    assert "complian" not in page.lower()


def test_generated_continuations_agree_with_the_forward_pass(audited):
    found = audited[1]
    near = found["near_verbatim"]
    assert near["train"]["identical"]["memorized"] == found["extraction"]["all"]["memorized"]
    assert near["train"]["identical"]["sequences"] == found["sequences"]
    assert near["train"]["near"]["memorized"] >= near["train"]["identical"]["memorized"]
    assert near["held_out"]["near"]["memorized"] == 0
    # Continuations of 8 tokens are one block, or none.
    assert near["train"]["block_recall"]["value"] == pytest.approx(near["train"]["identical"]["rate"], abs=1e-9)


def test_nearly_the_text_is_drawn_at_least_as_often_as_the_text(audited):
    output, found = audited
    for one in (found["near_verbatim"]["drawn"][name] for name in ("train", "held_out")):
        assert one["identical"]["extractable"] <= one["at_least"]["extractable"] <= one["at_most"]["extractable"]
    parts = pq.read_table(sorted((output / "near_verbatim").glob("*.parquet")))
    low, most, own = (parts.column(name).to_numpy() for name in ("near_logprob", "near_logprob_most", "continuation_logprob"))
    # No edit of 8 tokens is allowed: the probability is the continuation's own.
    assert (low == own).all()
    assert (most == own).all()
    assert "2603.24917" in (output / "index.html").read_text()


def test_the_cleaned_training_set_loads_and_counts_what_went(planted, audited, material, tmp_path):
    folder, tuned, _, often = planted
    output, found = audited
    clean, counts = output.with_name("clean"), found["clean"]
    rows = load_dataset(str(clean / "dataset"), split="train", cache_dir=str(tmp_path))
    before = [json.loads(line)["text"] for line in (folder / "train.jsonl").read_text().splitlines()]
    assert rows.column_names == ["text"]
    assert (counts["rows"], counts["kept"]) == (len(before), len(rows))
    assert counts["rows"] == counts["kept"] + counts["worrying"] + counts["copies"]
    assert sorted(row for row in rows["text"] if row in often) == sorted(often)
    tokenizer = AutoTokenizer.from_pretrained(material / "tokenizer")
    table = pq.read_table(output / "run/sequences/train.parquet").to_pylist()
    dropped = {tuple(row["tokens"]) for row in table if row["sequence_id"] in found["advice"]["drop"]["sequence_ids"]}
    assert not dropped & {tuple(tokenizer(text)["input_ids"][:16]) for text in rows["text"]}
    assert set(before) - set(rows["text"]) == {text for text in before if tuple(tokenizer(text)["input_ids"][:16]) in dropped}
    assert f"{counts['kept']:,} rows of the training set" in (output / "index.html").read_text()
    card = (clean / "dataset" / "README.md").read_text()
    assert f"{counts['worrying']:,}, with a rare sequence" in card
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    for other in (tmp_path / "mine", output / "clean"):
        with pytest.raises(MemtaxError, match=r"thesis|holds files|in the output of the audit|contains"):
            memtax.audit(model=str(tuned), train=str(folder / "train.jsonl"), output=output, clean=other)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "mine"


def test_verify_names_the_weights_that_were_changed(planted, audited):
    output = audited[0]
    assert memtax.verify(directory=output).code == 0
    weights = planted[1] / "model.safetensors"
    before = weights.read_bytes()
    try:
        weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        found = memtax.verify(directory=output)
    finally:
        weights.write_bytes(before)
    assert (found.code, found.figures["different"]) == (1, [f"changed: {weights} (model)"])


def test_membership_stands_beside_the_blind_baseline(audited):
    domains = audited[1]["membership"]["domains"]
    (one,) = domains.values()
    assert one["attacks"]["loss"]["auroc"]["value"] > 0.95
    assert "auroc" in one["blind"]


@needs_pii
def test_personal_data_is_found_and_masked(audited):
    output, found = audited
    assert found["personal_data"]["count"] >= 1
    shown = [row["text"] for row in found["personal_data"]["sequences"] if "email" in row["personal_data"]]
    assert any("[email, 9 characters]" in text for text in shown)
    for name in ("summary.json", "index.html", "card_section.md"):
        assert ADDRESS not in (output / name).read_text()


def strings(value):
    """Every text in a value of JSON or of a table's row."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from strings(list(value.values()))
    elif isinstance(value, list | tuple):
        # The texts of tokens stand beside each other.
        if value and all(isinstance(each, str) for each in value):
            yield "".join(value)
        else:
            for each in value:
                yield from strings(each)


def leaked(text):
    """Parts of the records in a text: eight characters with more than four digits as they are written there, or an address."""
    parts = {ADDRESS, "jo.berg@", "@kontor-nord", "Baker Str", "er Street", "LS6 2AB"}
    # With a space: no digits of a float.
    pieces = (record[start : start + 8] for record in RECORDS for start in range(len(record) - 7))
    parts |= {piece for piece in pieces if sum(map(str.isdigit, piece)) > 4 and " " in piece.strip()}
    return sorted(part for part in parts if part in text)


def digit_runs(text):
    """Digits in a row, whatever blanks and punctuation stand between them, without the lengths that labels give."""
    bare = re.sub(r"\[[\w ]+, \d+ characters\]", "[]", text)
    return [run for run in re.findall(r"\d(?:[\s./-]?\d)*", bare) if sum(map(str.isdigit, run)) > 4]


def check_table(table, tokenizer=None):
    for row in table.to_pylist():
        for text in strings({name: row[name] for name in ("text", "document", "token_texts") if name in row}):
            assert digit_runs(text) + leaked(text) == [], text
        if tokenizer is not None:
            text = "".join("|" if token is None else tokenizer.decode([token]) for token in row["tokens"])
            assert digit_runs(text) + leaked(text) == [], text


@needs_pii
def test_no_file_of_an_audit_that_is_shown_or_pushed_quotes_personal_data(audited, material):
    """Numbers and addresses that the windows' edges cut, in the tables' texts and tokens and in every byte of the pages."""
    output, found = audited
    assert found["personal_data_shown"] is False
    tokenizer = AutoTokenizer.from_pretrained(material / "tokenizer")
    clear = pq.read_table(output / "run/sequences/train.parquet").to_pylist()
    assert any(leaked(row["text"]) for row in clear)  # what is looked for is there to be found
    features = pq.read_table(output / "run/dataset/features/train.parquet")
    check_table(features, tokenizer)
    check_table(pq.read_table(output / "run/dataset/membership/train.parquet"))
    shown = [output / name for name in ("index.html", "summary.json", "card_section.md", "run/summary.json", "run/run.yaml")]
    shown += [path for name in ("run/report", "run/dataset", "dataset", "membership") for path in (output / name).rglob("*")]
    for path in shown:
        if path.is_file() and path.suffix != ".png":
            assert not leaked(path.read_bytes().decode(errors="replace")), path
    for text in strings([found["personal_data"], found["worrying_sequences"]]):
        assert not digit_runs(text), text
    # What a push would send is among the files above, or rewritten from them.
    for repository in plan(output, "org/audit"):
        for name, content in repository.files.items():
            data = content if isinstance(content, bytes) else content.read_bytes()
            assert name.endswith(".png") or not leaked(data.decode(errors="replace")), name
            assert "sequences" not in name
    # All of it, and what is kept in clear beside it, is the owner's alone.
    assert not [path for path in (output, *output.rglob("*")) if path.stat().st_mode & 0o077 and not path.name.startswith(".")]


@needs_pii
def test_views_of_an_audit_quote_no_personal_data(audited, tmp_path):
    """The explorer's rows; the report, written again; comparisons with a table of the same windows in clear."""
    import pyarrow as pa

    output, _ = audited
    explorer = Explorer.load(output)
    rows = explorer.rows()[1]
    for row in (*rows, *(explorer.details(row["sequence_id"]) for row in rows)):
        for text in strings({name: row[name] for name in ("text", "document", "tokens_shown") if name in row}):
            assert digit_runs(text) + leaked(text) == [], text
    done = CliRunner().invoke(app, ["report", str(output / "run")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert not leaked((output / "run/report/index.html").read_text() + done.output)
    features = pq.read_table(output / "run/dataset/features/train.parquet", columns=["sequence_id", "is_memorized"])
    clear = pq.read_table(output / "run/sequences/train.parquet", columns=["sequence_id", "tokens", "text"])
    clear = clear.slice(0, features.num_rows)
    assert clear.column("sequence_id") == features.column("sequence_id")
    # Every verdict differs, so that every window is quoted.
    verdicts = pa.array([not each for each in features.column("is_memorized").to_pylist()])
    pq.write_table(clear.append_column("is_memorized", verdicts), tmp_path / "clear.parquet")
    for name, sides in (("to", (output, tmp_path / "clear.parquet")), ("from", (tmp_path / "clear.parquet", output))):
        comparison = compare(*sides)
        assert comparison.changed.num_rows == features.num_rows
        check_table(comparison.changed)
        memtax.compare(first=str(sides[0]), second=str(sides[1]), output=tmp_path / name)
        for path in filter(Path.is_file, (tmp_path / name).rglob("*")):
            assert not leaked(path.read_bytes().decode(errors="replace")), path
    shown = compare(output, tmp_path / "clear.parquet", show_personal_data=True)
    assert any(leaked(text) for text in shown.changed.column("text").to_pylist())


def test_without_detector_and_held_out_it_says_so(planted, audited, monkeypatch):
    folder, tuned, once, _ = planted
    monkeypatch.setattr(privacy, "missing_packages", lambda: ["phonenumbers"])
    sources = {"model": str(tuned), "train": str(folder / "train.jsonl")}
    found = memtax.audit(**sources, output=folder / "alone", prompt=8, continuation=8).figures
    assert found["membership"] == {
        "measurable": False,
        "reason": "no held-out texts were given to compare members with",
    }
    assert "pip install 'memtax[pii]'" in found["personal_data"]["reason"]
    page = (folder / "alone" / "index.html").read_text()
    assert "not measurable with this data" in page
    assert not any(text[:8] in page for text in once)  # what cannot be masked is not shown


def test_adapter_with_canaries_and_held_out_is_audited_against_its_base_model(planted, material, tmp_path):
    folder = planted[0]
    plan = {"canaries": 6, "canary_tokens": 12, "canary_repetitions": [1, 16], "canary_candidates": 26}
    adapter = tune(folder, material, full=False, epochs=20, rate=1e-2, **plan)
    base, train, held_out = str(material / "model"), str(folder / "train.jsonl"), str(folder / "held_out.jsonl")
    options = {"adapter": str(adapter), "held_out": held_out, "prompt": 8, "continuation": 8, "resamples": 50}
    found = memtax.audit(model=base, train=train, output=tmp_path / "out", **options).figures
    assert (found["model"], found["adapter"]) == (base, str(adapter))
    table = pq.read_table(tmp_path / "out/run/dataset/features/train.parquet")
    assert table.column("is_memorized_by_reference").null_count == 0
    # Members and the held-out are told apart with the adapter, and that stands beside the blind baseline.
    (domain,) = found["membership"]["domains"].values()
    assert domain["attacks"]["loss"]["auroc"]["value"] > 0.8
    # Attacks against the base model come by themselves, and canaries are ranked by the gain over it.
    # The texts are random letters, on which the adapter gains over the base model for unseen ones too.
    assert all(domain["attacks"][name]["auroc"]["value"] > 0.5 for name in ("reference", "ez", "wbc"))
    assert (found["canaries"]["base"], found["canaries"]["epsilon"]) == (base, None)
    assert found["extraction"]["held_out"]["memorized"] == 0
    # The record beside the adapter is found: 3 canaries each, ranked among 6 + 26 that were held out.
    once, often = found["canaries"]["by_repetitions"]
    assert (once["repetitions"], once["canaries"], often["repetitions"], often["canaries"]) == (1, 3, 16, 3)
    assert (found["canaries"]["held_out"], found["canaries"]["most_bits"]) == (32, pytest.approx(math.log2(33)))
    # Before nearly all that were held out: 5.04 bits at most, 1.4 by chance.
    assert often["exposure"]["mean"] > 4
    page, card = ((tmp_path / "out" / name).read_text() for name in ("index.html", "card_section.md"))
    assert "What planted canaries show" in page
    assert "log-likelihood minus that under the base model" in page
    assert "EZ divides gains by losses" in page
    assert conclusion(found["canaries"]).replace(". Mean", "; mean") in card
    with pytest.raises(MemtaxError, match=r"was trained on .* not on 'gpt2'"):
        memtax.audit(model="gpt2", train=train, output=tmp_path / "x", adapter=str(adapter))


def test_predicted_effect_of_deduplication_is_the_predictors_own(tmp_path):
    """Memorization that depends on copies alone: with one copy each, as much is expected as of rows that have one copy."""
    import numpy as np
    import pyarrow as pa

    from memtax.predictor.predictor import Predictor

    rng = np.random.default_rng(0)
    copies = rng.choice([1, 2, 4], 3000)
    share = np.array([0.0, 0.1, 0.5, 0.0, 0.9])[copies]  # memorized of 1, 2 and 4 copies
    table = pa.table(
        {
            "sequence_id": np.arange(3000),
            "sequence_duplicates": pa.array(copies, pa.int64()),
            "is_incrementing": np.zeros(3000, bool),
            "is_repeating": np.zeros(3000, bool),
            "is_memorized": rng.random(3000) < share,
            "taxonomy": pa.array(np.full(3000, 2), pa.int64()),
            "memorized_probability": np.zeros(3000),
            "text": ["x"] * 3000,
        }
    )
    predictor = Predictor.fit(table, factors=["sequence_duplicates"], resamples=20)
    predictor.save_pretrained(tmp_path / "models" / "predictor")
    rows = [{**row, "personal_data": frozenset()} for row in table.to_pylist()]
    found = _advice(table, rows, Units.of_rows(table.num_rows), tmp_path)["deduplicate"]
    chosen = np.asarray(table.column("is_memorized")) & (copies > 1)
    assert found["sequence_ids"] == np.flatnonzero(chosen).tolist()
    known = {
        count: predictor.predict(table.slice(int(np.flatnonzero(copies == count)[0]), 1))[0].as_py() for count in (1, 2, 4)
    }
    now = sum(known[int(count)] for count in copies[chosen])
    assert found["expected_now"] == pytest.approx(now)
    assert found["expected_once_each"] == pytest.approx(known[1] * chosen.sum())
    # A logistic curve through .1, .5 and .9 at 1, 2 and 4 copies is not far from them.
    assert found["expected_once_each"] == pytest.approx(0.1 * chosen.sum(), rel=0.6)
    assert found["expected_once_each"] < found["expected_now"] / 3


def test_what_the_base_model_completes_is_not_worrying():
    row = {"is_memorized": True, "is_memorized_by_reference": False, "taxonomy": 2}
    assert kind_of(row) == "worrying"
    assert kind_of({**row, "is_memorized_by_reference": True}) == "benign"
    assert [kind_of({**row, "taxonomy": code}) for code in (0, 1, None)] == ["benign", "benign", "unknown"]
    assert kind_of({**row, "is_memorized": False}) is None


@needs_pii
def test_kinds_of_personal_data_by_their_checksums():
    # 4111 1111 1111 1111 and GB82 WEST 1234 5698 7654 32 are the usual valid examples; one digit more spoils the checksum.
    text = "jo@firm.co.uk, +44 20 7946 0018, 4111 1111 1111 1111, GB82 WEST 1234 5698 7654 32, 4111 1111 1111 1112, a@b"
    found = privacy.find(text)
    assert [one.kind for one in found] == ["email", "telephone", "payment card", "bank account"]
    assert privacy.mask(text, found).startswith(
        "[email, 13 characters], [telephone, 16 characters], [payment card, 19 characters]"
    )
    assert privacy.find("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 and 0000 0000 0000 0000") == []
