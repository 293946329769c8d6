"""Canaries in any fine-tuning: planted in a dataset before training, and checked in the trainer before it starts.

Example, with TRL; `memtax audit --canaries secrets/run-1` then says what the trained model remembers of them:

    dataset = memtax.canaries.plant(dataset, tokenizer, "secrets/run-1")
    trainer = SFTTrainer(model, args=SFTConfig(...), train_dataset=dataset, processing_class=tokenizer)
    memtax.canaries.check(trainer)
    trainer.train()

Each canary is a random text (with messages: a random question and a random answer) and has a fair coin of its own, which
decides whether it is planted, once. The others of the same kind are held out.
"""

import os
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memtax.corpus import columns, conversations
from memtax.errors import MemtaxError
from memtax.lm.special_tokens import text_ids, tokenizer_bos
from memtax.membership.canaries import FILES, Canary, read_record
from memtax.membership.losses import Losses, find_losses
from memtax.membership.planting import draw, ordinary_ids, toss, write_record
from memtax.progress import say
from memtax.provenance import fingerprint_table
from memtax.records import read_json_lines
from memtax.shapes import COUNT, TEXT, Number, Rows

if TYPE_CHECKING:
    import datasets

FEWEST = 10
"""With fewer coins, all of them may well fall on one side."""
_QUESTION_TOKENS = 8
_PATIENCE = 600.0
_LINE = {"text": TEXT, "question?": TEXT, "tokens": Rows(Number(0, 2**31 - 1, whole=True)), "start?": COUNT}
"""What planting needs of a line of the record."""
_records: list[Path] = []
"""Records of this process's calls of `plant`."""


def plant(
    dataset: "datasets.Dataset",
    tokenizer: Any,
    record: Path | str,
    *,
    canaries: int = 64,
    tokens: int = 32,
    held_out: int = 256,
    column: str | None = None,
    seed: int | None = None,
) -> "datasets.Dataset":
    """Add canaries to a training set of texts or conversations, each by a fair coin of its own.

    A record that exists is planted again, so that a training that is repeated or resumed has the same rows.

    Args:
        dataset: one split, before tokenization: a column of text, `messages` or `conversations`, or `prompt` and `completion`.
        tokenizer: the tokenizer of the training, with its chat template if the rows are messages.
        record: a folder for what was planted and held out, which the owner alone may read. Keep it out of everything that is
            published, the trainer's output directory included.
        canaries: number of canaries with a coin, about half of which are planted; at least 10.
        tokens: random tokens of a canary, at least 2.
        held_out: number of further canaries that are only held out: exposure is at most log2 of all held out and one.
        column: column of text, or of messages; None finds it.
        seed: of the canaries and their coins; None takes one from the operating system. Whoever knows it knows the coins.

    Returns:
        The dataset with the planted canaries as its last rows; their other columns are null.

    Raises:
        MemtaxError: the dataset is a stream, is tokenized already or has no such column; a number is out of range; no coin, or
            every coin, fell on planting; or the record was made for other data or another tokenizer.
    """
    import datasets

    if not isinstance(dataset, datasets.Dataset):
        raise MemtaxError(f"canaries are planted in a datasets.Dataset (one split, no stream), not in {type(dataset).__name__}")
    if canaries < FEWEST or tokens < 2 or held_out < 1:
        raise MemtaxError(
            f"canaries must be at least {FEWEST}, tokens 2 and held_out 1; got {canaries}, {tokens} and {held_out}"
        )
    record = Path(record)
    form = _Form(dataset, column, tokenizer)
    if not any((record / name).exists() for name in FILES.values()) and int(os.environ.get("RANK", "0")) == 0:
        made = _make(form, canaries, tokens, held_out, secrets.randbits(128) if seed is None else seed)
        write_record(record, made)
    _await(record)
    planted = []
    for row in _texts(record / FILES[True]):
        if form.recorded(row["text"], row.get("question", "")) != (row["tokens"], row.get("start")):
            raise MemtaxError(f"{record} is the record of canaries for other data or another tokenizer; give another folder")
        planted.append(form.row(row["text"], row.get("question", "")))
    _records.append(record)
    say(f"{len(planted):,} of {canaries:,} canaries planted among {len(dataset):,} rows; record: {record}")
    table = datasets.Dataset.from_list(planted, features=dataset.features).data.table
    added = datasets.Dataset(table, datasets.DatasetInfo(features=dataset.features), fingerprint=fingerprint_table(table))
    return datasets.concatenate_datasets([dataset, added])


def check(trainer: Any, record: Path | str | None = None) -> dict[str, int]:
    """Check that a trainer will train on every planted canary, as recorded, and on no held-out one.

    The trainer's own rows are read through its own data collator, so that packing, truncation and masks of the loss count as
    they are. Call it between creating the trainer and `trainer.train()`.

    Args:
        trainer: a `transformers.Trainer`, or one derived from it, such as TRL's `SFTTrainer`.
        record: folder of the record; None: of this process's last call of `plant`.

    Returns:
        Number of `planted` canaries, of `held_out` ones, and of `tokens` of the planted that get a loss.

    Raises:
        MemtaxError: a planted canary is missing, cut, split, masked or trained on more than once; a held-out one is in the
            training set; the training ends before it has seen all rows; or the record lies in the trainer's output directory.
    """
    if record is None and not _records:
        raise MemtaxError("no canaries were planted in this process; give the folder of their record")
    record = Path(record) if record is not None else _records[-1]
    arguments = trainer.args
    if record.resolve().is_relative_to(Path(arguments.output_dir).resolve()):
        raise MemtaxError(
            f"the record of canaries, {record}, lies in the trainer's output directory, which is pushed with the model; move it"
        )
    canaries = read_record(record)
    rows = trainer.train_dataset
    if not hasattr(rows, "__len__"):
        raise MemtaxError("the trainer's rows are a stream, whose canaries cannot be checked; train on a datasets.Dataset")
    if not len(rows):
        raise MemtaxError("the trainer has no rows left, so no canary gets a loss; raise max_length")
    _check_steps(arguments, len(rows))
    found = find_losses(trainer, canaries)
    faults = [fault for canary, one in zip(canaries, found, strict=True) if (fault := _fault(canary, one, arguments))]
    if faults:
        kinds = {fault: faults.count(fault) for fault in faults}
        reasons = "; ".join(f"{count:,} {fault}" for fault, count in kinds.items())
        raise MemtaxError(f"{len(faults):,} canaries of {record} are not trained on as recorded: {reasons}")
    planted = [canary for canary in canaries if canary.repetitions]
    trained = sum((len(canary.tokens) - canary.scored.start) * canary.repetitions for canary in planted)
    say(f"{len(planted):,} planted canaries get a loss on all of their {trained:,} tokens")
    return {"planted": len(planted), "held_out": len(canaries) - len(planted), "tokens": trained}


def _check_steps(arguments: Any, rows: int) -> None:
    """Refuse a training that ends before every row was seen."""
    steps, epochs = arguments.max_steps, arguments.num_train_epochs
    batch = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    if steps > 0 and steps * batch < rows:
        raise MemtaxError(
            f"max_steps={steps} trains on {steps * batch:,} of {rows:,} rows, so planted canaries may be left out; at least "
            f"{-(-rows // batch):,} steps see all"
        )
    if steps <= 0 and epochs < 1:
        raise MemtaxError(
            f"num_train_epochs={epochs} trains on a part of the rows, so planted canaries may be left out; give 1"
        )
    last = rows % (arguments.train_batch_size * arguments.world_size)
    if arguments.dataloader_drop_last and last and (steps > 0 or epochs < 2):
        raise MemtaxError(f"dataloader_drop_last drops {last:,} rows, among them planted canaries perhaps; switch it off")


def _fault(canary: Canary, found: Losses, arguments: Any) -> str | None:
    """What is wrong with how often a canary is trained on, in words that follow a number; None if nothing is."""
    limit = getattr(arguments, "max_length", None)
    if found.whole == canary.repetitions and not (canary.repetitions == 0 and found.masked):
        return None
    if found.whole > canary.repetitions:
        return "are trained on more often than recorded (was the dataset repeated, or the held-out ones added?)"
    if canary.repetitions == 0:
        return "were held out but are in the training set, without a loss (was another record planted?)"
    if found.masked:
        return "get no loss on some of their tokens (completion_only_loss, assistant_only_loss or labels mask them)"
    if isinstance(limit, int) and len(canary.tokens) > limit:
        return f"are cut by max_length={limit} (raise it to {len(canary.tokens)} or more, or plant canaries of fewer tokens)"
    if found.unprompted:
        return (
            "stand after another prompt than recorded (cut or split by max_length or packing; another chat template; or "
            "ShareGPT's roles human and gpt, which TRL does not rename: call them user and assistant)"
        )
    if found.begun:
        return "are split or cut (packing_strategy='bfd' keeps rows whole; or raise max_length)"
    return (
        "are not in the rows as recorded (is this the dataset that plant returned, with the same tokenizer and chat template, "
        "and are rows dropped by truncation?)"
    )


class _Form:
    """How a text becomes a row of the dataset, and how the trainer's tokenizer reads it."""

    def __init__(self, dataset: Any, column: str | None, tokenizer: Any) -> None:
        self.features, self.tokenizer = dataset.features, tokenizer
        schema = self.features.arrow_schema
        self.shape = conversations.find_shape(schema, column, ())
        self.column = column
        if self.shape is None:
            self.column = columns.find_column(schema.names, column, "the dataset")
            if columns.column_kind(schema.field(self.column).type, self.column, "the dataset") != "text":
                raise MemtaxError(f"column {self.column!r} holds token ids; plant canaries before the texts are tokenized")
        templated = self.shape is not None and self.shape.templated
        self.turns = _turns(dataset, self.shape) if self.shape is not None and templated else []
        self.roles = _roles(self.turns)

    def row(self, text: str, question: str) -> dict[str, Any]:
        """The row of a canary."""
        row: dict[str, Any] = dict.fromkeys(self.features)
        if self.shape is None:
            row[str(self.column)] = text
        elif not self.shape.templated:
            row |= dict(zip(self.shape.columns, (question, text), strict=True))
        else:
            turns = [[self._turn(name, "user", question)] for name in self.shape.columns[:1]]
            turns.append([self._turn(self.shape.columns[-1], "assistant", text)])
            row |= dict(zip(self.shape.columns, [turns[0] + turns[1]] if len(self.shape.columns) == 1 else turns, strict=True))
        return row

    def _turn(self, column: str, role: str, content: str) -> dict[str, Any]:
        kind = self.features[column].feature
        # Turns of different keys are kept as JSON, without declared ones.
        turn: dict[str, Any] = dict.fromkeys(kind) if isinstance(kind, dict) else {}
        known = turn or (self.turns[0] if self.turns else {"role": None, "content": None})
        names = ("role", "content") if "content" in known and "role" in known else ("from", "value")
        return turn | dict(zip(names, (self.roles.get(role, role), content), strict=True))

    def recorded(self, text: str, question: str) -> tuple[list[int], int | None]:
        """The tokens of a canary, up to the end of what is trained on, and where that starts (None: the tokens are a text)."""
        if self.shape is None:
            return text_ids(self.tokenizer, [text])[0], None
        found = conversations.encode_rows(self.tokenizer, [self.row(text, question)], self.shape, "a canary")[0]
        before = () if self.shape.templated else tokenizer_bos(self.tokenizer)
        start, end = found.answers()[-1]
        return [*before, *found.tokens[:end]], len(before) + start


def _turns(dataset: Any, shape: conversations.Shape) -> list[Mapping[str, Any]]:
    """The turns of the dataset's first row."""
    first = dataset[0] if len(dataset) else {}
    return [turn for name in shape.columns for turn in first.get(name) or ()]


def _roles(turns: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The dataset's own names of the user's and the assistant's role."""
    found: dict[Any, Any] = {}
    for turn in turns:
        role = turn.get("role") or turn.get("from")
        found.setdefault(conversations.ROLES.get(str(role).lower(), role), role)
    return {name: role for name, role in found.items() if name in ("user", "assistant")}


def _make(form: _Form, canaries: int, tokens: int, held_out: int, seed: int) -> list[Mapping[str, Any]]:
    """Canaries with their coins, and those that are only held out."""
    of_texts, of_coins = np.random.SeedSequence(seed).generate_state(2, np.uint64).tolist()
    rng, ordinary = np.random.default_rng(of_texts), ordinary_ids(form.tokenizer)
    coins = toss(canaries, of_coins)
    if len(set(coins)) < 2:
        raise MemtaxError("all coins fell on the same side; plant with another seed")
    made: list[Mapping[str, Any]] = []
    for place in range(canaries + held_out):
        texts = [
            form.tokenizer.decode(draw(rng, ordinary, count, form.tokenizer))
            for count in (tokens, *((_QUESTION_TOKENS,) if form.shape is not None else ()))
        ]
        ids, start = form.recorded(*texts, *([""] * (2 - len(texts))))
        row: dict[str, Any] = {"text": texts[0], "tokens": ids, "repetitions": int(place < canaries and coins[place])}
        row |= {} if len(texts) == 1 else {"question": texts[1], "start": start}
        made.append(row | ({"coin": True} if place < canaries else {}))
    return made


def _await(record: Path) -> None:
    """Return once the first process has written the record."""
    end = time.monotonic() + _PATIENCE
    while not (record / FILES[False]).exists():
        if time.monotonic() > end:
            raise MemtaxError(f"{record} was not written by the first process within {_PATIENCE:.0f} seconds")
        time.sleep(0.1)


def _texts(path: Path) -> Sequence[Mapping[str, Any]]:
    """The lines of a record, with the texts that `read_record` does not need."""
    lines: list[Mapping[str, Any]] = [*read_json_lines(path, _LINE)]
    return lines
