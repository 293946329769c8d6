"""`memtax.canaries.check` against our own count in TRL's SFTTrainer: shapes of data, packing, masks of the loss, lengths."""

import itertools
import json
from typing import NamedTuple

import datasets
import pytest

import memtax
from helpers import chats
from helpers import special_tokens as small
from memtax.errors import MemtaxError

pytestmark = pytest.mark.long

WORDS = 8
"""Of a question or an answer."""
ROWS = small.rows(24, WORDS) + small.rows(8, 3 * WORDS, seed=1)
"""The other rows. The longer ones may be cut without any canary being cut."""
PACKINGS = (
    {},
    {"truncation_mode": "keep_end"},
    *({"packing": True, "packing_strategy": name} for name in ("bfd", "bfd_split", "wrapped")),
)
ROLES = ({}, {"assistant_only_loss": True})
COMPLETIONS = ({}, {"completion_only_loss": False})


def turns(question, answer, names=("role", "content"), roles=("user", "assistant")):
    return [dict(zip(names, turn, strict=True)) for turn in zip(roles, (question, answer), strict=True)]


def told(question, answer, roles=("user", "assistant")):
    return {"conversations": turns(question, answer, ("from", "value"), roles)}


SHAPES = {
    "text": (lambda question, answer: {"text": answer}, ({},)),
    "text after other words": (lambda question, answer: {"text": answer}, ({},)),
    "strings": (lambda question, answer: {"prompt": question, "completion": answer}, COMPLETIONS),
    "prompt and completion": (
        lambda question, answer: dict(zip(("prompt", "completion"), ([turn] for turn in turns(question, answer)), strict=True)),
        (*COMPLETIONS, ROLES[1]),
    ),
    "messages": (lambda question, answer: {"messages": turns(question, answer)}, ROLES),
    "conversations": (told, ROLES[:1]),
    "ShareGPT": (lambda question, answer: told(question, answer, ("human", "gpt")), ROLES[:1]),
}
"""How a row is made, and the masks of the loss that TRL has for it: with `conversations`, it has none of the roles."""


class Secret(NamedTuple):
    """A canary, composed by hand: `tokens` stand together in one row, those from `start` on with a loss."""

    tokens: list[int]
    start: int


def secret(shape, question, answer):
    before, after = ([small.WORDS.index(word) for word in text.split()] for text in (question, answer))
    if shape.startswith("text"):
        return Secret(after, 1)
    if shape == "strings":
        # Nothing separates the strings, so that the words at their border make one that the tokenizer does not know.
        return Secret([small.BOS, *before[:-1], chats.UNKNOWN, *after[1:]], len(before))
    tokens, scored = chats.compose(turns(question, answer))
    return Secret(tokens, scored.index(True))


def read_targets(trainer):
    """Rows of tokens, and of the tokens that get a loss (-100: none), as a training passes them to the model."""
    found = []
    for batch in trainer.get_train_dataloader():
        for tokens, labels in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
            # Nothing predicts the first token of a row.
            found.append((tokens, [-100, *labels[1:]]))
    return found


def times_trained(canary, rows):
    """How often a canary stands in the rows with a loss on each of its secret tokens."""
    size, start = len(canary.tokens), canary.start
    return sum(
        tokens[at : at + size] == canary.tokens and targets[at + start : at + size] == canary.tokens[start:]
        for tokens, targets in rows
        for at in range(len(tokens) - size + 1)
    )


def cases():
    for shape, (_, masks) in SHAPES.items():
        yield from (pytest.param(shape, mask, id="-".join([shape, *map(str, mask)])) for mask in masks)


@pytest.mark.parametrize(("shape", "mask"), cases())
def test_exactly_the_runs_in_which_a_canary_is_not_trained_on_are_refused(shape, mask, tmp_path):
    trl = pytest.importorskip("trl")
    make, tokenizer = SHAPES[shape][0], chats.tokenizer(chats.MARKED if "assistant_only_loss" in mask else chats.PLAIN)
    given = datasets.Dataset.from_list([make(small.words(row), small.words(row[:WORDS])) for row in ROWS])
    planted = memtax.canaries.plant(given, tokenizer, tmp_path / "record", canaries=16, tokens=WORDS, held_out=4, seed=3)
    lines = [json.loads(line) for line in (tmp_path / "record/canaries.member.jsonl").read_text().splitlines()]
    canaries = [secret(shape, line.get("question", ""), line["text"]) for line in lines]
    assert len(canaries) == len(planted) - len(given) > 0
    if shape == "text after other words":
        # A different number of words, so that a length cuts some of the canaries.
        planted = planted.map(lambda row, place: {"text": "a " * (place % 4) + row["text"]}, with_indices=True)
    # The canaries of texts have no BOS.
    longest = len(canaries[0].tokens) + shape.startswith("text")
    outcomes = []
    for packing, length in itertools.product(PACKINGS, (4096, 3 * longest + 5, longest, longest - 1, longest // 2)):
        options = {**mask, **packing, "max_length": length, "use_cpu": True, "bf16": False, "report_to": "none"}
        trainer = trl.SFTTrainer(
            small.model(),
            args=trl.SFTConfig(str(tmp_path / "out"), **options),
            train_dataset=planted,
            processing_class=tokenizer,
        )
        rows = read_targets(trainer) if len(trainer.train_dataset) else []
        lost = sum(times_trained(canary, rows) != 1 for canary in canaries)
        try:
            passed = memtax.canaries.check(trainer)["planted"] == len(canaries)
        except MemtaxError:
            passed = False
        outcomes.append((packing, length, lost, passed))
    assert [outcome for outcome in outcomes if outcome[-1] is bool(outcome[-2])] == []
    # There are runs that keep all canaries, and runs that lose some of them only.
    assert any(passed for *_, passed in outcomes)
    assert any(0 < lost < len(canaries) for _, _, lost, _ in outcomes)


def test_roles_that_trl_renders_under_names_of_their_own_are_refused(tmp_path):
    trl = pytest.importorskip("trl")
    tokenizer = chats.tokenizer(chats.PLAIN)
    tokenizer.add_tokens(["user", "assistant", "human", "gpt"])
    options = {"use_cpu": True, "bf16": False, "report_to": "none"}
    refused = []
    for number, roles in enumerate((("user", "assistant"), ("human", "gpt"))):
        given = datasets.Dataset.from_list([told(small.words(row), small.words(row), roles) for row in ROWS])
        planted = memtax.canaries.plant(given, tokenizer, tmp_path / f"record-{number}", canaries=16, tokens=8, seed=3)
        args = trl.SFTConfig(str(tmp_path / "out"), **options)
        trainer = trl.SFTTrainer(small.model(), args=args, train_dataset=planted, processing_class=tokenizer)
        try:
            memtax.canaries.check(trainer)
        except MemtaxError as error:
            refused.append((number, "human and gpt" in str(error)))
    assert refused == [(1, True)]
