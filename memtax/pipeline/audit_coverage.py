"""What an audit attacked and what it did not, by the attacks that the EDPB's opinion 28/2024 names.

Paragraph 55 of the opinion (17 December 2024, edpb.europa.eu) lists the attacks that tests of a model may cover, and says that
tests that succeed are evidence for the resistance to the attacks that were run, and to no others. Paragraph 46 asks for the
context in which a model is released, paragraph 58 for documentation.
"""

from collections.abc import Mapping
from typing import Any

from memtax.report.parts import Section, Table

NOT_RUN, OUTSIDE = "not attacked", "outside this audit"


def coverage(figures: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Rows of the table: attack, whether it was run, how, and the paragraph that names it."""
    found = figures["membership"]
    attacks = ", ".join(_attacks(found)) if found["measurable"] else ""
    planted = figures["canaries"]["measurable"]
    near = (figures.get("near_verbatim") or {}).get("measurable")
    window = figures["window"]
    prompts = (
        "training conversations up to an answer" if window["prompt"] is None else f"{window['prompt']} tokens of training text"
    )
    extracted = f"{prompts} as the prompt, greedy decoding and sampling at temperature 1"
    if near:
        extracted += ", near-verbatim continuations"
    return [
        ("Membership inference", "attacked" if attacks else NOT_RUN, attacks or str(found.get("reason")), "55 (i)"),
        ("Attribute inference", NOT_RUN, "attributes of people were not inferred", "55 (i)"),
        ("Exfiltration", OUTSIDE, "a matter of the systems around the model", "55 (ii)"),
        ("Regurgitation of training data", "attacked", extracted, "55 (iii)"),
        ("Regurgitation of planted canaries", *_planted(planted, figures["canaries"]), "55 (iii)"),
        ("Model inversion", NOT_RUN, "inputs were not optimized", "55 (iv)"),
        ("Reconstruction", NOT_RUN, "training data was not reconstructed from weights or gradients", "55 (v)"),
        ("Other prompts, jailbreaks, the application", NOT_RUN, "prompts were training texts and canaries", "46"),
    ]


def section(figures: Mapping[str, Any], anchor: str) -> Section:
    """The table as a section of the page."""
    text = (
        "A test is evidence for the attacks that were run and for no others. The paragraphs are those of the EDPB's opinion "
        "28/2024 that name the attack or the circumstance (46: the context in which the model is released); paragraph 58 asks "
        "for documentation of such tests, of which this page and audit.json can be a part. Whether a model is anonymous is not "
        "decided here."
    )
    head = ("Attack", "Here", "How, or why not", "Paragraph")
    return Section(
        anchor, "What was attacked and what was not", text, (Table("Attacks", head, tuple(coverage(figures)), texts=4),)
    )


def _planted(planted: bool, found: Mapping[str, Any]) -> tuple[str, str]:
    return ("attacked", "exposure and extraction") if planted else (NOT_RUN, str(found["reason"]))


def _attacks(found: Mapping[str, Any]) -> list[str]:
    from memtax.membership.measure import representatives
    from memtax.report import words

    one = next(iter(found["domains"].values()))
    return [words.label(name) for name, _ in representatives(one)]
