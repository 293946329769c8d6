"""The table that ends a run on the terminal."""

from collections.abc import Mapping
from typing import Any

from memtax.pipeline.run import RunResult
from memtax.schema import CATEGORIES


def print_summary(result: RunResult) -> None:
    """Print extraction by category, the predictor's figures and the paths; nothing on processes other than the main."""
    if not result.metrics:
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    extraction = result.metrics["extraction"]
    table = Table(title=result.metrics["run"]["title"], title_justify="left")
    table.add_column("category")
    for heading in ("sequences", "memorized", "rate", "95% interval", "predictor ROC-AUC"):
        table.add_column(heading, justify="right")
    for name in (*CATEGORIES, "all", "held_out"):
        if name in extraction:
            rate = extraction[name]
            table.add_row(
                name.replace("_", " "),
                f"{rate['sequences']:,}",
                f"{rate['memorized']:,}",
                "-" if rate["rate"] is None else f"{rate['rate']:.1%}",
                "-" if rate["rate"] is None else f"{rate['low']:.1%} to {rate['high']:.1%}",
                _auc(result.metrics["predictor"], "aggregate" if name == "all" else name),
            )
    console.print(table)
    console.print(f"dataset  {result.output / 'dataset'}", highlight=False, soft_wrap=True)
    console.print(f"models   {result.output / 'models'}", highlight=False, soft_wrap=True)
    console.print(f"report   {result.report}", highlight=False, soft_wrap=True)


def _auc(predictor: Mapping[str, Any], category: str) -> str:
    found = predictor.get("models", {}).get("taxonomic", {}).get(category)
    if not found:
        return "-"
    return f"{found['roc_auc']['value']:.3f}" if found["roc_auc"] else (found["reason"] or "-")
