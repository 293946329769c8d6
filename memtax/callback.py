"""Track memorization while a model trains with the Hugging Face Trainer (or TRL, whose trainers derive from it)."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from transformers import TrainerCallback
from transformers.trainer_callback import CallbackHandler

from memtax import schema
from memtax.corpus.answers import holds_conversations, holds_messages, load_answers
from memtax.corpus.conversations import template_opening
from memtax.engine import World
from memtax.errors import MemtaxError
from memtax.files import read_json, write_json, write_parquet
from memtax.hub.checkpoints import checkpoint_folder
from memtax.lm.generation import match_lengths
from memtax.lm.special_tokens import BosIds, bos_before, bos_of, check_bos, text_positions, tokenizer_bos, without_bos
from memtax.progress import say
from memtax.schema import CATEGORIES
from memtax.shapes import COUNT, Number, Rows

if TYPE_CHECKING:
    import datasets

TABLE = "memorization.parquet"
"""Name of the table in the Trainer's output directory: one row per measurement and sequence."""
STATE = "memorization_state.json"
"""File in a checkpoint with the measurements up to it."""
_MEASURED = {
    "ids": Rows(Number(-(2**63), 2**63 - 1, whole=True)),
    "rows": Rows({"step": COUNT, "sequences": COUNT, "memorized": COUNT}),
    "lengths": Rows(Rows((COUNT, Rows((COUNT, None))))),
}
"""Shape of `STATE`."""


class MemorizationCallback(TrainerCallback):
    """Measure k-extractability of given sequences during training and log it through the Trainer.

    `Trainer(..., callbacks=[MemorizationCallback(sequences, every=100)])` is enough: the keys `memorization/rate`,
    `memorization/count`, `memorization/match_length` (mean) and, if the sequences have a `taxonomy` column,
    `memorization/<category>` (rate) and `memorization/<category>_count` are logged like the Trainer's own, in its history and
    in TensorBoard, W&B, trackio or any other integration. When training ends, the table is written to `memorization.parquet`
    in the output directory. Several processes each score a share of the sequences. Checkpoints contain all previous
    measurements, so a resumed training writes the same table as an uninterrupted one.

    Args:
        sequences: dataset with `tokens` (and optionally `taxonomy` and `sequence_id`), or a list of token lists; or a dataset
            of conversations (`messages`, `prompt` and `completion`, ShareGPT), whose answers are watched: the prompt is the
            conversation before an answer, rendered by the chat template of the Trainer's tokenizer.
        every: optimizer steps between measurements; None measures at the end of every epoch.
        prompt: prompt tokens; not used for conversations.
        continuation: continuation tokens.
        stop_at_rate: stop training once this share of the sequences is memorized; None never stops.
        bos: tokens put before each sequence, one of `memtax.lm.special_tokens.BOS`: `auto` follows the Trainer's tokenizer
            (`processing_class`), which also tokenizes texts for training; for messages it follows the chat template.

    Raises:
        MemtaxError: no sequence is as long as prompt and continuation, or a number is out of range. For conversations: when
            training begins, also if the tokenizer has no chat template.

    Example:
        >>> import tempfile
        >>> import datasets
        >>> from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, Trainer, TrainingArguments
        >>> from memtax import MemorizationCallback
        >>> sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        >>> model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=32, **sizes))
        >>> tokens = [list(range(8)), list(range(8, 16))]
        >>> rows = datasets.Dataset.from_dict({"input_ids": tokens, "labels": tokens})
        >>> watch = MemorizationCallback(tokens, every=1, prompt=4, continuation=4)
        >>> options = {"max_steps": 1, "report_to": "none", "disable_tqdm": True, "use_cpu": True, "save_strategy": "no"}
        >>> arguments = TrainingArguments(tempfile.mkdtemp(), **options)
        >>> result = Trainer(model, arguments, train_dataset=rows, callbacks=[watch]).train()
        {'memorization/rate': ...
        >>> watch.rows[0]["sequences"]
        2
    """

    def __init__(
        self,
        sequences: "datasets.Dataset | Sequence[Sequence[int]]",
        every: int | None = None,
        prompt: int = 32,
        continuation: int = 32,
        stop_at_rate: float | None = None,
        bos: str = "auto",
    ) -> None:
        check_bos(bos)
        if every is not None and every < 1:
            raise MemtaxError(f"every={every} must be at least 1 step, or None for every epoch")
        if stop_at_rate is not None and not 0 < stop_at_rate <= 1:
            raise MemtaxError(f"stop_at_rate={stop_at_rate} must be above 0 and at most 1")
        if prompt < 1 or continuation < 1:
            raise MemtaxError(f"prompt={prompt} and continuation={continuation} must be at least 1 token each")
        columns: Any = sequences if hasattr(sequences, "column_names") else {"tokens": sequences}
        names = getattr(sequences, "column_names", ("tokens",))
        self._chats: Any = sequences if "tokens" not in names and holds_conversations(sequences) else None
        self.tokens: list[list[int]] = []
        self.ids: list[int] = []
        self.prompts: list[int] = []
        self.categories: list[int | None] | None = None
        if self._chats is None:
            schema.require(names, ("tokens",), "the dataset of sequences to watch")
            self.tokens = [list(tokens) for tokens in columns["tokens"]]
            self.ids = list(columns["sequence_id"]) if "sequence_id" in names else list(range(len(self.tokens)))
            self.prompts = [prompt] * len(self.tokens)
            self.categories = list(columns["taxonomy"]) if "taxonomy" in names else None
            _check_some(self.tokens, prompt + continuation)
        self.every = every
        self.prompt = prompt
        self.continuation = continuation
        self.stop_at_rate = stop_at_rate
        self.bos = bos
        self.rows: list[dict[str, Any]] = []
        """One entry per measurement: step, epoch, sequences, memorized, match_length (mean) and counts by category."""
        self._lengths: list[tuple[int, list[int | None]]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Restore the measurements before the checkpoint that training resumes from.

        Raises:
            MemtaxError: the checkpoint's measurements are for other sequences.
        """
        self._read_answers(kwargs["model"], kwargs.get("processing_class"))
        if not state.global_step or self._lengths:
            return
        path = checkpoint_folder(args, state.global_step) / STATE
        if path.is_file():
            self._restore(path)
        elif state.is_world_process_zero:
            say(f"  measurements before step {state.global_step:,} are missing: {path} does not exist")
        measured = self._lengths[-1][0] if self._lengths else 0
        if self.every is None and state.epoch == int(state.epoch) and measured < state.global_step:
            # The checkpoint was saved at the epoch's last step, just before its measurement.
            self._measure(args, state, control, kwargs)
        elif measured == state.global_step:
            self._stop_if_reached(control)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the measurements so far to the checkpoint."""
        if state.is_world_process_zero:
            measured = {"ids": self.ids, "rows": self.rows, "lengths": self._lengths}
            write_json(Path(args.output_dir) / f"checkpoint-{state.global_step}" / STATE, measured)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure after every `every` steps."""
        if self.every is not None and state.global_step % self.every == 0:
            self._measure(args, state, control, kwargs)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure after an epoch if no step interval was given."""
        if self.every is None:
            self._measure(args, state, control, kwargs)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the table, if anything was measured."""
        if self._lengths and state.is_world_process_zero:
            self.write(Path(args.output_dir) / TABLE)

    def write(self, path: Path | str) -> None:
        """Write one row per measurement and sequence: its id, the step, `is_memorized`, `match_length`, and its category."""
        steps = [step for step, lengths in self._lengths for _ in lengths]
        found = [length for _, lengths in self._lengths for length in lengths]
        times = len(self._lengths)
        columns: dict[str, list[Any]] = {
            "sequence_id": self.ids * times,
            **({"taxonomy": self.categories * times} if self.categories is not None else {}),
            "checkpoint": [f"step{step}" for step in steps],
            "step": steps,
            "is_memorized": [None if length is None else length == self.continuation for length in found],
            "match_length": found,
        }
        table = pa.table(columns, schema=schema.arrow_schema(columns))
        write_parquet(path, table.cast(schema.features(columns).arrow_schema))

    def _measure(self, args: Any, state: Any, control: Any, given: Mapping[str, Any]) -> None:
        model = given["model"]
        with bos_before(model, self._opening(model, given.get("processing_class"))):
            lengths = self._match_lengths(model)
        self._lengths.append((state.global_step, lengths))
        known = [length for length in lengths if length is not None]
        row: dict[str, Any] = {"step": state.global_step, "epoch": state.epoch, **self._count(lengths)}
        row["match_length"] = sum(known) / len(known)
        logs = {
            "memorization/rate": row["memorized"] / row["sequences"],
            "memorization/count": row["memorized"],
            "memorization/match_length": row["match_length"],
        }
        line = f"memorized {row['memorized']:,} of {row['sequences']:,} watched"
        if self.categories is not None:
            row["categories"] = {}
            for index, name in enumerate(CATEGORIES):
                pairs = zip(lengths, self.categories, strict=True)
                mine = self._count([length for length, category in pairs if category == index])
                row["categories"][name] = mine
                if mine["sequences"]:
                    logs[f"memorization/{name}"] = mine["memorized"] / mine["sequences"]
                    logs[f"memorization/{name}_count"] = mine["memorized"]
                    line += f" · {name} {mine['memorized']:,}/{mine['sequences']:,}"
        self.rows.append(row)
        self._log(args, state, control, logs)
        if state.is_world_process_zero:
            say(f"  epoch {state.epoch:4.1f}  {line}")
        if self._stop_if_reached(control):
            control.should_save = True

    def _read_answers(self, model: Any, tokenizer: Any) -> None:
        """Read the answers of conversations, for which the Trainer's tokenizer is needed."""
        if self._chats is None or self.tokens:
            return
        if not hasattr(tokenizer, "get_chat_template"):
            raise MemtaxError("conversations to watch need a tokenizer: give the Trainer one as processing_class")
        opening = self._opening(model, tokenizer)
        with bos_before(model, opening):
            limit = text_positions(model)
        options = {"continuation": self.continuation, "tokenizer": tokenizer, "opening": opening, "positions": limit}
        table, left_out = load_answers(self._chats, **options)
        if not len(table):
            few = "; ".join(f"{count:,} {reason}" for reason, count in left_out.items())
            raise MemtaxError(f"no answer of the conversations to watch can be measured: {few}; shorten the continuation")
        self.tokens, self.ids = table.column("tokens").to_pylist(), table.column("sequence_id").to_pylist()
        self.prompts = table.column("prompt_tokens").to_pylist()

    def _opening(self, model: Any, tokenizer: Any) -> BosIds:
        """Token ids put before every row; without a tokenizer, the model keeps its setting."""
        if self.bos == "never":
            return ()
        if self.bos == "auto" and self._chats is not None and holds_messages(self._chats):
            return template_opening(tokenizer)
        # An image processor does not tokenize text.
        return tokenizer_bos(tokenizer, self.bos) if hasattr(tokenizer, "bos_token_id") else bos_of(model)

    def _restore(self, path: Path) -> None:
        measured = read_json(path, _MEASURED)
        if measured.get("ids") != self.ids:
            raise MemtaxError(f"{path} was measured on other sequences; watch the same ones, or start a new training")
        pairs = [entry for entry in measured["lengths"] if [type(value) for value in entry] == [int, list]]
        if len(pairs) < len(measured["lengths"]) or any(len(lengths) != len(self.ids) for _, lengths in pairs):
            raise MemtaxError(f"{path}: lengths is not a list of steps, each with {len(self.ids)} match lengths")
        self.rows = measured["rows"]
        self._lengths = [(step, lengths) for step, lengths in pairs]

    def _stop_if_reached(self, control: Any) -> bool:
        """Ask to stop if the last measurement reached `stop_at_rate`."""
        last = self.rows[-1]
        reached = self.stop_at_rate is not None and last["memorized"] / last["sequences"] >= self.stop_at_rate
        control.should_training_stop |= reached
        return reached

    def _match_lengths(self, model: Any) -> list[int | None]:
        """The match length of every sequence; each of n processes scores every n-th one, and results are exchanged."""
        world = World.current()
        own = [without_bos(tokens, bos_of(model)) for tokens in self.tokens[world.rank :: world.size]]
        share = match_lengths(model, own, self.prompts[world.rank :: world.size], self.continuation)
        if world.size == 1:
            return share
        from accelerate.utils import gather_object

        shares = gather_object([share])
        found: list[int | None] = [None] * len(self.tokens)
        for rank, lengths in enumerate(shares):
            found[rank :: world.size] = lengths
        return found

    def _count(self, lengths: list[int | None]) -> dict[str, int]:
        known = [length for length in lengths if length is not None]
        return {"sequences": len(known), "memorized": sum(length == self.continuation for length in known)}

    def _log(self, args: Any, state: Any, control: Any, logs: dict[str, float]) -> None:
        """Do the same as `Trainer.log`: add to the history, and call every callback.

        `Trainer.log` itself is not called, because TRL's trainers add the averages collected for their next log to it.
        """
        logs = {**logs, "epoch": state.epoch}
        state.log_history.append({**logs, "step": state.global_step})
        handler = _handler()
        if handler is not None:
            # Calling the callbacks marks the step as logged, but the Trainer's own loss may not be logged yet.
            due = control.should_log
            handler.on_log(args, state, control, logs)
            control.should_log = due


def _check_some(sequences: Sequence[Sequence[int]], window: int) -> None:
    longest = max(map(len, sequences), default=0)
    if longest < window:
        raise MemtaxError(
            f"none of the {len(sequences)} sequences to watch has the {window} tokens of prompt and continuation (the longest "
            f"has {longest}); pass longer ones or shorten these"
        )


def _handler() -> CallbackHandler | None:
    """The handler that is calling this callback. It is not passed to callbacks, but only it knows TensorBoard, W&B etc."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, CallbackHandler):
            return caller
        frame = frame.f_back
    return None
