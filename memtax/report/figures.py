"""The figures: functions from rows of metrics or table columns to matplotlib `Axes`.

Each function draws on the given axes, or on those of a new figure, and returns them; several panels form an array of axes.
Without pyplot there is no global state and no display is needed. Each category has one color in all figures, from those in the
palette of Okabe and Ito (distinguishable for color-blind readers) with a contrast of at least 3 to 1 on white; color is never
the only mark of a category.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from memtax.errors import MemtaxError
from memtax.extras import explained
from memtax.report.words import count, label, number, percent
from memtax.schema import CATEGORIES, COLUMNS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = {
    "recitation": "#0072B2",
    "reconstruction": "#009E73",
    "recollection": "#D55E00",
    "all": "#333333",
    "aggregate": "#333333",
    "baseline": "#CC79A7",
    "held_out": "#767676",
    "held_out_absent": "#767676",
}
TEXT_COLORS = {**COLORS, "reconstruction": "#00785A", "recollection": "#B34F00", "baseline": "#9C4F7D"}
"""The same for words on white: dark enough to be read (contrast 4.5 to 1)."""
GREY = "#8A8A8A"
SERIES = ("#4B3F8F", "#A8790A", "#767676")
"""Colors of lines that are not categories."""
WIDE = 20
"""Coefficients above this are shown on a logarithmic axis."""
WIDTH = 9.6
"""Inches; the page shows figures slightly larger."""

STYLE: Mapping[str, Any] = {
    "font.family": "DejaVu Sans",  # included in matplotlib, so shapes are equal on every machine
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "memtax",
    "text.parse_math": False,  # names may contain dollar signs
}


def style() -> AbstractContextManager[None]:
    """The defaults of matplotlib and `STYLE`, independent of the user's own settings."""
    import matplotlib.style

    return matplotlib.style.context(["default", dict(STYLE)])


def figure_of(drawn: Any) -> "Figure":
    """The figure that contains the result of a drawing function: axes, an array of axes, or a figure."""
    first = np.ravel(np.asarray(drawn, dtype=object))[0]
    figure: Figure = getattr(first, "figure", first)
    return figure


def panels(ax: Any, height: float, rows: int = 1, columns: int = 1, **options: Any) -> Any:
    """Axes to draw on, (rows, columns): the given ones, or those of a new figure with the page's width.

    Args:
        ax: axes, an array of them, or None.
        height: height of a new figure, in inches.
        rows: number of rows of panels.
        columns: number of columns of panels.
        options: options of `Figure.subplots`.

    Raises:
        MemtaxError: the number of given axes is wrong.
    """
    if ax is None:
        return blank(height).subplots(rows, columns, squeeze=False, **options)
    given = np.ravel(np.asarray(ax, dtype=object))
    if len(given) != rows * columns:
        raise MemtaxError(f"this figure has {rows} x {columns} panels; {len(given)} axes were given")
    return given.reshape(rows, columns)


def blank(height: float) -> "Figure":
    """An empty figure with the page's width, `height` inches high."""
    with explained():
        from matplotlib.figure import Figure
    return Figure(figsize=(WIDTH, height))


def error_bars(rows: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """Distances (2, rows) from each value to its interval's ends, in the value's unit; 0 without an interval."""
    ends = [(row[key] - _or(row.get("low"), row[key]), _or(row.get("high"), row[key]) - row[key]) for row in rows]
    return np.maximum(np.array(ends, dtype=float).T, 0)


def _or(value: Any, default: float) -> float:
    return default if value is None else float(value)


def extraction(groups: Mapping[str, Mapping[str, Any]], ax: Any = None) -> Any:
    """Counts (memorized and total, by category) next to rates with their intervals.

    Args:
        groups: group name to `sequences`, `memorized`, `rate`, `low`, `high`.
        ax: two axes to draw on.
    """
    with style():
        both = panels(ax, 0.5 + 0.48 * len(groups), 1, 2, width_ratios=(1, 1.15))[0]
        left, right = both
        # The count of all sequences would dwarf the categories; the rate makes them comparable.
        names = [name for name in groups if name in CATEGORIES] or list(groups)
        most = max(groups[name]["sequences"] for name in names) or 1
        for place, name in enumerate(names):
            row, color = groups[name], COLORS.get(name, GREY)
            left.barh(place, row["sequences"], color=color, alpha=0.22, height=0.62)
            left.barh(place, row["memorized"], color=color, height=0.62)
            text = f" {count(row['memorized'])} of {count(row['sequences'])}"
            left.text(row["sequences"], place, text, va="center", ha="left")
        left.set_xlim(0, most * 1.38)
        left.set_title("Sequences: memorized (full color) of all")
        left.set_xlabel("sequences")
        _rows_axis(left, names)
        shown = [name for name in groups if groups[name].get("rate") is not None]
        for place, name in enumerate(shown):
            row, color = groups[name], COLORS.get(name, GREY)
            right.errorbar(
                row["rate"], place, xerr=error_bars([row], "rate"), fmt="o", color=color, ms=7, capsize=3, elinewidth=1.6
            )
            right.annotate(
                percent(row["rate"]), (row["rate"], place), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=8.5
            )
        right.set_xlim(-0.04, 1.04)
        right.set_title("Share memorized, with its interval")
        right.set_xlabel("share of the group's sequences")
        right.xaxis.set_major_formatter(percent_ticks())
        _rows_axis(right, shown)
        return both


def _rows_axis(axes: "Axes", names: Sequence[str]) -> None:
    """One row per name, the first on top."""
    axes.set_yticks(range(len(names)), [label(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def percent_ticks() -> Any:
    """Format shares as percentages; no labels above 100%, where an axis leaves room for a legend."""
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda share, _: f"{100 * share:.4g}%" if share < 1.001 else "")


def dots(
    rows: Sequence[Mapping[str, Any]],
    groups: Sequence[str],
    panel_key: str,
    value_key: str,
    unit: str,
    ax: Any = None,
    last: Sequence[str] = (),
) -> Any:
    """One panel per group, one row per factor, one dot with its interval; a word if the number is withheld.

    Args:
        rows: `factor`, the group under `panel_key`, the number under `value_key` (or None), `low` and `high` if known.
        groups: groups in order; each has a panel.
        panel_key: `group` or `model`.
        value_key: `spearman` or `coefficient`.
        unit: the axis label.
        ax: one axes per group.
        last: factors shown below all others, regardless of strength.
    """
    first = {row["factor"]: abs(_or(row[value_key], 0)) for row in reversed(rows) if row[panel_key] == groups[0]}
    factors = sorted(dict.fromkeys(row["factor"] for row in rows), key=lambda name: (name in last, -first.get(name, 0)))
    reach = [abs(row[key]) for row in rows for key in (value_key, "low", "high") if row.get(key) is not None]
    limit = 1.0 if value_key == "spearman" else 1.08 * max(reach, default=1.0) or 1.0
    with style():
        all_axes = panels(ax, 0.95 + 0.27 * len(factors), 1, len(groups), sharey=True)[0]
        for axes, panel in zip(all_axes, groups, strict=True):
            color = COLORS.get(panel, GREY)
            axes.axvline(0, color="#555555", lw=0.8)
            for row in rows:
                if row[panel_key] != panel:
                    continue
                place, value = factors.index(row["factor"]), row[value_key]
                if value is None:
                    # Not at 0, where it would be read as a value.
                    axes.text(
                        0.02, place, "withheld", transform=axes.get_yaxis_transform(), va="center", color="#6B6B6B", fontsize=7
                    )
                    continue
                axes.plot([0, value], [place, place], color=color, lw=1, alpha=0.45)
                axes.errorbar(
                    value, place, xerr=error_bars([row], value_key), fmt="o", color=color, ms=4.5, elinewidth=1.4, capsize=2
                )
            axes.set_title(label(panel))
            axes.set_xlim(-limit, limit)
            if value_key == "spearman":
                axes.set_xticks([-1, -0.5, 0, 0.5, 1], ["\N{MINUS SIGN}1", "", "0", "", "1"])
            elif limit > WIDE:
                _logarithmic(axes, limit)
        all_axes[0].set_yticks(range(len(factors)), [label(factor) for factor in factors])
        all_axes[0].set_ylim(len(factors) - 0.4, -0.6)
        _label_below(all_axes, f"{unit}; logarithmic beyond 1" if limit > WIDE else unit, ax is None)
        return all_axes


def _logarithmic(axes: "Axes", limit: float) -> None:
    """Linear up to 1 and logarithmic above, so that one factor in the hundreds does not hide the others."""
    top = math.floor(math.log10(limit))
    axes.set_xscale("symlog", linthresh=1)
    axes.minorticks_off()
    marks = sorted({sign * 10.0**power for sign in (-1, 1) for power in (top, top // 2)} | {0.0})
    axes.set_xticks(marks, [number(mark) for mark in marks])


def _label_below(axes: Any, text: str, own: bool) -> None:
    """One label for all panels of a new figure; one label per panel on given axes."""
    if own:
        figure_of(axes).supxlabel(text, fontsize=9)
    else:
        for each in axes:
            each.set_xlabel(text)


def curves(rows: Sequence[Mapping[str, Any]], metrics: Mapping[str, Mapping[str, Any]], ax: Any = None) -> Any:
    """ROC, precision-recall and reliability curves, one column per category; the baseline is dashed.

    Args:
        rows: `model`, `category`, and the three curves.
        metrics: model to category to its metrics, with the `reason` printed if a curve is withheld.
        ax: three rows of axes, with one column per category.
    """
    columns = [name for name in ("aggregate", *CATEGORIES) if any(name in metrics[model] for model in metrics)]
    kinds = (
        ("roc", "fpr", "tpr", "false positive rate", "true positive rate"),
        ("pr", "recall", "precision", "recall", "precision"),
        ("reliability", "predicted", "observed", "predicted probability", "observed share"),
    )
    with style():
        grid = panels(ax, 7.0, len(kinds), len(columns), sharex="row", sharey="row")
        for line, (kind, x, y, x_label, y_label) in enumerate(kinds):
            for column, name in enumerate(columns):
                axes = grid[line][column]
                drawn = False
                if kind != "pr":
                    axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
                for row in rows:
                    curve = row.get(kind)
                    if row["category"] != name or not curve:
                        continue
                    drawn = True
                    own = row["model"] != "baseline"
                    color = COLORS.get(name, GREY) if own else COLORS["baseline"]
                    if kind == "reliability":
                        # Shares of few sequences are noisy, which small marks show and a line would hide.
                        area = [6 + 110 * rows / max(curve["count"]) for rows in curve["count"]]
                        marker = {"marker": "o" if own else "s", "linewidths": 1.2, "edgecolors": color, "clip_on": False}
                        axes.scatter(curve[x], curve[y], area, color if own else "none", alpha=0.8, zorder=2 + own, **marker)
                        continue
                    axes.plot(curve[x], curve[y], color=color, ls="-" if own else (0, (4, 2)), lw=1.7 if own else 1.4)
                if not drawn:
                    axes.text(0.5, 0.5, _withheld(metrics, name), ha="center", va="center", fontsize=8, color="#555555")
                axes.set_xlim(-0.03, 1.03)
                axes.set_ylim(-0.03, 1.03)
                axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
                axes.set_xlabel(x_label)
                if line == 0:
                    axes.set_title(label(name))
            grid[line][0].set_ylabel(y_label)
        _curve_legend(grid, ax is None)
        return grid


def _withheld(metrics: Mapping[str, Mapping[str, Any]], category: str) -> str:
    reasons = [cell["reason"] for model in metrics if (cell := metrics[model].get(category)) and cell.get("reason")]
    return "\n".join(textwrap.wrap(f"withheld: {reasons[0]}" if reasons else "no curve", 22))


def _curve_legend(grid: Any, own: bool) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=COLORS["aggregate"], lw=1.7, label="one model per category (in the category's color)"),
        Line2D([], [], color=COLORS["baseline"], lw=1.4, ls=(0, (4, 2)), label="baseline: one model for all"),
        Line2D([], [], color=GREY, lw=0.8, ls=":", label="chance (top), perfect calibration (bottom)"),
    ]
    if own:
        figure_of(grid).legend(handles=handles, loc="outside lower center", ncols=3)
    else:
        grid[0][-1].legend(handles=handles, fontsize=7)


def _plain_ticks(axes: "Axes", scale: str) -> None:
    """Plain numbers as tick labels; matplotlib would typeset powers as mathematics."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    low, high = axes.get_xlim()
    if scale == "log" and low > 0 and high < 100 * low:  # one decade has too few powers of ten for reading values
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 30 * low else (1.0, 3.0)))


def distribution(groups: Mapping[str, Mapping[str, np.ndarray]], name: str, unit: str, ax: Any = None) -> Any:
    """Histograms of a factor for memorized (filled) and other (outlined) sequences, one panel per category.

    Args:
        groups: category to `memorized` and `rest`, each the finite values of the factor.
        name: the factor.
        unit: unit of the factor, for the axis.
        ax: one axes per category.
    """
    values = np.concatenate([part for group in groups.values() for part in group.values()]).astype(float)
    low, high = values.min(), values.max()
    with style():
        all_axes = panels(ax, 2.6, 1, len(groups), sharex=True, sharey=True)[0]
        is_log = name in COLUMNS and COLUMNS[name].scale == "log"
        if high - low <= 30 and max(abs(low), abs(high)) < 2**50 and (values == np.round(values)).all():
            # One bin per whole number; other bins would contain now one number and now none.
            bins, scale = np.arange(low - 0.5, high + 1), "linear"
        elif is_log and low > 0 and high > 3 * low:
            bins, scale = np.geomspace(low, high * 1.0001, 31), "log"
        elif is_log and low >= 0 and high > 100:
            bins, scale = np.concatenate([[0], np.geomspace(1, high * 1.0001, 30)]), "symlog"
        else:
            bins, scale = np.linspace(low, high if high > low else low + 1, 31), "linear"
        for axes, (category, group) in zip(all_axes, groups.items(), strict=True):
            color = COLORS.get(category, GREY)
            for key, options in (
                ("rest", {"histtype": "step", "color": "#444444", "lw": 1.3}),
                ("memorized", {"histtype": "stepfilled", "color": color, "alpha": 0.75}),
            ):
                part = group[key]
                if len(part):
                    text = f"{'memorized' if key == 'memorized' else 'not memorized'} ({count(len(part))})"
                    axes.hist(part, bins, weights=np.full(len(part), 1 / len(part)), label=text, **options)
            axes.set_title(label(category))
            axes.set_xscale(scale, **({"linthresh": 1} if scale == "symlog" else {}))
            _plain_ticks(axes, scale)
            axes.margins(y=0.3)
            axes.legend(loc="upper right", fontsize=7.5, handlelength=1.2)
        all_axes[0].yaxis.set_major_formatter(percent_ticks())
        all_axes[0].set_ylabel("share of sequences")
        _label_below(all_axes, f"{label(name)} ({unit})" if unit not in name else label(name), ax is None)
        return all_axes
