"""The part of an audit's page on continuations that are nearly those of the training set."""

from collections.abc import Mapping
from typing import Any

from memtax.lm.matching import BLOCK, PASSAGE
from memtax.pipeline.audit_parts import Finding, say_share
from memtax.progress import numbered
from memtax.report import words

RECALLS = {
    "block_recall": f"mean share of tokens in common blocks of {BLOCK} or more",
    "near_verbatim_recall": f"mean share of words in nearly verbatim passages of {PASSAGE} or more",
}


def near_verbatim(result: Mapping[str, Any]) -> Finding | None:
    """Generated continuations that are nearly the true ones."""
    found = result.get("near_verbatim")
    if not found or not found["measurable"]:
        return None
    kinds = {
        "identical": "identical",
        "near": f"at most {numbered(found['edits'], 'edit')} away, identical ones included",
        "block": f"a block of {found['block']} or more tokens in common",
    }
    groups = {"training": found["train"], "unseen": found["held_out"]}
    rows = [
        [name, told, f"{group[kind]['memorized']:,}", f"{group[kind]['sequences']:,}", say_share(group[kind])]
        for name, group in groups.items()
        if group is not None
        for kind, told in kinds.items()
    ]
    rows += [
        [name, told, words.DASH, f"{group[kind]['rows']:,}", words.estimate(group[kind])]
        for kind, told in RECALLS.items()
        for name, group in groups.items()
        if group is not None and group.get(kind) is not None
    ]
    near = found["train"]["near"]
    heading = f"{words.percent(near['rate'])} of generated continuations are training text or nearly so"
    text = (
        f"Greedy decoding generates {found['tokens']} tokens after each prompt, which are compared with the text's own: tokens "
        "replaced, inserted or deleted (edit distance), and the longest block that both have. Unseen are held-out sequences "
        "whose continuation is not in the training set."
    )
    if drawn := found.get("drawn"):
        rows += _drawn_rows(drawn, found["edits"])
        text += _drawn(drawn)
    head = ("Sequences", "Generated", "Count", "Of", "Share (95% interval)")
    return Finding(heading, text, "Near-verbatim extraction", head, rows)


def _drawn_rows(drawn: Mapping[str, Any], edits: int) -> list[list[str]]:
    """Rows of the table: shares of continuations that samples contain."""
    within = f"{numbered(edits, 'edit')} or fewer away"
    kinds = {"identical": "identical", "at_least": f"{within}: at least", "at_most": f"{within}: at most"}
    return [
        [name, f"drawn, {told}", f"{row['extractable']:,}", f"{row['sequences']:,}", say_share(row)]
        for name, key in (("training", "train"), ("unseen", "held_out"))
        for kind, told in kinds.items()
        if (row := drawn[key][kind])["sequences"]
    ]


def _drawn(drawn: Mapping[str, Any]) -> str:
    """What samples contain, in words."""
    said = (
        f" Drawn: {drawn['samples']} samples at temperature 1 contain it with a probability of {drawn['probability']} or "
        "more; the probability of nearly the text lies between two bounds, from a beam search of width "
        f"{drawn['beam']:,} (arXiv 2603.24917)."
    )
    beyond = drawn["calibrated"]
    if not beyond["measurable"]:
        return said
    return (
        f"{said} For {say_share(beyond['exceeds'])} of these training sequences the lower bound exceeds that of all but "
        f"{words.percent(beyond['alpha'])} of unseen {beyond['unit']}s."
    )
