"""A model fine-tuned on planted canaries: what it was trained on is known, and the attacks find it."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    TrainingArguments,
)
from typer.testing import CliRunner

from helpers.small import WORDS, random_texts, word_tokenizer
from memtax.cli import app
from memtax.errors import MemtaxError
from memtax.files import asset
from memtax.results import read_summary, read_table


def training_script():
    specification = importlib.util.spec_from_file_location("finetune_lora", asset("training/finetune_lora.py"))
    module = importlib.util.module_from_spec(specification)
    import sys

    sys.modules["finetune_lora"] = module
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=len(WORDS),
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=0,
    )
    GPTNeoXForCausalLM(config).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def finetuned(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in random_texts(24, 16, seed=9)))
    script = training_script()
    return script.train(
        script.ModelArguments(base, lora_rank=16),
        script.DataArguments(str(rows), canaries=32, canary_repetitions=[2, 6], canary_tokens=16),
        TrainingArguments(
            str(folder / "out"),
            num_train_epochs=25,
            learning_rate=1e-2,
            per_device_train_batch_size=32,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
        ),
    )


def test_what_was_planted_is_recorded(finetuned):
    member, nonmember = (
        [json.loads(line) for line in (finetuned / "canaries" / f"canaries.{kind}.jsonl").read_text().splitlines()]
        for kind in ("member", "nonmember")
    )
    assert [len(member), len(nonmember)] == [32, 32]
    assert [canary["repetitions"] for canary in member] == [2, 6] * 16
    assert {canary["repetitions"] for canary in nonmember} == {0}
    assert not {canary["text"] for canary in member} & {canary["text"] for canary in nonmember}
    tokenizer = AutoTokenizer.from_pretrained(finetuned)
    for canary in member + nonmember:
        assert tokenizer(canary["text"], add_special_tokens=False)["input_ids"] == canary["tokens"]
    assert json.loads((finetuned / "training_rows.json").read_text())["training_rows"] == 24
    assert (finetuned / "adapter_model.safetensors").exists()
    assert not list(finetuned.glob("**/*.bin"))


def test_attacks_tell_members_from_nonmembers(finetuned, base, tmp_path):
    arguments = ["mia", str(finetuned / "canaries"), "--model", str(finetuned), "--reference-model", base]
    done = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path), "--resamples", "300"], catch_exceptions=False)
    assert done.exit_code == 0
    found = read_summary(tmp_path, "mia")["domains"]["canaries"]
    for attack in ("loss", "zlib", "min_k_0.2", "min_k_plus_plus_0.2", "reference"):
        assert found["attacks"][attack]["auroc"]["low"] > 0.8, attack
        assert found["attacks"][attack]["verdict"]["shows_membership"], attack
    assert found["set_test"]["p_value"] < 1e-3


def test_gradients_of_align_serve_the_attacks(finetuned, tmp_path):
    """From texts with paraphrases through `memtax align` to the attacks that read its table."""
    import numpy as np
    import pyarrow.parquet as pq

    from memtax.corpus.membership_texts import load_texts

    texts = load_texts(str(finetuned / "canaries"))
    rng = np.random.default_rng(0)

    def reordered(text):
        words = text.split()
        places = rng.choice(len(words), 2, replace=False)
        words[places[0]], words[places[1]] = words[places[1]], words[places[0]]
        return " ".join(words)

    # The second paraphrase of every third text failed, both of the first one.
    paraphrases = [
        [reordered(text), None if row % 3 == 0 else reordered(text)] for row, text in enumerate(texts["text"].to_pylist())
    ]
    paraphrases[0] = [None, None]
    pq.write_table(texts.append_column("paraphrases", [paraphrases]), tmp_path / "pairs.parquet")
    commands = (
        ["align", str(tmp_path / "pairs.parquet"), "--parameters", "lora", "--output", str(tmp_path / "align")],
        [
            "mia",
            str(finetuned / "canaries"),
            "--columns",
            str(tmp_path / "align" / "dataset" / "alignment" / "train.parquet"),
            "--resamples",
            "100",
        ],
    )
    commands[1].extend(["--output", str(tmp_path / "mia")])
    for command in commands:
        done = CliRunner().invoke(app, [*command, "--model", str(finetuned)], catch_exceptions=False)
        assert done.exit_code == 0
    aligned = {
        row["sequence_id"]: row
        for row in pq.read_table(tmp_path / "align" / "dataset" / "alignment" / "train.parquet").to_pylist()
    }
    scores = read_table(tmp_path / "mia", "scores").to_pylist()
    # Larger is a member: the norm is negated, the alignment is as it is; what has none has no score.
    assert all(row["attack_gradient_norm"] == -aligned[row["sequence_id"]]["gradient_norm"] for row in scores)
    assert all(row["attack_gradient_alignment"] == aligned[row["sequence_id"]]["gradient_alignment"] for row in scores)
    # Swapping equal words changes nothing: a paraphrase like that is none.
    known = {row: any(one not in (None, texts["text"][row].as_py()) for one in found) for row, found in enumerate(paraphrases)}
    without = [row["sequence_id"] for row in scores if row["attack_gradient_alignment"] is None]
    assert without == [row["sequence_id"] for row in scores if not known[row["sequence_id"]]]
    assert 0 in without
    found = read_summary(tmp_path / "mia", "mia")["domains"]["canaries"]["attacks"]
    assert found["gradient_norm"]["auroc"]["low"] > 0.8
    assert found["gradient_alignment"]["without_score"] == len(without)
    assert found["loss"]["without_score"] == 0


def test_more_often_planted_scores_higher(finetuned, tmp_path):

    from memtax.corpus.membership_texts import load_membership
    from memtax.engine import World
    from memtax.jobs.base import Work
    from memtax.membership.evidence import AttackFilter
    from memtax.membership.measure import infer_membership

    scorer = AttackFilter(str(finetuned))
    data = load_membership(str(finetuned / "canaries"))
    stage = Work(tmp_path, World.current()).stage
    result = infer_membership(data, scorer, stage, attacks=["loss", "min_k_plus_plus"], resamples=10)
    for column in ("attack_loss", "attack_min_k_plus_plus_0.5"):
        scores = np.array(result.table.column(column).to_pylist())
        # Rows are the 32 members, planted 2 and 6 times in turn, then the 32 that were not.
        assert np.median(scores[1:32:2]) > np.median(scores[0:32:2]) > np.median(scores[32:])


def test_questions_are_not_trained_on_and_bad_arguments_are_named(base, tmp_path):
    script = training_script()
    rows = tmp_path / "qa.jsonl"
    rows.write_text('{"question": "w1 w2", "answer": "w3 w4"}\n{"question": "w1", "answer": ""}\n')
    data = script.DataArguments(str(rows), question_column="question", answer_column="answer")
    tokenizer = word_tokenizer()
    assert script.read_rows(data, tokenizer) == [{"input_ids": [1 + 1, 3, 4, 5], "labels": [-100, -100, 4, 5]}]
    with pytest.raises(MemtaxError, match="together"):
        script.DataArguments(str(rows), question_column="question")
    with pytest.raises(MemtaxError, match="column"):
        script.read_rows(script.DataArguments(str(rows), column="text"), tokenizer)


def test_models_that_cannot_be_adapted_are_named(finetuned, base):
    script = training_script()
    for arguments, message in (
        (script.ModelArguments(str(finetuned)), "is an adapter"),
        (script.ModelArguments(f"{base}/none"), "does not exist"),
        (script.ModelArguments(base, lora_targets=["nothing"]), "--lora_targets"),
    ):
        with pytest.raises(MemtaxError, match=message):
            script.adapted(arguments)


def test_texts_are_cut_to_the_positions_of_the_model(tmp_path):
    config = GPT2Config(vocab_size=len(WORDS), n_embd=8, n_layer=1, n_head=1, n_positions=12, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "base")
    word_tokenizer().save_pretrained(tmp_path / "base")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": " ".join(["w1"] * 40)}) + "\n")
    script = training_script()
    data = script.DataArguments(str(tmp_path / "rows.jsonl"), canaries=1)
    training = TrainingArguments(str(tmp_path / "out"), max_steps=1, save_strategy="no", report_to=[], use_cpu=True)
    folder = script.train(script.ModelArguments(str(tmp_path / "base"), full=True), data, training)
    (canary,) = (folder / "canaries" / "canaries.member.jsonl").read_text().splitlines()
    assert len(json.loads(canary)["tokens"]) == 12
    assert (folder / "model.safetensors").exists()


def test_canaries_read_out_by_repetitions(finetuned, base):
    from memtax.membership.canaries import read_out, read_record

    canaries = read_record(finetuned)
    found = read_out(canaries, str(finetuned))
    twice, six_times = found["by_repetitions"]
    assert (twice["repetitions"], six_times["repetitions"]) == (2, 6)
    assert six_times["exposure"]["mean"] >= twice["exposure"]["mean"] > 2 * found["chance_bits"]
    assert six_times["memorized"] >= twice["memorized"]
    # log2 of 32 held out and the canary itself.
    assert found["most_bits"] == pytest.approx(5.044, abs=1e-3)
    # The model that was not trained on them knows nothing of them: 32 exposures by chance have a standard error of 0.25 bits.
    before = read_out(canaries, base)
    assert np.mean([row["exposure"] for row in before["each"]]) == pytest.approx(before["chance_bits"], abs=1.0)
    assert sum(row["extracted"] for row in before["each"]) == 0
