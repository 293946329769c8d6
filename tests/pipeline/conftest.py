"""A small run, made once: documents, a tokenizer, a model trained on them by the training script, and its run directory."""

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from transformers import PreTrainedTokenizerFast, TrainingArguments

from memtax.files import asset
from memtax.jobs.run import Run

SENTENCES = [
    "the quick brown fox jumps over the lazy dog and runs away",
    "a journey of a thousand miles begins with a single step they say",
    "row 1 row 2 row 3 row 4 row 5 row 6 row 7 row 8 row 9 row 10 row 11 row 12 row 13 row 14",
    '<script>alert(1)</script> is hostile & must be "escaped" in every page',
]


def documents() -> list[str]:
    """Thirty documents; every third one starts with the same licence, so that some continuations are duplicated."""
    licence = "permission is hereby granted free of charge to any person obtaining a copy of this software " * 2
    texts = []
    for number in range(30):
        words = " ".join(SENTENCES[(number + i) % len(SENTENCES)] + f" item {number * 7 + i}." for i in range(4))
        texts.append((licence if number % 3 == 0 else "") + words)
    return texts


def load_script(name: str):
    path = asset(name)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def material(tmp_path_factory) -> Path:
    """`docs.jsonl`, `held_out.jsonl`, `tokenizer/`, `rows.jsonl` (what the model is trained on) and `model/`.

    Made by the worker that needs it first; the others wait for it.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return make_material(tmp_path_factory.mktemp("material"))
    folder = tmp_path_factory.getbasetemp().parent / "material"
    with FileLock(f"{folder}.lock"):
        return folder if (folder / "watched.json").exists() else make_material(folder)


def make_material(folder: Path) -> Path:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    folder.mkdir(exist_ok=True)
    texts = documents()
    for name, part in (("docs", texts[:24]), ("held_out", texts[24:])):
        lines = (json.dumps({"text": text, "document": f"{name}-{i}"}) for i, text in enumerate(part))
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    fast.save_pretrained(folder / "tokenizer")
    rows = [{"input_ids": fast(text)["input_ids"][:16]} for text in texts[:24] for _ in range(2)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    torch.set_num_threads(1)
    script = load_script("training/train_lm.py")
    callback = script.train(
        script.ModelArguments(
            tokenizer=str(folder / "tokenizer"), hidden_size=64, num_layers=2, num_heads=2, context_length=16
        ),
        script.DataArguments(dataset=str(folder / "rows.jsonl"), prompt=8, continuation=8),
        TrainingArguments(
            output_dir=str(folder / "model"),
            use_cpu=True,
            max_steps=60,
            per_device_train_batch_size=16,
            learning_rate=1e-2,
            save_steps=20,
            logging_steps=10,
            save_only_model=True,
            report_to="none",
            disable_tqdm=True,
        ),
    )
    (folder / "watched.json").write_text(json.dumps(callback.rows))
    return folder


@pytest.fixture(scope="session")
def config(material, tmp_path_factory) -> Run:
    return Run(
        model=str(material / "model"),
        corpus=str(material / "docs.jsonl"),
        held_out=str(material / "held_out.jsonl"),
        checkpoints=tuple(str(material / "model" / f"checkpoint-{step}") for step in (20, 40, 60)),
        output=str(tmp_path_factory.mktemp("runs") / "run"),
        prompt=8,
        continuation=8,
        filters=("compressibility",),
        set=("per_token=true",),
        title="A <b>tiny</b> model",
    )


@pytest.fixture(scope="session")
def finished(config):
    """The result of the whole pipeline."""
    return config.run()
