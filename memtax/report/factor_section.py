"""The page's section of factors: their correlations with memorization, and distributions of two of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from memtax import schema
from memtax.predictor.factors import FROM_SCORES
from memtax.report import examples, figures, words
from memtax.report.data import Run
from memtax.report.parts import Panel, Section, Table
from memtax.report.words import count, fixed, label

GROUPS = ("all", *schema.CATEGORIES)
DISTRIBUTIONS = ("sequence_duplicates", "continuation_perplexity")


def goes_with(run: Run) -> Section:
    """Correlations and distributions of the factors."""
    text = (
        "Correlation of memorization with properties of the sequence and its occurrences in the corpus, which are known before "
        "training, and with the model's own scores (below). Continuation and sequence perplexity use the same tokens as the "
        "target: a continuation that greedy decoding reproduces has low perplexity, so their "
        "correlation restates memorization and does not explain it."
    )
    parts: list[Panel | Table] = []
    missing = []
    rows = sorted(run.metrics.get("correlations") or [], key=lambda row: row["factor"] in FROM_SCORES)
    groups = [name for name in GROUPS if any(row["group"] == name and row.get("spearman") is not None for row in rows)]
    if groups:
        parts.append(_panel([row for row in rows if row["group"] in groups], groups))
    elif rows:
        reasons = [row.get("reason") or "not computed" for row in rows]
        why = max(reasons, key=reasons.count)
        missing.append(f"No factor's correlation with memorization could be computed: {why}.")
    else:
        missing.append("This run's metrics contain no correlations.")
    if rows:
        parts.append(_table(rows))
    for name in DISTRIBUTIONS:
        panel = _distribution(run, name)
        if panel:
            parts.append(panel)
        else:
            missing.append(f"The dataset has no {label(name)} of both memorized and other sequences to compare.")
    return Section("factors", "Factors associated with memorization", text, tuple(parts), tuple(missing))


def _panel(rows: Sequence[Mapping[str, Any]], groups: Sequence[str]) -> Panel:
    caption = (
        "Spearman correlation of each factor with being memorized, within each group; whiskers are its interval "
        f'{words.over(rows[0])}, "withheld" has its reason in the table below.'
    )
    unit = "Spearman correlation with being memorized"
    return Panel(
        "correlations",
        words.say_correlations(rows),
        caption,
        figures.dots(rows, groups, "group", "spearman", unit, last=FROM_SCORES),
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = tuple(
        (label(row["factor"]), label(row["group"]), count(row.get("n")), words.units(row))
        + (
            (f"withheld: {row.get('reason') or 'not computed'}",)
            if row.get("spearman") is None
            else (fixed(row["spearman"]), words.span(row), fixed(row.get("pearson")), fixed(row.get("xi")))
        )
        for row in rows
    )
    head = ("factor", "group", "sequences", "over", "Spearman", "its interval", "Pearson", "Chatterjee's xi")
    return Table("Correlation of each factor with being memorized (no unit, -1 to 1)", head, table, folded=True, texts=2)


def _distribution(run: Run, name: str) -> Panel | None:
    """The factor's distribution, if both memorized and other sequences have finite values of it."""
    strata = examples.strata(run)
    values = numbers_of(run.features, name)
    if values is None:
        return None

    def pick(memorized: bool, category: str | None = None) -> np.ndarray:
        places = [rows for (own, verdict), rows in strata.items() if verdict == memorized and category in (None, own)]
        kept = values[np.concatenate(places)] if places else values[:0]
        return kept[np.isfinite(kept)]

    memorized, rest = pick(True), pick(False)
    if not len(memorized) or not len(rest):
        return None
    present = [category for category in schema.CATEGORIES if len(pick(True, category)) + len(pick(False, category))]
    groups = {category: {"memorized": pick(True, category), "rest": pick(False, category)} for category in present}
    groups = groups or {"all": {"memorized": memorized, "rest": rest}}
    held_out = numbers_of(run.held_out, name)
    if run.held_out is not None and held_out is not None and "is_memorized" in run.held_out.column_names:
        verdict = np.array(run.held_out.column("is_memorized").to_pylist(), dtype=object)
        kept = np.isfinite(held_out)
        control = {"memorized": held_out[kept & (verdict == True)], "rest": held_out[kept & (verdict == False)]}  # noqa: E712
        if len(control["memorized"]) + len(control["rest"]):
            groups["held_out"] = control
    title = words.say_medians(name, float(np.median(memorized)), float(np.median(rest)))
    caption = f"{schema.COLUMNS[name].meaning[0].upper()}{schema.COLUMNS[name].meaning[1:]}. Each histogram sums to 100%."
    if name in FROM_SCORES:
        caption += " Computed from the same tokens as the target."
    if "held_out" in groups:
        caption += " Held out: sequences the model was not trained on."
    return Panel(f"distribution_{name}", title, caption, figures.distribution(groups, name, schema.COLUMNS[name].unit))


def numbers_of(table: pa.Table | None, name: str) -> np.ndarray | None:
    """A column as float64, nulls as NaN; None if there is no such column."""
    if table is None or name not in table.column_names:
        return None
    return table.column(name).to_numpy(zero_copy_only=False).astype(float)
