"""Train a causal language model on rows of tokens, and watch what it memorizes while it learns.

    accelerate launch training/train_lm.py --dataset FOLDER --tokenizer FOLDER --output_dir OUT \
        --hidden_size 256 --num_layers 3 --num_train_epochs 10 --learning_rate 2e-3

The dataset is anything `datasets.load_dataset` reads, with a column of token ids (`tokens` or `input_ids`), each row at
most `--context_length` long, or of text, which is cut into rows of that length. Every option of
`transformers.TrainingArguments` is accepted too. `--resume_from_checkpoint True` resumes from the last whole checkpoint, if
there is one, and ends in the files of an undisturbed training.
"""

import functools
import json
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPTNeoXConfig,
    HfArgumentParser,
    PreTrainedModel,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from memtax.callback import MemorizationCallback
from memtax.corpus.columns import column_kind, find_column, tokenize
from memtax.corpus.sources import Source, open_dataset
from memtax.engine.script import run_training
from memtax.errors import MemtaxError
from memtax.files import write_text
from memtax.hub.checkpoints import ResumableTrainer, digest_rows, make_output
from memtax.hub.training import push_trained, seal_model, take_push, tidy
from memtax.lm.loading import load_model
from memtax.lm.special_tokens import BosIds, tokenizer_bos, with_bos, without_bos
from memtax.progress import progress_bar
from memtax.provenance import fingerprint_dataset

TIMINGS = ("train_runtime", "train_samples_per_second", "train_steps_per_second")
"""What the Trainer notes in its state at the end."""


@dataclass
class ModelArguments:
    """A new GPT-NeoX of the given shape, or an existing model to train further."""

    tokenizer: str = field(metadata={"help": "Folder or Hub name of the tokenizer."})
    model_name_or_path: str | None = field(default=None, metadata={"help": "Train this model further instead of a new one."})
    hidden_size: int = field(default=256, metadata={"help": "Width of the residual stream."})
    num_layers: int = field(default=3, metadata={"help": "Transformer blocks."})
    num_heads: int = field(default=4, metadata={"help": "Attention heads."})
    context_length: int = field(default=64, metadata={"help": "Most tokens in a row; texts are cut into rows of so many."})
    bos: str = field(
        default="auto", metadata={"help": "BOS before each row: auto (if the tokenizer adds it by itself), always or never."}
    )


@dataclass
class DataArguments:
    """The rows to train on, and how memorization is watched."""

    dataset: str = field(metadata={"help": "Hub name or local path, as `path[:config[:split]]`."})
    watch_every: int | None = field(
        default=None, metadata={"help": "Measure memorization every so many steps (default: epochs)."}
    )
    prompt: int = field(default=32, metadata={"help": "Prompt tokens."})
    continuation: int = field(default=32, metadata={"help": "Continuation tokens."})
    stop_at_rate: float | None = field(
        default=None, metadata={"help": "Stop once this share of the rows is memorized (between 0 and 1)."}
    )


class BarCallback(TrainerCallback):
    """One progress bar over all steps, with the loss beside it."""

    def __init__(self) -> None:
        self.bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar."""
        self.bar = progress_bar("train", state.max_steps, "steps", unit_scale=False)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Advance it."""
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Show the last loss."""
        if logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{logs['loss']:.2f}", refresh=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        self.bar.close()


def fast_bf16() -> bool:
    """Whether this machine multiplies bfloat16 in hardware (GPUs of today; CPUs with AMX or AVX512-BF16)."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def new_model(arguments: ModelArguments, vocabulary_size: int, end_of_text: int | None, bos: BosIds = ()) -> PreTrainedModel:
    """A GPT-NeoX with random weights, and positions for BOS before the rows."""
    config = GPTNeoXConfig(
        vocab_size=vocabulary_size,
        hidden_size=arguments.hidden_size,
        num_hidden_layers=arguments.num_layers,
        num_attention_heads=arguments.num_heads,
        intermediate_size=4 * arguments.hidden_size,
        max_position_embeddings=arguments.context_length + len(bos),
        bos_token_id=bos[0] if bos else end_of_text,
        eos_token_id=end_of_text,
    )
    return AutoModelForCausalLM.from_config(config)


def collate(rows: list[dict[str, Any]], bos: BosIds = ()) -> dict[str, torch.Tensor]:
    """BOS before each row, and padding on the right, which is masked in attention and loss whatever its id."""
    rows = [{"input_ids": with_bos(row["input_ids"], bos)} for row in rows]
    length = max(len(row["input_ids"]) for row in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros(len(rows), length, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
        mask[i, : len(row["input_ids"])] = 1
    batch = {"input_ids": ids, "labels": ids.masked_fill(mask == 0, -100)}
    if not mask.all():
        batch["attention_mask"] = mask
    return batch


def read_rows(source: str, tokenizer: Any, length: int) -> Any:
    """The dataset's tokens under the name that the Trainer knows, and nothing else; texts in pieces of `length` tokens."""
    rows = open_dataset(Source.parse(source))
    name = find_column(rows.column_names, None, source)
    if column_kind(rows.features.arrow_schema.field(name).type, name, source) == "tokens":
        return rows.select_columns([name]).rename_columns({} if name == "input_ids" else {name: "input_ids"})

    def cut(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        # Without special tokens, as `memtax` counts and scores; a piece of one token has no target.
        ids, offsets = tokenize(tokenizer, batch[name])
        bounds = [(at, min(at + length, stop)) for start, stop in pairwise(offsets) for at in range(start, stop, length)]
        return {"input_ids": [ids[start:stop].tolist() for start, stop in bounds if stop - start > 1]}

    cut_rows = rows.map(cut, batched=True, remove_columns=rows.column_names)
    if not len(cut_rows):
        raise MemtaxError(f"{source} has no text of two tokens or more to train on")
    return cut_rows


def train(
    model_arguments: ModelArguments,
    data_arguments: DataArguments,
    training_arguments: TrainingArguments,
    watched: Any = None,
) -> MemorizationCallback:
    """Train, save the model with its tokenizer, and return the callback with what was measured.

    Args:
        model_arguments: shape of the model.
        data_arguments: rows and how to watch them.
        training_arguments: everything else.
        watched: rows to watch instead of the first 2,000 training rows; a `taxonomy` column gives counts by category.
    """
    repository = take_push(training_arguments)
    output = make_output(training_arguments)
    tokenizer = AutoTokenizer.from_pretrained(model_arguments.tokenizer)
    bos = tokenizer_bos(tokenizer, model_arguments.bos)
    rows = read_rows(data_arguments.dataset, tokenizer, model_arguments.context_length)
    longest = max(len(without_bos(tokens, bos)) for tokens in rows["input_ids"])
    if longest > model_arguments.context_length:
        raise MemtaxError(f"a row has {longest} tokens, more than --context_length {model_arguments.context_length}; raise it")
    torch.manual_seed(training_arguments.seed)
    if model_arguments.model_name_or_path:
        # In float32 whatever it was saved in: an optimizer's steps are lost in weights of 16 bits.
        model = load_model(model_arguments.model_name_or_path, device="cpu", bos=bos).requires_grad_(True)
    else:
        model = new_model(model_arguments, len(tokenizer), tokenizer.eos_token_id, bos)
    callback = MemorizationCallback(
        watched if watched is not None else rows["input_ids"][:2000],
        every=data_arguments.watch_every,
        prompt=data_arguments.prompt,
        continuation=data_arguments.continuation,
        stop_at_rate=data_arguments.stop_at_rate,
        bos=model_arguments.bos,
    )
    watching = {**asdict(data_arguments), "watched": digest_rows({"ids": ids} for ids in callback.tokens)}
    del watching["dataset"]
    trainer = ResumableTrainer(
        data=fingerprint_dataset(rows, ["input_ids"]),
        settings=watching,
        model=model,
        args=training_arguments,
        train_dataset=rows,
        data_collator=functools.partial(collate, bos=bos),
        processing_class=tokenizer,
        callbacks=[callback, BarCallback()],
    )
    # Our bar and the callback's lines replace the dictionaries that these print.
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.resume()
    trainer.save_model()
    # How long it took is no part of the result: the same training is to leave the same files.
    for entry in trainer.state.log_history:
        for name in TIMINGS:
            entry.pop(name, None)
    trainer.save_state()
    if trainer.is_world_process_zero():
        write_text(output / "memorization.json", json.dumps(callback.rows, indent=2) + "\n")
        tidy(output)
        seal_model(output, "train_lm", trainer.identity)
        push_trained(output, repository, training_arguments.hub_private_repo)
    return callback


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and train."""
    parser = HfArgumentParser([ModelArguments, DataArguments, TrainingArguments])
    run_training("train_lm", lambda: train(*parser.parse_args_into_dataclasses(arguments)))


if __name__ == "__main__":
    main()
