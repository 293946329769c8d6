"""Train a classifier of code against natural language, and find its thresholds.

    python training/train_code_vs_nl.py --data FOLDER --output_dir models/code-vs-nl
    accelerate launch training/train_code_vs_nl.py --preset published --output_dir models/code-vs-nl

`--data` is a folder of JSON lines named by domain (MIMIR's `github.member.jsonl`, `pile_cc.member.jsonl`, ...): github is code,
the rest prose. `--code` and `--natural_language` name any other datasets, on the Hub or on disk; without these, bookcorpus
and github-code are streamed from the Hub, or with `--text_at_hand True` the files of this Python are read, offline. Of a named
dataset `--documents` are drawn at random; a stream is shuffled through a buffer of `--shuffle_buffer` for that.

Presets: `sensible` (short passages labelled by their own share of prose, lr 1e-4, batch 32, 200 steps: minutes on two cores)
and `published` (the hyper-parameters of Prashanth et al. 2024: lr 1e-7, batch 256, 1000 steps, passages labelled by their
source). What is given on the command line goes before the preset. Every option of `transformers.TrainingArguments` is accepted.

The last step is kept: nothing is chosen by labels. `--labels FILE` (JSON lines with `text` and `label`, 1 for code) is only for
the evaluation, as are the passages of documents held out of training.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
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

from memtax import statistics
from memtax.engine.script import run_training
from memtax.errors import MemtaxError
from memtax.files import atomic_path, write_json, write_text
from memtax.filters._passages import BUFFER, LABELS, Documents, Passages, draw, read_domains, read_texts, text_at_hand
from memtax.filters.code_vs_nl import CodeFilter, _scores
from memtax.hub.cards import render
from memtax.hub.checkpoints import ResumableTrainer, digest_rows, make_output
from memtax.hub.models import hub_name
from memtax.hub.privacy import public_name
from memtax.hub.training import drop_pickles, push_trained, take_push
from memtax.lm.embeddings import DEFAULT_MODEL, resolve_model
from memtax.progress import progress_bar, say, silence_libraries
from memtax.provenance import versions

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
        f"{passages.relabelled:,} labelled other than their document, {passages.left_out:,} left out"
    )
    torch.manual_seed(arguments.seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    names = dict(enumerate(LABELS))
    model = AutoModelForSequenceClassification.from_pretrained(
        base, dtype=torch.float32, num_labels=2, id2label=names, label2id={name: label for label, name in names.items()}
    )
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
        held = draw(code_held, prose_held, data_arguments.evaluation_rows, arguments.seed, data_arguments.relabel)
        sets = {"held-out passages": (held.texts, held.labels)}
        if data_arguments.labels:
            sets["hand-labelled sequences"] = read_labels(data_arguments.labels)
        # As users will load it: the trained object still computes in the Trainer's half precision.
        model = AutoModelForSequenceClassification.from_pretrained(output).eval()
        for name, (texts, labels) in sets.items():
            scores = _scores((tokenizer, model, 0), texts, CodeFilter.max_length)
            found[name] = evaluate(labels, scores)
            draw_figure(output / "figures", name, labels, scores, found[name])
        write_json(output / "evaluation.json", found)
        _write_card(output, base, model_arguments, data_arguments, arguments, [*code, *prose], trainer.state.global_step, found)
        push_trained(output, repository, arguments.hub_private_repo)
    return found


def read_labels(path: str) -> tuple[list[str], list[int]]:
    """Texts and labels (1: code) of a file of JSON lines.

    Raises:
        MemtaxError: a line lacks one of them.
    """
    try:
        rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
        return [str(row["text"]) for row in rows], [int(row["label"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MemtaxError(f"{path} must be JSON lines with `text` and `label` (0 or 1): {error!r}") from error


def evaluate(labels: Sequence[int], scores: Sequence[float]) -> dict[str, Any]:
    """Ranking measures and thresholds of P(natural language) against labels (0 natural language, 1 code).

    Returns:
        `roc_auc` with its 95% interval, `pr_auc_code`, `pr_auc_natural_language`, `best_f1` of natural language with
        `best_threshold`, and the thresholds where a class's false positives vanish: from `natural_language_from` on no code is
        called natural language, up to `code_to` no natural language is called code.
    """
    prose, score = 1 - np.asarray(labels), np.asarray(scores, np.float64)
    interval = statistics.bootstrap_interval(statistics.auroc, prose, score, strata=prose)
    thresholds = np.unique(score)
    f1 = [statistics.f1_score(prose, (score >= threshold).astype(int)) for threshold in thresholds]
    best = int(np.argmax(f1))
    return {
        "rows": len(prose),
        "roc_auc": {"value": interval.value, "low": interval.low, "high": interval.high},
        "pr_auc_code": statistics.average_precision(1 - prose, -score),
        "pr_auc_natural_language": statistics.average_precision(prose, score),
        "best_f1": float(f1[best]),
        "best_threshold": float(thresholds[best]),
        "natural_language_from": float(min(1.0, np.nextafter(score[prose == 0].max(), 2))),
        "code_to": float(max(0.0, np.nextafter(score[prose == 1].min(), -1))),
    }


def draw_figure(folder: Path, name: str, labels: Sequence[int], scores: Sequence[float], found: dict[str, Any]) -> None:
    """ROC curve, precision and recall of both classes, and F1 and false-positive rates by threshold (PNG and SVG)."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from sklearn.metrics import precision_recall_curve, roc_curve

    prose, score = 1 - np.asarray(labels), np.asarray(scores)
    figure, (roc, pr, cut) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    rates = roc_curve(prose, score)
    roc.plot(rates[0], rates[1], label=f"ROC-AUC {found['roc_auc']['value']:.3f}")
    roc.set(xlabel="false-positive rate", ylabel="true-positive rate", title="Natural language against code")
    for target, values, label, area in (
        (prose, score, LABELS[0], found["pr_auc_natural_language"]),
        (1 - prose, -score, LABELS[1], found["pr_auc_code"]),
    ):
        precision, recall, _ = precision_recall_curve(target, values)
        pr.plot(recall, precision, label=f"{label}, PR-AUC {area:.3f}")
    pr.set(xlabel="recall", ylabel="precision", title="Precision and recall")
    at = np.linspace(0, 1, 201)
    cut.plot(at, [statistics.f1_score(prose, (score >= t).astype(int)) for t in at], label="F1 of natural language")
    cut.plot(at, [(score[prose == 0] >= t).mean() for t in at], label="code called natural language")
    cut.plot(at, [(score[prose == 1] <= t).mean() for t in at], label="natural language called code")
    cut.axvline(found["code_to"], color="grey", linestyle=":")
    cut.axvline(found["natural_language_from"], color="grey", linestyle="--")
    cut.set(xlabel="threshold on P(natural language)", title="Thresholds (lines: where false positives vanish)")
    for axes in (roc, pr, cut):
        axes.legend(fontsize="small")
    figure.suptitle(f"{name} ({found['rows']:,})")
    for ending in ("png", "svg"):
        with atomic_path(folder / f"{name.replace(' ', '_')}.{ending}") as temporary:
            figure.savefig(temporary, format=ending, dpi=150)
    plt.close(figure)


def _write_card(
    output: Path,
    base: str,
    model_arguments: ModelArguments,
    data_arguments: DataArguments,
    arguments: TrainingArguments,
    sources: list[str],
    steps: int,
    found: dict[str, Any],
) -> None:
    front_matter = {
        "pipeline_tag": "text-classification",
        "library_name": "transformers",
        "tags": ["memtax", "code", "text-classification"],
        "base_model": hub_name(model_arguments.base),
        "license": "apache-2.0" if base != model_arguments.base or model_arguments.base == DEFAULT_MODEL else None,
    }
    training = {
        "base model": public_name(model_arguments.base),
        "preset": data_arguments.preset,
        "sources": ", ".join(map(public_name, sources)),
        "passages labelled by": "their own share of prose" if data_arguments.relabel else "their source",
        "steps": steps,
        "batch": arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size,
        "learning rate": arguments.learning_rate,
        "tokens read": model_arguments.max_length,
        "seed": arguments.seed,
        "number format": "bfloat16 autocast" if arguments.bf16 else "float32",
    }
    text = render(
        "classifier.md.j2",
        front_matter,
        output,
        training=training,
        evaluations=found,
        labels=LABELS,
        nl_from=CodeFilter.natural_language_from,
        code_to=CodeFilter.code_to,
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
        print(f"{name} ({figures['rows']:,}): ROC-AUC {auc['value']:.4f} ({auc['low']:.4f} to {auc['high']:.4f}), ", end="")
        print(f"best F1 {figures['best_f1']:.3f} at {figures['best_threshold']:.3f}, ", end="")
        print(f"code up to {figures['code_to']:.3f}, natural language from {figures['natural_language_from']:.3f}")


if __name__ == "__main__":
    main()
