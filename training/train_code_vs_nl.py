"""Train a classifier of code against natural language, and find its thresholds.

    python training/train_code_vs_nl.py --data FOLDER --output_dir models/code-vs-nl
    accelerate launch training/train_code_vs_nl.py --preset published --output_dir models/code-vs-nl

`--data` is a folder of JSON lines named by domain (MIMIR's `github.member.jsonl`, `pile_cc.member.jsonl`, ...): github is code,
the rest prose. `--code` and `--natural_language` name any other datasets, on the Hub or on disk; without these, bookcorpus
and github-code are streamed from the Hub, or with `--text_at_hand True` the files of this Python are read, offline. Of a named
dataset `--documents` are drawn at random; a stream is shuffled through a buffer of `--shuffle_buffer` for that.

`--ngrams True` trains a logistic regression on character n-grams of the same passages instead of an encoder: seconds on one
core, nothing to download, and nearly as good, since the labels of the passages matter more than what reads them.

Presets: `sensible` (short passages labeled by their own share of prose, lr 1e-4, batch 32, 200 steps: minutes on two cores)
and `published` (the hyper-parameters of Prashanth et al. 2024: lr 1e-7, batch 256, 1000 steps, passages labeled by their
source). What is given on the command line goes before the preset. Every option of `transformers.TrainingArguments` is accepted.

The last step is kept: nothing is chosen by labels. `--labels FILE` (JSON lines with `text` and `label`, 1 for code) is only for
the evaluation, as are the passages of documents held out of training.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    HfArgumentParser,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from memtax.engine.script import run_training
from memtax.errors import MemtaxError
from memtax.files import write_json, write_text
from memtax.filters._code_evaluation import evaluate, read_labels
from memtax.filters._passages import BUFFER, LABELS, Documents, Passages, draw, read_domains, read_texts, text_at_hand
from memtax.filters.code_ngrams import NgramClassifier
from memtax.filters.code_vs_nl import EVALUATION, CodeFilter, _scores, read_thresholds
from memtax.hub.cards import render
from memtax.hub.checkpoints import ResumableTrainer, digest_rows, make_output
from memtax.hub.models import hub_name
from memtax.hub.screening import public_name
from memtax.hub.training import drop_pickles, push_trained, seal_model, take_push
from memtax.lm.encoder import DEFAULT_MODEL, resolve_model
from memtax.lm.folders import find_file
from memtax.lm.weights import read_weights
from memtax.progress import progress_bar, say, silence_libraries
from memtax.provenance import digest, versions
from memtax.report import classifier_figures, saving
from memtax.statistics import unit_codes

HUB_SOURCES = {"code": "codeparrot/github-code", "natural_language": "bookcorpus/bookcorpus"}

PRESETS: dict[str, dict[str, Any]] = {
    "sensible": {
        "learning_rate": 1e-4,
        "per_device_train_batch_size": 32,
        "per_device_eval_batch_size": 64,
        "max_steps": 200,
        "warmup_steps": 20,
        "lr_scheduler_type": "linear",
        "weight_decay": 0.01,
    },
    "published": {
        "learning_rate": 1e-7,
        "per_device_train_batch_size": 256,
        "per_device_eval_batch_size": 1024,
        "max_steps": 1000,
        "lr_scheduler_type": "linear",
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "seed": 42,
        "relabel": False,
        "bf16": False,
    },
}


@dataclass
class ModelArguments:
    """The encoder that is trained further."""

    base: str = field(default=DEFAULT_MODEL, metadata={"help": "Folder or Hub name of any encoder."})
    max_length: int = field(default=64, metadata={"help": "Tokens of a passage that are read."})
    ngrams: bool | None = field(
        default=None,
        metadata={
            "help": "A logistic regression on character n-grams instead: no encoder, seconds to train. "
            "Default: only where the default encoder is not at hand."
        },
    )


@dataclass
class DataArguments:
    """What the passages are cut from."""

    preset: str = field(default="sensible", metadata={"help": "sensible or published."})
    data: str | None = field(default=None, metadata={"help": "Folder of JSON lines named by domain."})
    code: list[str] = field(default_factory=list, metadata={"help": "Datasets of code, each `path[:config[:split]]`."})
    natural_language: list[str] = field(default_factory=list, metadata={"help": "Datasets of natural language."})
    text_at_hand: bool = field(default=False, metadata={"help": "Read the files of this Python, too."})
    documents: int = field(
        default=20_000, metadata={"help": "Most documents taken of a named dataset: drawn at random, not its first ones."}
    )
    shuffle_buffer: int = field(
        default=BUFFER,
        metadata={"help": "Documents that a streamed dataset is shuffled through; its shards come in random order too."},
    )
    relabel: bool = field(default=True, metadata={"help": "Label passages by their own share of prose, not by source."})
    labels: str | None = field(default=None, metadata={"help": "JSON lines with text and label (1: code), to evaluate on."})
    evaluation_rows: int = field(default=1000, metadata={"help": "Passages of held-out documents to evaluate on."})
    time_limit: float | None = field(default=None, metadata={"help": "Stop training after this many seconds."})


class _Watch(TrainerCallback):
    """One progress bar over all steps, and an end by the clock."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar."""
        self.bar = progress_bar("train code_vs_nl", state.max_steps, "steps", unit_scale=False)
        self.started = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Advance it; stop when the time is over."""
        self.bar.update(state.global_step - self.bar.n)
        if self.seconds is not None and self._is_late(args.world_size):
            control.should_training_stop = True

    def _is_late(self, processes: int) -> bool:
        """Whether the time is over, for all processes at the same step: one that went on alone would wait for ever."""
        late = time.monotonic() - self.started > (self.seconds or 0)
        if processes == 1:
            return late
        from accelerate.utils import gather_object

        return any(gather_object([late]))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close it."""
        self.bar.close()


class _Rows(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Tokenized passages with their labels."""

    def __init__(self, passages: Passages, tokenizer: Any, max_length: int) -> None:
        self.encoded = tokenizer(passages.texts, truncation=True, max_length=max_length)
        self.labels = passages.labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {**{name: self.encoded[name][row] for name in self.encoded}, "labels": self.labels[row]}


def read_documents(arguments: DataArguments, seed: int) -> tuple[dict[str, Sequence[str]], dict[str, Sequence[str]]]:
    """Sources of code and of natural language.

    Raises:
        MemtaxError: a source cannot be read.
    """
    code: dict[str, Sequence[str]] = {}
    prose: dict[str, Sequence[str]] = {}
    for read in ([lambda: read_domains(arguments.data or "")] if arguments.data else []) + (
        [lambda: text_at_hand(seed)] if arguments.text_at_hand else []
    ):
        found = read()
        code |= found[0]
        prose |= found[1]
    named = {"code": list(arguments.code), "natural_language": list(arguments.natural_language)}
    if not code and not any(named.values()):
        named = {kind: [source] for kind, source in HUB_SOURCES.items()}
    for kind, sources in (("code", code), ("natural_language", prose)):
        for source in named[kind]:
            sources[source] = read_texts(source, arguments.documents, seed, arguments.shuffle_buffer)
    return code, prose


def hold_out(sources: Documents, share: int = 10) -> tuple[dict[str, Sequence[str]], dict[str, Sequence[str]]]:
    """Every `share`-th document of each source apart: passages of one document never lie on both sides."""
    train = {name: [text for row, text in enumerate(texts) if row % share] for name, texts in sources.items()}
    held = {name: [text for row, text in enumerate(texts) if not row % share] for name, texts in sources.items()}
    return train, held


def fast_bf16() -> bool:
    """Whether this machine multiplies bfloat16 in hardware."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def train(model_arguments: ModelArguments, data_arguments: DataArguments, arguments: TrainingArguments) -> dict[str, Any]:
    """Train, save the model with its card and `evaluation.json`, and return the evaluation."""
    silence_libraries()
    if model_arguments.ngrams is None and _lacks_encoder(model_arguments.base):
        say(f"{model_arguments.base} is neither installed (memtax[demo]) nor to be had: character n-grams are trained instead")
        model_arguments.ngrams = True
    if model_arguments.ngrams:
        return train_ngrams(model_arguments, data_arguments, arguments)
    repository = take_push(arguments)
    output = make_output(arguments)
    base = resolve_model(model_arguments.base)
    code, prose = read_documents(data_arguments, arguments.seed)
    (code, code_held), (prose, prose_held) = hold_out(code), hold_out(prose)
    steps = arguments.max_steps if arguments.max_steps > 0 else 200
    rows = steps * arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    passages = draw(code, prose, rows, arguments.seed, data_arguments.relabel)
    say(
        f"{len(passages.texts):,} passages from {', '.join([*code, *prose])}; "
        f"{passages.relabeled:,} labeled other than their document, {passages.left_out:,} left out"
    )
    torch.manual_seed(arguments.seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    names = dict(enumerate(LABELS))
    # The model would note the problem's type in its first forward pass, which a resumed training may not have.
    labels: dict[str, Any] = {"problem_type": "single_label_classification", "id2label": names}
    labels["label2id"] = {name: label for label, name in names.items()}
    model, _ = read_weights(AutoModelForSequenceClassification, base, dtype=torch.float32, num_labels=2, **labels)
    encoded = _Rows(passages, tokenizer, model_arguments.max_length)
    trainer = ResumableTrainer(
        data=digest_rows(encoded[row] for row in range(len(encoded))),
        settings={"time_limit": data_arguments.time_limit},
        model=model,
        args=arguments,
        train_dataset=encoded,
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        callbacks=[_Watch(data_arguments.time_limit)],
    )
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.resume()
    trainer.save_model()
    found: dict[str, Any] = {}
    if trainer.is_world_process_zero():
        drop_pickles(output)
        # As users will load it: the trained object still computes in the Trainer's half precision.
        model = read_weights(AutoModelForSequenceClassification, output, dtype=torch.float32)[0].eval()
        found = _evaluate_all((tokenizer, model, 0), code_held, prose_held, data_arguments, arguments)
        details = {
            "base model": public_name(model_arguments.base),
            "steps": trainer.state.global_step,
            "batch": arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size,
            "learning rate": arguments.learning_rate,
            "tokens read": model_arguments.max_length,
            "number format": "bfloat16 autocast" if arguments.bf16 else "float32",
        }
        _write_card(output, base, details, model_arguments, data_arguments, arguments, [*code, *prose], found)
        seal_model(output, "train_code_vs_nl", trainer.identity)
        push_trained(output, repository, arguments.hub_private_repo)
    return found


def _lacks_encoder(base: str) -> bool:
    """Whether the default encoder was meant and cannot be loaded; another that is named has to be there."""
    return base == DEFAULT_MODEL == resolve_model(base) and find_file(base, None, "config.json") is None


def train_ngrams(
    model_arguments: ModelArguments, data_arguments: DataArguments, arguments: TrainingArguments
) -> dict[str, Any]:
    """Train a classifier of character n-grams on the passages that an encoder would be trained on, and save it as one is."""
    repository = take_push(arguments)
    code, prose = read_documents(data_arguments, arguments.seed)
    (code, code_held), (prose, prose_held) = hold_out(code), hold_out(prose)
    steps = arguments.max_steps if arguments.max_steps > 0 else 200
    rows = steps * arguments.per_device_train_batch_size
    passages = draw(code, prose, rows, arguments.seed, data_arguments.relabel)
    output = make_output(arguments)
    classifier = NgramClassifier.fit(passages.texts, passages.labels)
    classifier.save_pretrained(output)
    found = _evaluate_all(classifier, code_held, prose_held, data_arguments, arguments)
    details = {"base model": "none: logistic regression on character n-grams", "passages": rows}
    _write_card(output, None, details, model_arguments, data_arguments, arguments, [*code, *prose], found)
    seal_model(output, "train_code_vs_nl", digest(passages.texts, passages.labels))
    push_trained(output, repository, arguments.hub_private_repo)
    return found


def _evaluate_all(
    classifier: Any, code_held: Documents, prose_held: Documents, data_arguments: DataArguments, arguments: TrainingArguments
) -> dict[str, Any]:
    """Evaluate on passages of documents held out and on labels, if any; write figures and `evaluation.json`."""
    output = Path(arguments.output_dir)
    held = draw(code_held, prose_held, data_arguments.evaluation_rows, arguments.seed, data_arguments.relabel)
    sets = {"held-out passages": (held.texts, held.labels, unit_codes(held.documents))}
    if data_arguments.labels:
        texts, labels = read_labels(data_arguments.labels)
        sets["hand-labelled sequences"] = texts, labels, unit_codes(texts=texts)
    found = {}
    for name, (texts, labels, units) in sets.items():
        scores = _scores(classifier, texts, CodeFilter.max_length)
        found[name] = evaluate(labels, scores, units)
        drawn = classifier_figures.evaluation(labels, scores, found[name], LABELS)
        saving.save(drawn, output / "figures", name.replace(" ", "_"), f"{name} ({found[name]['rows']:,})")
    write_json(output / EVALUATION, found)
    return found


def _write_card(
    output: Path,
    base: str | None,
    details: dict[str, Any],
    model_arguments: ModelArguments,
    data_arguments: DataArguments,
    arguments: TrainingArguments,
    sources: list[str],
    found: dict[str, Any],
) -> None:
    """The card; `base` is None for a classifier without an encoder."""
    encoder = {
        "base_model": hub_name(model_arguments.base),
        "license": "apache-2.0" if base != model_arguments.base or model_arguments.base == DEFAULT_MODEL else None,
    }
    front_matter = {
        "pipeline_tag": "text-classification",
        "library_name": "transformers" if base else "memtax",
        "tags": ["memtax", "code", "text-classification"],
        **(encoder if base else {}),
    }
    training = {
        "preset": data_arguments.preset,
        "sources": ", ".join(map(public_name, sources)),
        "passages labelled by": "their own share of prose" if data_arguments.relabel else "their source",
        "seed": arguments.seed,
        **details,
    }
    thresholds = read_thresholds(str(output))
    assert thresholds is not None
    text = render(
        "classifier.md.j2",
        front_matter,
        output,
        training=training,
        evaluations=found,
        labels=LABELS,
        ngrams=base is None,
        nl_from=thresholds[1],
        code_to=thresholds[0],
        version=versions()["memtax"],
    )
    write_text(output / "README.md", text)


def parse(arguments: list[str]) -> tuple[ModelArguments, DataArguments, TrainingArguments]:
    """Arguments of the command line over those of the preset.

    Raises:
        MemtaxError: the preset is unknown.
    """
    parser = HfArgumentParser([ModelArguments, DataArguments, TrainingArguments])
    name = next((after for each, after in pairwise(arguments) if each == "--preset"), "sensible")
    name = next((each.partition("=")[2] for each in arguments if each.startswith("--preset=")), name)
    if name not in PRESETS:
        raise MemtaxError(f"unknown preset {name!r}; choose one of {', '.join(PRESETS)}")
    defaults = {"bf16": fast_bf16(), "use_cpu": not torch.cuda.is_available(), "report_to": "none", "save_strategy": "no"}
    parser.set_defaults(**{**defaults, "dataloader_pin_memory": torch.cuda.is_available(), **PRESETS[name]})
    model, data, training = parser.parse_args_into_dataclasses(arguments)
    return model, data, training


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, train, and print what the evaluation found."""
    run_training("train_code_vs_nl", lambda: _print(train(*parse(sys.argv[1:] if arguments is None else arguments))))


def _print(found: dict[str, Any]) -> None:
    for name, figures in found.items():
        auc = figures["roc_auc"]
        interval = "interval withheld" if auc["low"] is None else f"{auc['low']:.4f} to {auc['high']:.4f}"
        print(f"{name} ({figures['rows']:,}): ROC-AUC {auc['value']:.4f} ({interval}), ", end="")
        print(f"best F1 {figures['best_f1']:.3f} at {figures['best_threshold']:.3f}, ", end="")
        print(f"code up to {figures['code_to']:.3f}, natural language from {figures['natural_language_from']:.3f}")


if __name__ == "__main__":
    main()
