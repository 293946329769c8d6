"""Fine-tune a causal language model with LoRA (or whole), with canaries planted on request, so that memorization is known.

    accelerate launch training/finetune_lora.py --model_name_or_path EleutherAI/pythia-70m --dataset locuslab/TOFU:full \
        --question_column question --answer_column answer --output_dir OUT \
        --canaries 64 --canary_repetitions 1 4 16 --num_train_epochs 5 --learning_rate 1e-3

`--resume_from_checkpoint True` resumes from the last whole checkpoint, if there is one, and ends in the files of an
undisturbed training.

The dataset is anything `datasets.load_dataset` reads, with a column of text or token ids. Every option of
`transformers.TrainingArguments` is accepted too. What was trained on is written beside the adapter: `canaries/` holds a
file of planted canaries and one of canaries of the same kind that were not, which `memtax mia OUT/canaries --model OUT`
reads as they are; `training_rows.json` holds the rows of the dataset that were used.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import HfArgumentParser, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from memtax.corpus.columns import find_column
from memtax.corpus.sources import Source, open_dataset
from memtax.engine.script import run_training
from memtax.errors import MemtaxError
from memtax.files import write_text
from memtax.hub.checkpoints import ResumableTrainer, digest_rows, make_output
from memtax.hub.screening import public_name
from memtax.hub.training import push_trained, seal_model, take_push, tidy
from memtax.lm.loading import load_model, load_tokenizer
from memtax.lm.special_tokens import BosIds, text_ids, tokenizer_bos, without_bos
from memtax.membership.planting import draw, ordinary_ids, toss, write_record

IGNORED = -100
"""Label of tokens that are not trained on."""


@dataclass
class ModelArguments:
    """The model, and what of it is trained."""

    model_name_or_path: str = field(metadata={"help": "Folder or Hub name of the model to start from."})
    tokenizer: str | None = field(default=None, metadata={"help": "Folder or Hub name; default: the model's."})
    full: bool = field(default=False, metadata={"help": "Train all weights instead of an adapter."})
    lora_rank: int = field(default=16, metadata={"help": "Rank of the adapter."})
    lora_alpha: int = field(default=32, metadata={"help": "The adapter's output is scaled by alpha / rank."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout on the adapter's input."})
    lora_targets: list[str] = field(
        default_factory=lambda: ["all-linear"], metadata={"help": "Modules to adapt, or all-linear (all but the head)."}
    )
    bos: str = field(
        default="auto", metadata={"help": "BOS before each row: auto (if the tokenizer adds it by itself), always or never."}
    )


@dataclass
class DataArguments:
    """The texts, and what is planted among them."""

    dataset: str = field(metadata={"help": "Hub name or local path, as `path[:config[:split]]`."})
    column: str | None = field(default=None, metadata={"help": "Column of text or tokens."})
    question_column: str | None = field(default=None, metadata={"help": "Column of a question, which is not trained on."})
    answer_column: str | None = field(default=None, metadata={"help": "Column of its answer."})
    max_length: int = field(
        default=256,
        metadata={
            "help": "Tokens at once, at most the model's positions: a longer text is cut into several rows; "
            "of a longer answer the rest is dropped."
        },
    )
    rows_file: str | None = field(default=None, metadata={"help": "JSON list of the rows to use; default: all."})
    canaries: int = field(default=0, metadata={"help": "Canaries to plant; as many are made and held out."})
    canary_candidates: int = field(
        default=0, metadata={"help": "More canaries that are only held out: exposure is at most log2 of their number."}
    )
    canary_repetitions: list[int] = field(
        default_factory=lambda: [1], metadata={"help": "How often canaries are planted: given in turn to one after another."}
    )
    canary_tokens: int = field(default=32, metadata={"help": "Random tokens of a canary."})
    canary_source: str | None = field(default=None, metadata={"help": "A dataset whose rows serve as canaries, instead."})
    canary_seed: int = field(default=1024, metadata={"help": "Seed of the canaries."})
    canary_coins: int | None = field(
        default=None,
        metadata={
            "help": "Seed of fair coins, known to the owner alone: each of 2 x canaries has a coin of its own, which decides "
            "whether it is planted, once. Needed for the bound on epsilon."
        },
    )

    def __post_init__(self) -> None:
        if (self.question_column is None) != (self.answer_column is None):
            raise MemtaxError("give --question_column and --answer_column together")
        if (
            min(self.canaries, self.canary_candidates) < 0
            or self.canary_tokens < 2
            or self.max_length < 2
            or min(self.canary_repetitions, default=0) < 1
        ):
            raise MemtaxError("canaries must be 0 or more, repetitions 1 or more, canary_tokens and max_length 2 or more")
        if self.canary_coins is not None and self.canary_repetitions != [1]:
            raise MemtaxError("canary_coins plants canaries once; leave canary_repetitions out")


Row = dict[str, list[int]]


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids without special tokens: what `memtax` scores."""
    return text_ids(tokenizer, [text])[0]


def pieces(ids: list[int], length: int) -> list[list[int]]:
    """A text in consecutive pieces of at most `length` tokens."""
    return [ids[start : start + length] for start in range(0, len(ids), length)]


def after_bos(rows: list[Row], bos: BosIds) -> list[Row]:
    """The rows with BOS before each, which is not trained on."""
    ignored = [IGNORED] * len(bos)
    return [{"input_ids": [*bos, *row["input_ids"]], "labels": [*ignored, *row["labels"]]} for row in rows]


def read_rows_file(path: str | None, rows: int) -> list[int] | None:
    """The places of the rows to use among `rows` of them; None without a file: all.

    Raises:
        MemtaxError: the file holds anything but a JSON list of whole numbers from 0 to `rows` - 1.
    """
    if path is None:
        return None
    try:
        used = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise MemtaxError(f"--rows_file {path} cannot be read ({reason}); it must be a JSON list of row numbers") from error
    if not isinstance(used, list):
        raise MemtaxError(f"--rows_file {path} holds a {type(used).__name__}, not a list of row numbers")
    for value in used:
        if type(value) is not int or not 0 <= value < rows:
            raise MemtaxError(f"--rows_file {path} names row {value!r}; the dataset has rows 0 to {rows - 1}")
    return used


def read_rows(data: DataArguments, tokenizer: Any, bos: BosIds = ()) -> list[Row]:
    """Input ids and labels of the training rows: of each row of the dataset that is used, or of its pieces; without BOS."""
    rows = open_dataset(Source.parse(data.dataset, column=data.column))
    used = read_rows_file(data.rows_file, len(rows))
    if used is not None:
        rows = rows.select(used)
    if data.question_column is not None and data.answer_column is not None:
        for name in (data.question_column, data.answer_column):
            find_column(list(rows.column_names), name, data.dataset)
        found = []
        for question, answer in zip(rows[data.question_column], rows[data.answer_column], strict=True):
            asked, answered = encode(tokenizer, f"{question} "), encode(tokenizer, answer)
            found.append({"input_ids": asked + answered, "labels": [IGNORED] * len(asked) + answered})
    else:
        name = find_column(list(rows.column_names), data.column, data.dataset)
        encoded = (value if isinstance(value, list) else encode(tokenizer, value or "") for value in rows[name])
        values = (list(without_bos(ids, bos)) for ids in encoded)
        # Every part is trained on: what measures the model afterwards takes all of a text for training data.
        found = [{"input_ids": piece, "labels": piece} for ids in values for piece in pieces(ids, data.max_length)]
    cut = [{name: ids[: data.max_length] for name, ids in row.items()} for row in found]
    # A text of one token has no target.
    return [row for row in cut if any(label != IGNORED for label in row["labels"][1:])]


def make_canaries(data: DataArguments, tokenizer: Any, bos: BosIds = ()) -> list[dict[str, Any]]:
    """Canaries with how often each is planted; every second one is held out (0 times), so that both are of one kind.

    With `canary_coins` a coin of its own decides for each instead. `canary_candidates` more are held out.

    Random canaries are those that their text gives again: what is planted is what a text-based tool scores.
    """
    rng = np.random.default_rng(data.canary_seed)
    tokens: list[list[int]] = []
    wanted = 2 * data.canaries + data.canary_candidates
    if data.canary_source is not None:
        rows = open_dataset(Source.parse(data.canary_source))
        name = find_column(list(rows.column_names), None, data.canary_source)
        encoded = (value if isinstance(value, list) else encode(tokenizer, value) for value in rows[name])
        found = [list(without_bos(ids, bos)) for ids in encoded]
        tokens = [found[place][: data.max_length] for place in rng.permutation(len(found))[:wanted]]
        if len(tokens) < wanted:
            raise MemtaxError(f"{data.canary_source} has {len(found)} rows; {wanted} are needed, planted and held out")
    ordinary = ordinary_ids(tokenizer)
    while len(tokens) < wanted:
        tokens.append(draw(rng, ordinary, min(data.canary_tokens, data.max_length), tokenizer))
    included = [place % 2 == 0 for place in range(2 * data.canaries)]
    if data.canary_coins is not None:
        included = toss(2 * data.canaries, data.canary_coins)
    canaries = []
    for place, ids in enumerate(tokens):
        is_candidate = place < 2 * data.canaries
        planted = is_candidate and included[place]
        count = data.canary_repetitions[place // 2 % len(data.canary_repetitions)] if planted else 0
        coin = {"coin": True} if data.canary_coins is not None and is_candidate else {}
        canaries.append({"text": tokenizer.decode(ids), "tokens": ids, "repetitions": count, **coin})
    return canaries


def collate(rows: list[Row]) -> dict[str, torch.Tensor]:
    """Pad on the right; padding is masked in attention and loss whatever its id."""
    length = max(len(row["input_ids"]) for row in rows)
    batch = {
        "input_ids": torch.zeros(len(rows), length, dtype=torch.long),
        "labels": torch.full((len(rows), length), IGNORED),
        "attention_mask": torch.zeros(len(rows), length, dtype=torch.long),
    }
    for number, row in enumerate(rows):
        size = len(row["input_ids"])
        batch["input_ids"][number, :size] = torch.tensor(row["input_ids"])
        batch["labels"][number, :size] = torch.tensor(row["labels"])
        batch["attention_mask"][number, :size] = 1
    return batch


def adapted(arguments: ModelArguments) -> Any:
    """The model, with an adapter unless all of it is trained.

    Raises:
        MemtaxError: it cannot be loaded, is an adapter itself, or has none of the layers to adapt.
    """
    name = arguments.model_name_or_path
    model = load_model(name, device="cpu", bos=arguments.bos)
    if hasattr(model, "peft_config"):
        raise MemtaxError(f"{name} is an adapter, which a new one cannot name as its base; merge it into its model first")
    if arguments.full:
        return model.requires_grad_(True)
    from peft import LoraConfig, get_peft_model

    targets = arguments.lora_targets
    config = LoraConfig(
        r=arguments.lora_rank,
        lora_alpha=arguments.lora_alpha,
        lora_dropout=arguments.lora_dropout,
        target_modules=targets[0] if targets == ["all-linear"] else targets,
        task_type="CAUSAL_LM",
    )
    try:
        with_adapter = get_peft_model(model, config)
    except ValueError as error:
        raise MemtaxError(f"no adapter fits {name}: {str(error).rstrip('.')}; name its layers with --lora_targets") from error
    for adapter in with_adapter.peft_config.values():
        if isinstance(adapter.target_modules, set):
            # PEFT would save a set in an order that differs between processes.
            adapter.target_modules = sorted(adapter.target_modules)
    return with_adapter


def write_training_record(
    output: Path, rows: int, data: DataArguments, canaries: list[dict[str, Any]], bos: BosIds = ()
) -> None:
    """Which rows and canaries were trained on; the owner alone may read it."""
    used = json.loads(Path(data.rows_file).read_text(encoding="utf-8")) if data.rows_file else None
    record = {"dataset": public_name(data.dataset), "rows": used, "training_rows": rows}
    record |= {"canaries": data.canaries, "canary_seed": data.canary_seed, "bos": list(bos)}
    write_text(output / "training_rows.json", json.dumps(record) + "\n", private=True)
    write_record(output / "canaries", canaries)


def train(model_arguments: ModelArguments, data: DataArguments, training: TrainingArguments) -> Path:
    """Train and save the adapter (or model), the tokenizer, and the record of what was trained on.

    Returns:
        The output folder, which `memtax` loads as a model.

    Raises:
        MemtaxError: the dataset cannot be used, or no row is left.
    """
    torch.manual_seed(training.seed)
    model = adapted(model_arguments)
    tokenizer = load_tokenizer(model_arguments.tokenizer or model_arguments.model_name_or_path)
    bos = tokenizer_bos(tokenizer, model_arguments.bos)
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    data = replace(data, max_length=min(data.max_length, positions - len(bos) if positions else data.max_length))
    repository = take_push(training)
    output = make_output(training)
    rows = read_rows(data, tokenizer, bos)
    canaries = make_canaries(data, tokenizer, bos)
    planted = [{"input_ids": c["tokens"], "labels": c["tokens"]} for c in canaries for _ in range(c["repetitions"])]
    if not rows + planted:
        raise MemtaxError(f"{data.dataset} has no text of two tokens or more to train on")
    # The Trainer would drop columns by the wrapped model's signature.
    training.remove_unused_columns = False
    names = ("full", "lora_rank", "lora_alpha", "lora_dropout", "lora_targets")
    names += ("canaries", "canary_candidates", "canary_repetitions", "canary_seed")
    given = {**asdict(model_arguments), **asdict(data)}
    trainer = ResumableTrainer(
        data=digest_rows(after_bos(rows + planted, bos)),
        settings={name: given[name] for name in names},
        model=model,
        args=training,
        train_dataset=after_bos(rows + planted, bos),
        data_collator=collate,
        processing_class=tokenizer,
    )
    if training.disable_tqdm:
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
    trainer.resume()
    trainer.save_model()
    if trainer.is_world_process_zero():
        write_training_record(output, len(rows), data, canaries, bos)
        tidy(output)
        seal_model(output, "finetune_lora", trainer.identity)
        push_trained(output, repository, training.hub_private_repo)
    return output


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and train."""
    parser = HfArgumentParser([ModelArguments, DataArguments, TrainingArguments])
    run_training("finetune_lora", lambda: print(train(*parser.parse_args_into_dataclasses(arguments))))


if __name__ == "__main__":
    main()
