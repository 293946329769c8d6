"""The section of an audit's page on membership inference: one row per attack, the grid of k folded."""

from collections.abc import Iterator, Mapping
from typing import Any

from memtax.membership.measure import representatives
from memtax.report import words
from memtax.report.parts import Section, Table

Row = tuple[str, ...]
TEXT = (
    "Can somebody who has a text and queries the model for its probabilities find out that it was trained on? AUROC is the "
    "probability that a training text scores above a held-out one: 0.5 is guessing, 1 is certainty. The blind baseline reads "
    "the texts and never sees the model: an attack that does no better may separate kinds of text, not membership. Loss is the "
    "mean log-likelihood, zlib divides it by the text's compressed size, Min-K% uses only the least likely tokens. What is "
    "found at 1% false positives is withheld below a number of held-out documents."
)
_HEAD = ("Attack", "What it shows", "AUROC (95% interval)", "Found at 1% false positives")


def section(result: Mapping[str, Any], heading: str, anchor: str) -> Section:
    """The section.

    Args:
        result: figures of the audit.
        heading: the conclusion.
        anchor: target of links.
    """
    found = result["membership"]
    if not found["measurable"]:
        return Section(anchor, heading, f"Not measurable with this data: {found['reason']}.")
    texts = 3 if len(found["domains"]) > 1 else 2
    tables = [Table("AUROC of attacks", *_columns(found["domains"], _main), texts=texts)]
    if any(_rest(one) for one in found["domains"].values()):
        tables.append(Table("AUROC with other k", *_columns(found["domains"], _rest), folded=True, texts=texts))
    return Section(
        anchor,
        heading,
        f"{TEXT} {words.say_scored(found.get('answers', False))}{words.say_paired(found.get('forced', {}))}",
        tuple(tables),
    )


def _columns(domains: Mapping[str, Any], choose: Any) -> tuple[Row, tuple[Row, ...]]:
    """Head and rows of a table, with a column for the domain if there are several."""
    several = len(domains) > 1
    rows = ((*((domain,) if several else ()), *row) for domain, one in domains.items() for row in _rows(choose(one)))
    return ((*(("Domain",) if several else ()), *_HEAD), tuple(rows))


def _main(one: Mapping[str, Any]) -> dict[str, Any]:
    """One row per attack, and the baseline."""
    return {name: one["attacks"][name] for name, _ in representatives(one)} | {"blind baseline": one["blind"]}


def _rest(one: Mapping[str, Any]) -> dict[str, Any]:
    """What is left of the grids of k."""
    return {name: row for name, row in one["attacks"].items() if name not in _main(one)}


def _rows(chosen: Mapping[str, Any]) -> Iterator[Row]:
    for name, row in chosen.items():
        shown = str((row.get("verdict") or {}).get("reason") or "")
        point = row.get("tpr_at_fpr_0.01") or {}
        withheld = f"withheld ({point['needed']:,} needed)" if point.get("needed") and point.get("value") is None else None
        yield words.label(name), shown, words.estimate(row.get("auroc")), withheld or words.estimate(point)
