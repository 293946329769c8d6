"""What an audit says of unlearning: its verdict, and its section of the page."""

from collections.abc import Mapping
from typing import Any

from memtax.pipeline.audit_verdicts import NOT_SHOWN, SHOWN, UNMEASURED, WITHHELD, rate
from memtax.pipeline.unlearning import BATCH, FORGET, GIVEN, HELD_OUT, RELEARNED, TRAINED
from memtax.progress import agree, numbered
from memtax.report import words
from memtax.report.parts import Section, Table

ABOUT = "unlearning"


def verdict(found: Mapping[str, Any]) -> dict[str, str]:
    """The verdict: what came back of the half that was not trained on, against what of texts never seen.

    Args:
        found: figures of `memtax.pipeline.unlearning`.
    """
    missing = [f"{state} ({reason})" for state, reason in found["unmeasured"].items()]
    back = found["came_back"]
    if not back:
        return {"about": ABOUT, "verdict": UNMEASURED, "sentence": f"Not measured: {', '.join(missing)}."}
    told = "; ".join(_came_back(state, sets, found["steps"]) for state, sets in back.items())
    unseen = "" if all(HELD_OUT in sets for sets in back.values()) else "texts never seen, "
    unlooked = [*missing, f"{unseen}more steps and other learning rates than {found['rate']:g}, and other prompts"]
    sentence = f"{told[0].upper()}{told[1:]}; not looked at: {', '.join(unlooked)}."
    return {"about": ABOUT, "verdict": _answer(back), "sentence": sentence}


def _answer(back: Mapping[str, Any]) -> str:
    answers = [_of_state(sets) for sets in back.values()]
    return next(answer for answer in (SHOWN, WITHHELD, NOT_SHOWN, UNMEASURED) if answer in answers)


def _of_state(sets: Mapping[str, Any]) -> str:
    own, unseen = sets[FORGET], sets.get(HELD_OUT)
    if not own["sequences"]:
        return UNMEASURED
    if not own["memorized"]:
        return NOT_SHOWN
    if own["low"] is None or (unseen is not None and unseen["high"] is None):
        return WITHHELD
    return SHOWN if own["low"] > (0.0 if unseen is None else unseen["high"]) else NOT_SHOWN


def _came_back(state: str, sets: Mapping[str, Any], steps: int) -> str:
    own, unseen = sets[FORGET], sets.get(HELD_OUT)
    against = "" if unseen is None else f", against {unseen['memorized']:,} of {unseen['sequences']:,} never seen"
    if not own["sequences"]:
        return f"{state}: nothing can come back, because the model gives all sequences to forget as it is"
    number = f"{own['memorized']:,} of {numbered(own['sequences'], 'sequence')} that the model had forgotten"
    when = f"after {numbered(steps, 'step')} of training on the other half" if state == RELEARNED else f"in {state}"
    return f"{when} {number} {agree(own['memorized'], 'comes')} back, {rate(own)}{against}"


def section(figures: Mapping[str, Any], anchor: str) -> Section | None:
    """The section of the page; None without `--forget`."""
    found = figures.get(ABOUT)
    if found is None:
        return None
    text = (
        f"The documents to forget are halved. One half is trained on again ({numbered(found['steps'], 'step')} of {BATCH} "
        f"sequences, AdamW at {found['rate']:g}), and what counts is whether the other half comes back: of the sequences that "
        "greedy decoding does not yield as the model is given, those that it yields then. Texts never seen say how much of "
        "that is general. AUROC: of the continuations' log-probabilities against those of held-out texts; .5 is what "
        "forgetting should give."
    )
    text += "".join(f" Not measured: {state} ({reason})." for state, reason in found["unmeasured"].items())
    head = ("Model", "Sequences", "Extracted", "Share", "Came back", "AUROC")
    rows = tuple(
        (
            state,
            "forget, the other half" if name == FORGET and TRAINED in sets else name,
            _counts(share),
            words.percent(share["rate"]),
            "—" if state == GIVEN else _counts(found["came_back"][state][name]),
            _area(share.get("auroc")),
        )
        for state, sets in found["states"].items()
        for name, share in sets.items()
    )
    tables = [Table("Forgetting", head, rows, texts=2)]
    if found["sequences"]:
        listed = tuple((f"{row['sequence_id']}", row["document"] or "—", row["text"] or "—") for row in found["sequences"])
        tables.append(Table("What came back", ("Sequence", "Document", "Text"), listed, texts=3, quoted=True))
    return Section(anchor, f"Does what was forgotten come back? {verdict(found)['verdict'].capitalize()}", text, tuple(tables))


def _counts(share: Mapping[str, Any]) -> str:
    return f"{share['memorized']:,} of {share['sequences']:,}"


def _area(area: Mapping[str, float] | None) -> str:
    return "—" if area is None else f"{area['value']:.3f} ({area['low']:.3f} to {area['high']:.3f})"
