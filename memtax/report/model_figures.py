"""Figures of fits and searches: functions from rows of metrics to matplotlib `Axes`, as in `memtax.report.figures`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memtax.report.figures import COLORS, GREY, curves, dots, error_bars, figure_of, panels, style
from memtax.report.saving import save
from memtax.report.words import label
from memtax.schema import CATEGORIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = ("o", "s", "^", "D", "v", "P")
"""Markers of the models, which differ in shape as well as in color."""


def performance(models: Mapping[str, Mapping[str, Any]], metric: str, ax: "Axes | None" = None) -> "Axes":
    """A metric by group, one marker per model, with intervals; groups without the metric are omitted.

    Args:
        models: model to group to its metrics, as returned by `evaluate`.
        metric: for example `pr_auc`.
        ax: axes to draw on.
    """
    with style():
        axes: Axes = panels(ax, 3.2)[0, 0]
        groups = [name for name in next(iter(models.values())) if any(models[model][name].get(metric) for model in models)]
        for rank, (model, found) in enumerate(models.items()):
            own = [(place, found[name][metric]) for place, name in enumerate(groups) if found[name].get(metric)]
            shift = 0.22 * (rank - (len(models) - 1) / 2)
            axes.errorbar(
                [place + shift for place, _ in own],
                [row["value"] for _, row in own],
                yerr=error_bars([row for _, row in own], "value") if own else None,
                fmt=MARKERS[rank % len(MARKERS)],
                color=COLORS["baseline"] if model == "baseline" else COLORS["all"],
                ms=5,
                capsize=2.5,
                elinewidth=1.4,
                label=label(model),
            )
        axes.set_xticks(range(len(groups)), [label(name) for name in groups])
        axes.set_xlim(-0.6, max(len(groups), 1) - 0.4)
        axes.set_ylabel(label(metric))
        return axes


def performances(models: Mapping[str, Mapping[str, Any]], ax: Any = None) -> Any:
    """ROC-AUC, PR-AUC, F1 and ECE of each model by group, on four axes."""
    with style():
        grid = panels(ax, 5.2, 2, 2)
        for axes, metric in zip(grid.flat, ("roc_auc", "pr_auc", "f1", "ece"), strict=True):
            performance(models, metric, axes)
            axes.set_title(label(metric))
        handles, labels = grid[0, 0].get_legend_handles_labels()
        if ax is None:
            figure_of(grid).legend(handles, labels, loc="outside lower center", ncols=len(labels))
        else:
            grid[0, 0].legend(handles, labels)
        return grid


def heat_map(rows: Sequence[Mapping[str, Any]], value: str, ax: "Axes | None" = None) -> "Axes":
    """Correlations, one row per factor and one column per group, with the number in each cell; a dash if it is withheld.

    Args:
        rows: from `correlations`.
        value: `spearman`, `pearson` or `xi`.
        ax: axes to draw on.
    """
    with style():
        axes: Axes = panels(ax, 4.6)[0, 0]
        factors = list(dict.fromkeys(row["factor"] for row in rows))
        groups = list(dict.fromkeys(row["group"] for row in rows))
        grid = np.full((len(factors), len(groups)), np.nan)
        for row in rows:
            if row.get(value) is not None:
                grid[factors.index(row["factor"]), groups.index(row["group"])] = row[value]
        # Blue to orange through white: distinguishable for color-blind readers, and by lightness in print.
        axes.imshow(grid, cmap="PuOr_r", vmin=-1, vmax=1, aspect="auto")
        for (place, column), number in np.ndenumerate(grid):
            text = "\N{EN DASH}" if np.isnan(number) else f"{number:.2f}".replace("-", "\N{MINUS SIGN}")
            color = "white" if not np.isnan(number) and abs(number) > 0.65 else "black"
            axes.text(column, place, text, ha="center", va="center", fontsize=7.5, color=color)
        axes.set_xticks(range(len(groups)), [label(name) for name in groups], rotation=30, ha="right")
        axes.set_yticks(range(len(factors)), [label(name) for name in factors])
        axes.grid(visible=False)
        axes.set_title({"xi": "Chatterjee's xi", "spearman": "Spearman", "pearson": "Pearson"}.get(value, value))
        return axes


def heat_maps(rows: Sequence[Mapping[str, Any]], ax: Any = None) -> Any:
    """Heat maps of the three correlations side by side, on three axes."""
    with style():
        row = panels(ax, 1.6 + 0.27 * len({row["factor"] for row in rows}), 1, 3, sharey=True)[0]
        for axes, value in zip(row, ("pearson", "spearman", "xi"), strict=True):
            heat_map(rows, value, axes)
        return row


def landscape(rows: Sequence[Mapping[str, Any]], criterion: str, ax: "Axes | None" = None) -> "Axes":
    """The search landscape: the best value of the criterion by first and second factor.

    Args:
        rows: results of the search, best first.
        criterion: for example `log_loss`.
        ax: axes to draw on.
    """
    with style():
        axes: Axes = panels(ax, 4.6)[0, 0]
        names = sorted({row["factor_1"] for row in rows} | {row["factor_2"] for row in rows})
        grid = np.full((len(names), len(names)), np.nan)
        for row in reversed(rows):
            grid[names.index(row["factor_1"]), names.index(row["factor_2"])] = row[criterion]
        image = axes.imshow(grid, cmap="cividis", aspect="auto")
        best = rows[0]
        axes.plot(names.index(best["factor_2"]), names.index(best["factor_1"]), marker="*", ms=13, color="white", mec="black")
        axes.set_xticks(range(len(names)), [label(name) for name in names], rotation=35, ha="right")
        axes.set_yticks(range(len(names)), [label(name) for name in names])
        axes.set_xlabel("factor of the second rule")
        axes.set_ylabel("factor of the first rule")
        axes.grid(visible=False)
        axes.figure.colorbar(image, ax=axes, label=f"validation {label(criterion)}, best of the quantiles")
        return axes


def landscape_and_order(rows: Sequence[Mapping[str, Any]], criterion: str, ax: Any = None) -> Any:
    """The landscape, and next to it all partitions in the order of their value, on two axes."""
    with style():
        both = panels(ax, 4.6, 1, 2, width_ratios=(1.6, 1))[0]
        left, right = both
        landscape(rows, criterion, left)
        right.plot(range(1, len(rows) + 1), [row[criterion] for row in rows], color=COLORS["recitation"], lw=1.6)
        right.set_xlabel("partitions, best first")
        right.set_ylabel(f"validation {label(criterion)}")
        return both


def growth(rows: Sequence[Mapping[str, Any]], unit: str, ax: "Axes | None" = None) -> "Axes":
    """Memorized sequences by category over model size or training time, on logarithmic axes for sizes.

    Args:
        rows: `category`, `place` (parameters or steps) and `memorized` (a count), in any order.
        unit: `parameters` or `steps`.
        ax: axes to draw on.
    """
    with style():
        axes: Axes = panels(ax, 3.4)[0, 0]
        for name, marker in zip((*CATEGORIES, "all"), MARKERS, strict=False):
            own = sorted((row["place"], row["memorized"]) for row in rows if row["category"] == name)
            if own:
                color, line = COLORS[name], "--" if name == "all" else "-"
                axes.plot(*zip(*own, strict=True), marker=marker, ls=line, color=color, lw=1.8, ms=5, label=label(name))
        if unit == "parameters":
            axes.set_xscale("log")
            axes.set_yscale("log")
        axes.set_xlabel(unit)
        axes.set_ylabel("memorized sequences")
        axes.legend()
        return axes


def thresholds(rows: Sequence[Mapping[str, float]], chosen: Sequence[float], ax: "Axes | None" = None) -> "Axes":
    """F1, precision and recall of a classifier by threshold, with the chosen thresholds.

    Args:
        rows: `threshold`, `f1`, `precision`, `recall`.
        chosen: thresholds to mark.
        ax: axes to draw on.
    """
    with style():
        axes: Axes = panels(ax, 3.2)[0, 0]
        places = [row["threshold"] for row in rows]
        for name, line, color in zip(("f1", "precision", "recall"), ("-", "--", ":"), list(COLORS.values()), strict=False):
            axes.plot(places, [row[name] for row in rows], line, color=color, lw=1.8, label=label(name))
        for threshold in chosen:
            axes.axvline(threshold, color=GREY, lw=1, ls="-.")
        axes.set_xlabel("threshold")
        axes.set_ylim(-0.02, 1.02)
        axes.legend()
        return axes


def probe_layers(rows: Sequence[Mapping[str, Any]], ax: "Axes | None" = None) -> "Axes":
    """Probes by layer with intervals, and their controls.

    Args:
        rows: `layer`, `probe`, `metric`, `value`, `low`, `high`; a probe without layers has `layer` None and is a line.
        ax: axes to draw on.
    """
    from matplotlib.ticker import MaxNLocator

    with style():
        axes: Axes = panels(ax, 3.6)[0, 0]
        palette = [COLORS["recitation"], COLORS["reconstruction"], COLORS["recollection"], COLORS["baseline"], GREY]
        for rank, probe in enumerate(dict.fromkeys(row["probe"] for row in rows)):
            own = [row for row in rows if row["probe"] == probe and row.get("value") is not None]
            flat = [row for row in own if row["layer"] is None]
            layered = [row for row in own if row["layer"] is not None]
            color = palette[rank % len(palette)]
            for row in flat:
                axes.axhline(row["value"], color=color, ls="--", lw=1.4, label=probe)
                if row["low"] is not None:
                    axes.axhspan(row["low"], row["high"], color=color, alpha=0.12, lw=0)
            if layered:
                axes.errorbar(
                    [row["layer"] for row in layered],
                    [row["value"] for row in layered],
                    yerr=error_bars(layered, "value"),
                    fmt=f"{MARKERS[rank % len(MARKERS)]}-",
                    color=color,
                    ms=4.5,
                    capsize=2.5,
                    label=probe,
                )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("layer (0: embeddings)")
        axes.set_ylabel(label(rows[0]["metric"]))
        axes.legend()
        return axes


def write_fit(
    metrics: Mapping[str, Any], tests: Mapping[str, Any] | None, correlated: Sequence[Mapping[str, Any]], folder: Path
) -> None:
    """Write the figures of a fit: performance, curves, coefficients with intervals, correlations."""
    save(performances(metrics["models"]), folder, "performance", "Test metrics by category, with 95% intervals")
    if metrics["curves"]:
        save(curves(metrics["curves"], metrics["models"]), folder, "curves", "ROC, precision-recall and reliability")
    if tests is not None:
        rows = [{"model": name, **row} for name, one in tests["models"].items() for row in one["coefficients"]]
        groups = [name for name in ("baseline", *CATEGORIES) if any(row["model"] == name for row in rows)]
        if groups:
            drawn = dots(rows, groups, "model", "coefficient", "log odds per standard deviation")
            save(drawn, folder, "coefficients", "Unpenalized coefficients with robust 95% intervals")
    if correlated:
        save(heat_maps(correlated), folder, "correlations", "Correlation of each factor with memorization")


def write_search(found: Mapping[str, Any], folder: Path) -> None:
    """Write the figures of a search: landscape and test performance."""
    chosen = found["chosen"]
    rule = (
        f"{label(chosen['factor_1'])} from quantile {chosen['quantile_1']:g}, then {label(chosen['factor_2'])} from "
        f"quantile {chosen['quantile_2']:g}"
    )
    save(landscape_and_order(found["ranked"], found["criterion"]), folder, "landscape", f"Best partition: {rule}")
    save(performances(found["metrics"]["models"]), folder, "performance", "Test metrics by group, with 95% intervals")
