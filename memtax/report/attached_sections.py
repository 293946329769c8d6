"""The sections on results of other verbs about the model: paraphrases, gradient alignment, influence."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from memtax.progress import agree, numbered
from memtax.report import words
from memtax.report.alignment_memorization import against_memorization
from memtax.report.data import Run
from memtax.report.parts import Panel, Section, Table


def attached(run: Run) -> list[Section]:
    """One section for each result attached to the run."""
    made = {
        "paraphrases": _paraphrases,
        "alignment": lambda found: alignment(found, run.alignment),
        "influence": influence,
    }
    return [make(found) for name, make in made.items() if (found := run.metrics.get(name))]


def _paraphrases(found: Mapping[str, Any]) -> Section:
    text = (
        f"Of {words.count(found['asked'])} paraphrases by {found['model']} ({found['mode']}, {found['prompts']}) for "
        f"{numbered(found['texts'], 'text')}, {words.count(found['valid'])} {agree(found['valid'], 'is')} "
        "valid. Invalid ones are missing, each with its reason; none is replaced by the text itself."
    )
    rows = tuple((reason, words.count(times)) for reason, times in found["failed"].items())
    table = Table("Paraphrases that failed", ("reason", "paraphrases"), rows)
    return Section("paraphrases", "Paraphrases", text, (table,) if rows else ())


def alignment(found: Mapping[str, Any], table: pa.Table | None = None) -> Section:
    """Similarity of the gradients at texts and their paraphrases.

    Args:
        found: the `summary.json` of `memtax align`.
        table: `gradient_alignment` of each text, plotted against a memorization score if it has one.
    """
    text = (
        "If a model learned the meaning of a text and not its wording, the text and its paraphrases change the model in the "
        f"same direction: the cosine of the gradients ({found['parameters']}) is large. {words.count(found['aligned'])} of "
        f"{numbered(found['texts'], 'text')} {agree(found['aligned'], 'has')} a valid paraphrase"
    )
    text += "." if found["mean"] is None else f"; the mean cosine is {words.fixed(found['mean'])}."
    levels = tuple((name, words.count(found["levels"][name])) for name in ("high", "medium", "low"))
    parts: list[Panel | Table] = [Table("Texts by level: above 0.7 is high, below 0.3 low", ("level", "texts"), levels)]
    if member := found["membership"]:
        names = {"auroc": "AUROC", "tpr_at_fpr_0.05": "TPR at 5% FPR", "fpr_at_tpr_0.95": "FPR at 95% TPR"}
        rows = tuple((shown, words.estimate(member[name])) for name, shown in names.items() if name in member)
        parts.append(Table("How well it separates members from non-members", ("figure", "value and interval"), rows))
    against, missing = against_memorization(found.get("memorization") or {}, table)
    return Section("alignment", "Gradients at texts and their paraphrases", text, (*parts, *against), missing)


def influence(found: Mapping[str, Any]) -> Section:
    """The most influential training examples: `summary.json` of `memtax influence`, with `top` if it was attached."""
    text = (
        f"How much {numbered(found['train'], 'training example', 'moves')} the loss at "
        f"{numbered(found['test'], 'test example')} (gradients of {found['parameters']}). Negative is helpful: training on "
        "the example lowers the loss. Similarity of representations (repsim) is large for similar examples."
    )
    parts = []
    figures = {name: one for name, one in found["methods"].items() if one}
    if figures:
        head = ("method", "class of the top example is right", "share of the class among the top")
        rows = tuple(
            (name, words.estimate(method.get("accuracy")), words.estimate(method.get("coverage")))
            for name, method in figures.items()
        )
        parts.append(Table("Agreement with the classes of the examples", head, rows))
    if top := found.get("top"):
        head = ("test example", "training example", f"influence ({top[0]['method']})")
        rows = tuple((_named(row, "test"), _named(row, "train"), words.number(row["influence"])) for row in top)
        parts.append(Table("The strongest influences on the first test examples", head, rows, texts=2))
    return Section("influence", "The most influential training examples", text, tuple(parts))


def _named(row: Mapping[str, Any], kind: str) -> str:
    return f"{row[f'{kind}_id']}: {row[f'{kind}_text'] or words.DASH}"
