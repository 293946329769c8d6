"""The summary table printed at the end of a run."""

from collections.abc import Mapping
from typing import Any

from memtax.report import words
from memtax.schema import CATEGORIES


def summary_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Extraction by category, and the predictor's figures."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    # Logs have no width, and headings must not be cut.
    console.width = max(console.width, 100)
    extraction, predictor = metrics["extraction"], metrics["predictor"]
    table = Table(title=escape(metrics["run"]["title"]), title_justify="left")
    table.add_column("category", no_wrap=True)
    for heading in ("sequences", "memorized", "rate", "95% interval", "over", "ROC-AUC"):
        table.add_column(heading, justify="right", no_wrap=True)
    names = {"held_out": "held out", "held_out_absent": "held out, unseen"}
    notes = [predictor["reason"]] if "reason" in predictor else []
    for name in (*CATEGORIES, "all", "held_out", "held_out_absent"):
        if name not in extraction:
            continue
        group = extraction[name]
        auc, note = _auc(predictor, "aggregate" if name == "all" else name)
        if note:
            notes.append(f"no ROC-AUC for {name}: {note}")
        rate = "-" if group["rate"] is None else f"{group['rate']:.1%}"
        interval = "-" if group["low"] is None else f"{100 * group['low']:.1f} - {group['high']:.1%}"
        if group["rate"] is not None and group["low"] is None:
            interval = "withheld"
            notes.append(f"no interval for {name}: {group['reason']}")
        table.add_row(
            names.get(name, name), f"{group['sequences']:,}", f"{group['memorized']:,}", rate, interval, words.units(group), auc
        )
    with console.capture() as captured:
        console.print(table)
        for note in notes:
            console.print(escape(note), soft_wrap=True)
    return captured.get().splitlines()


def _auc(predictor: Mapping[str, Any], category: str) -> tuple[str, str | None]:
    """The taxonomic predictor's ROC-AUC on test rows, or the reason why there is none."""
    found = predictor.get("models", {}).get("taxonomic", {}).get(category)
    if not found:
        return "-", None
    return (f"{found['roc_auc']['value']:.3f}", None) if found["roc_auc"] else ("-", found["reason"])
