"""Watch memorization while a model trains with the Hugging Face Trainer (or TRL, whose trainers derive from it)."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback
from transformers.trainer_callback import CallbackHandler

from memtax import schema
from memtax.engine import World
from memtax.errors import MemtaxError
from memtax.files import write_parquet
from memtax.lm.generation import match_lengths
from memtax.lm.special_tokens import BosIds, bos_before, bos_of, check_bos, tokenizer_bos, without_bos
from memtax.progress import say
from memtax.schema import CATEGORIES

if TYPE_CHECKING:
    import datasets

TABLE = "memorization.parquet"
"""The table's name in the Trainer's output directory: one row a measurement and sequence."""


class MemorizationCallback(TrainerCallback):
    """Measure k-extractability of given sequences during training and log it through the Trainer.

    `Trainer(..., callbacks=[MemorizationCallback(sequences, every=100)])` is all: the keys `memorization/rate`,
    `memorization/count`, `memorization/match_length` (mean) and, where the sequences carry a `taxonomy` column,
    `memorization/<category>` (rate) and `memorization/<category>_count` are logged like the Trainer's own, so they reach its
    history and TensorBoard, W&B, trackio or whatever else it reports to. When training ends the table is written to
    `memorization.parquet` in the output directory. With several processes each scores a share of the sequences.

    Args:
        sequences: dataset with `tokens` (and optionally `taxonomy` and `sequence_id`), or a list of token lists.
        every: optimizer steps between measurements; None measures at the end of every epoch.
        prompt: prompt tokens.
        continuation: continuation tokens.
        stop_at_rate: stop training once this share of the sequences is memorized; None never stops.
        bos: what the model reads before each sequence, one of `memtax.lm.special_tokens.BOS`: `auto` is what the Trainer's
            tokenizer (`processing_class`) adds by itself, as it does where texts are tokenized for training.

    Raises:
        MemtaxError: no sequence is as long as prompt and continuation, or a number is out of range.
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
        schema.require(names, ("tokens",), "the dataset of sequences to watch")
        self.tokens = [list(tokens) for tokens in columns["tokens"]]
        self.ids = list(columns["sequence_id"]) if "sequence_id" in names else list(range(len(self.tokens)))
        self.categories = list(columns["taxonomy"]) if "taxonomy" in names else None
        longest = max(map(len, self.tokens), default=0)
        if longest < prompt + continuation:
            raise MemtaxError(
                f"none of the {len(self.tokens)} sequences to watch has the {prompt + continuation} tokens of prompt and "
                f"continuation (the longest has {longest}); pass longer ones or shorten these"
            )
        self.every = every
        self.prompt = prompt
        self.continuation = continuation
        self.stop_at_rate = stop_at_rate
        self.bos = bos
        self.rows: list[dict[str, Any]] = []
        """One entry a measurement: step, epoch, sequences, memorized, match_length (mean) and counts by category."""
        self._lengths: list[tuple[int, list[int | None]]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure after every `every` steps."""
        if self.every is not None and state.global_step % self.every == 0:
            self._measure(args, state, control, kwargs)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure after an epoch when no step interval was given."""
        if self.every is None:
            self._measure(args, state, control, kwargs)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the table, if anything was measured."""
        if self._lengths and state.is_world_process_zero:
            self.write(Path(args.output_dir) / TABLE)

    def write(self, path: Path | str) -> None:
        """Write one row a measurement and sequence: its id, the step, `is_memorized`, `match_length`, and its category."""
        import pyarrow as pa

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
        if self.stop_at_rate is not None and logs["memorization/rate"] >= self.stop_at_rate:
            control.should_training_stop = True
            control.should_save = True

    def _opening(self, model: Any, tokenizer: Any) -> BosIds:
        """The ids before every row; the model keeps those that it was loaded with where no tokenizer says otherwise."""
        if self.bos == "never":
            return ()
        # A processor of images tells nothing about text.
        return tokenizer_bos(tokenizer, self.bos) if hasattr(tokenizer, "bos_token_id") else bos_of(model)

    def _match_lengths(self, model: Any) -> list[int | None]:
        """The match length of every sequence; with several processes each does every so-manieth and they exchange."""
        world = World.current()
        own = [without_bos(tokens, bos_of(model)) for tokens in self.tokens[world.rank :: world.size]]
        share = match_lengths(model, own, self.prompt, self.continuation)
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
        """Do what `Trainer.log` does: add to the history, and tell every callback.

        `Trainer.log` itself is left alone: TRL's trainers attach the averages that they collect for their next log to it.
        """
        logs = {**logs, "epoch": state.epoch}
        state.log_history.append({**logs, "step": state.global_step})
        handler = _handler()
        if handler is not None:
            # Telling the callbacks marks the step as logged; the Trainer's own loss may still be due.
            due = control.should_log
            handler.on_log(args, state, control, logs)
            control.should_log = due


def _handler() -> CallbackHandler | None:
    """The handler that is calling us. Callbacks are not given it, and it alone knows TensorBoard, W&B and the rest."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, CallbackHandler):
            return caller
        frame = frame.f_back
    return None
