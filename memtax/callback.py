"""Watch memorization while a model trains with the Hugging Face Trainer (or TRL, whose trainers derive from it)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from memtax.errors import MemtaxError
from memtax.lm import extraction
from memtax.lm.scores import score
from memtax.progress import say
from memtax.schema import CATEGORIES

if TYPE_CHECKING:
    import datasets


class MemorizationCallback(TrainerCallback):
    """Measure k-extractability of given sequences during training and log it through the Trainer.

    Logged keys: `memorization/rate`, `memorization/match_length` (mean) and, where the sequences carry a `taxonomy`
    column, `memorization/<category>` (rates). Set `callback.trainer = trainer` so that they reach the Trainer's own
    logs (TensorBoard, W&B, trackio); without it they are kept in `callback.rows` and printed alone.

    Args:
        sequences: dataset with `tokens` (and optionally `taxonomy`), or a list of token lists.
        every: optimizer steps between measurements; None measures at the end of every epoch.
        prompt: prompt tokens.
        continuation: continuation tokens.
        stop_at_rate: stop training once this share of the sequences is memorized; None never stops.

    Raises:
        MemtaxError: there are no sequences, or a number is out of range.
    """

    def __init__(
        self,
        sequences: "datasets.Dataset | Sequence[Sequence[int]]",
        every: int | None = None,
        prompt: int = 32,
        continuation: int = 32,
        stop_at_rate: float | None = None,
    ) -> None:
        if every is not None and every < 1:
            raise MemtaxError(f"every={every} must be at least 1 step, or None for every epoch")
        if stop_at_rate is not None and not 0 < stop_at_rate <= 1:
            raise MemtaxError(f"stop_at_rate={stop_at_rate} must be above 0 and at most 1")
        names = getattr(sequences, "column_names", None)
        self.tokens = list(sequences["tokens"] if names else sequences)  # type: ignore[call-overload]
        self.categories = list(sequences["taxonomy"]) if names and "taxonomy" in names else None  # type: ignore[call-overload]
        if not self.tokens:
            raise MemtaxError("there are no sequences to watch; pass at least one")
        self.every = every
        self.prompt = prompt
        self.continuation = continuation
        self.stop_at_rate = stop_at_rate
        self.trainer: Any = None
        self.rows: list[dict[str, Any]] = []
        """One entry a measurement: step, epoch, sequences, memorized, match_length and counts by category."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure after every `every` steps."""
        if self.every is not None and state.global_step % self.every == 0:
            self._measure(state, control, kwargs["model"])

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure after an epoch when no step interval was given."""
        if self.every is None:
            self._measure(state, control, kwargs["model"])

    def _measure(self, state: Any, control: Any, model: Any) -> None:
        scores = score(model, self.tokens)
        columns = extraction.columns(scores, self.prompt, self.continuation)
        memorized = [bool(value) for value in columns["is_memorized"]]
        lengths = [value or 0 for value in columns["match_length"]]
        row: dict[str, Any] = {
            "step": state.global_step,
            "epoch": state.epoch,
            "sequences": len(memorized),
            "memorized": sum(memorized),
            "match_length": sum(lengths) / len(lengths),
        }
        logs = {
            "memorization/rate": row["memorized"] / row["sequences"],
            "memorization/match_length": row["match_length"],
        }
        line = f"memorized {row['memorized']:,} of {row['sequences']:,} watched"
        if self.categories is not None:
            row["categories"] = {}
            for index, name in enumerate(CATEGORIES):
                mine = [hit for hit, category in zip(memorized, self.categories, strict=True) if category == index]
                row["categories"][name] = {"sequences": len(mine), "memorized": sum(mine)}
                if mine:
                    logs[f"memorization/{name}"] = sum(mine) / len(mine)
                    line += f" · {name} {sum(mine):,}/{len(mine):,}"
        self.rows.append(row)
        if self.trainer is not None:
            self.trainer.log(logs)
        if state.is_world_process_zero:
            say(f"  epoch {state.epoch:4.1f}  {line}")
        if self.stop_at_rate is not None and logs["memorization/rate"] >= self.stop_at_rate:
            control.should_training_stop = True
            control.should_save = True
