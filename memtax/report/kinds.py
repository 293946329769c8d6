"""The section on code and natural language: their shares among memorized sequences, and their memorized rates."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from memtax.report import figures, words
from memtax.report.data import Run
from memtax.report.moments import Moments, crowded
from memtax.report.parts import Panel, Section, Table
from memtax.schema import CATEGORIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOOKS = {
    "natural language": (figures.SERIES[0], "o", "-"),
    "code": (figures.SERIES[1], "s", "--"),
    "uncertain": (figures.SERIES[2], "^", ":"),
}
"""Color, marker and line style of each kind."""
FEWEST = 10
"""Minimum number of memorized sequences for a bar of shares."""
TEXT = (
    "Each sequence is natural language, code or uncertain, by the thresholds that come with the classifier. The share of a "
    "kind among memorized sequences depends on how common the kind is; P(memorized | kind) does not."
)
_BY = {"model": None, "checkpoints": "step", "models": "parameters"}


def kinds(run: Run) -> Section:
    """Code and natural language by category, over training time and model size."""
    measured = run.metrics.get("kinds") or {}
    series = {name: measured[name] for name in _BY if measured.get(name)}
    heading = "Code and natural language"
    if not series:
        return Section(
            "kinds", heading, TEXT, missing=("Not known: no classifier of code with thresholds was given (key code_model).",)
        )
    parts: list[Panel | Table] = []
    for name, rows in series.items():
        parts += _series(rows, name)
    return Section("kinds", heading, TEXT, tuple(parts))


def _series(rows: Sequence[Mapping[str, Any]], name: str) -> list[Panel | Table]:
    moments = Moments.of(rows, _BY[name])
    what = {"model": "model", "checkpoints": "checkpoint", "models": "model"}[name]
    drawn = [label for label in ("all", *CATEGORIES) if any(row["category"] == label for row in rows)]
    over = f"over {rows[0]['unit']}s, whose numbers are in the table"
    lines = (
        f"Share of each kind's sequences that are memorized; whiskers are 95% intervals {over}, omitted if there are too few."
    )
    bars = (
        f"Shares of the kinds among the memorized sequences of each category; the number above each bar is their count. Bars "
        f"of fewer than {FEWEST} sequences are omitted. The table has their intervals, {over}."
    )
    return [
        Panel(f"kinds_rates_{name}", _conclusion(rows, moments), lines, rates(rows, drawn, moments)),
        Panel(f"kinds_shares_{name}", _composition(rows, moments), bars, shares(rows, drawn, moments)),
        _table(rows, what),
    ]


def _last(rows: Sequence[Mapping[str, Any]], moments: Moments) -> dict[str, Mapping[str, Any]]:
    """Rows of all sequences at the last member of the series, by kind."""
    return {row["kind"]: row for row in rows if row["category"] == "all" and moments.key(row) == moments.keys[-1]}


def _conclusion(rows: Sequence[Mapping[str, Any]], moments: Moments) -> str:
    last = {name: row for name, row in _last(rows, moments).items() if name != "uncertain" and row["rate"] is not None}
    if len(last) < 2:
        return "How often code and natural language are memorized"
    (first, best), (second, other) = sorted(last.items(), key=lambda item: -item[1]["rate"])
    text = f"{words.percent(best['rate'])} of {first} and {words.percent(other['rate'])} of {second} is memorized"
    text += "" if moments.single else f" at {moments.said[-1]}"
    if best["low"] is None or other["high"] is None:
        return f"{text}, for these {best['unit']}s only"
    return text if best["low"] > other["high"] else f"{text}: the intervals overlap"


def _composition(rows: Sequence[Mapping[str, Any]], moments: Moments) -> str:
    row = _last(rows, moments).get("code")
    if row is None or row["part"]["rate"] is None:
        return "Kinds of text among memorized sequences"
    where = "" if moments.single else f" at {moments.said[-1]}"
    return f"Code is {words.percent(row['part']['rate'])} of {words.count(row['part']['sequences'])} memorized sequences{where}"


def _table(rows: Sequence[Mapping[str, Any]], what: str) -> Table:
    rate = ("P(memorized | kind)", "its interval", "over")
    head = (what, "group", "kind", "sequences", "memorized", *rate, "share of the memorized", "its interval")
    cells = tuple(
        (
            str(row["checkpoint"] or "the model"),
            words.label(row["category"]),
            row["kind"],
            words.count(row["sequences"]),
            words.count(row["memorized"]),
            words.percent(row["rate"]),
            words.interval(row),
            words.units(row),
            words.percent(row["part"]["rate"]),
            words.interval(row["part"]),
        )
        for row in rows
    )
    return Table(f"Code and natural language by {what} and category", head, cells, folded=True, texts=3)


def rates(rows: Sequence[Mapping[str, Any]], groups: Sequence[str], moments: Moments, ax: Any = None) -> Any:
    """P(memorized | kind) over the members of a series, one panel per category.

    Args:
        rows: from `memtax.predictor.kinds.kind_rates`, with `checkpoint`.
        groups: categories, in order.
        moments: the members of the series as positions on the axis.
        ax: one axes per category.
    """
    with figures.style():
        all_axes = figures.panels(ax, 3.0, 1, len(groups), sharey=True)[0]
        for axes, group in zip(all_axes, groups, strict=True):
            for shift, (kind, (color, marker, line)) in enumerate(LOOKS.items()):
                own = [row for row in rows if (row["category"], row["kind"]) == (group, kind) and row["rate"] is not None]
                if not own:
                    continue
                x = [moments.place(row) + 0.09 * (shift - 1) for row in own]
                y = [row["rate"] for row in own]
                bars = figures.error_bars(own, "rate")
                axes.errorbar(x, y, yerr=bars, color=color, marker=marker, ms=4, lw=1.5, ls=line, elinewidth=1, capsize=2)
            axes.set_title(words.label(group))
            axes.set_ylim(-0.03, 1.03)
            moments.label_axis(axes)
        all_axes[0].yaxis.set_major_formatter(figures.percent_ticks())
        all_axes[0].set_ylabel("P(memorized | kind)")
        _legend(all_axes, ax is None)
        return all_axes


def shares(rows: Sequence[Mapping[str, Any]], groups: Sequence[str], moments: Moments, ax: Any = None) -> Any:
    """Stacked shares of the kinds among memorized sequences, one panel per category; arguments as in `rates`."""
    with figures.style():
        all_axes = figures.panels(ax, 3.0, 1, len(groups), sharey=True)[0]
        totals = {group: _totals(rows, group, moments) for group in groups}
        turned: dict[str, Any] = {"ha": "center"}
        if any(
            crowded(axes, [words.short(total) for total in own.values()])
            for axes, own in zip(all_axes, totals.values(), strict=True)
        ):
            turned = {"ha": "left", "rotation": 45, "rotation_mode": "anchor"}
        for axes, group in zip(all_axes, groups, strict=True):
            for key, total in totals[group].items():
                place = moments.place_of(key)
                _stack(axes, place, [row for row in rows if row["category"] == group and moments.key(row) == key])
                axes.text(place, 1.02, words.short(total), va="bottom", fontsize=7, **turned)
            axes.set_title(words.label(group), pad=22 if "rotation" in turned else 14)
            axes.set_ylim(0, 1)
            axes.grid(visible=False, axis="x")
            moments.label_axis(axes)
        all_axes[0].yaxis.set_major_formatter(figures.percent_ticks())
        all_axes[0].set_ylabel("share of memorized sequences")
        _legend(all_axes, ax is None)
        return all_axes


def _totals(rows: Sequence[Mapping[str, Any]], group: str, moments: Moments) -> dict[tuple[Any, Any], int]:
    """Memorized sequences of a category by member, of those with enough for a bar."""
    totals = {moments.key(row): int(row["part"]["sequences"]) for row in rows if row["category"] == group}
    return {key: total for key, total in totals.items() if total >= FEWEST}


def _stack(axes: "Axes", place: float, own: Sequence[Mapping[str, Any]]) -> None:
    base = 0.0
    hatches = {"natural language": "", "code": "///", "uncertain": "..."}
    for kind, (color, _, _) in LOOKS.items():
        for row in (row for row in own if row["kind"] == kind):
            height = row["part"]["rate"] or 0.0
            axes.bar(place, height, bottom=base, width=0.72, color=color, hatch=hatches[kind], edgecolor="white", linewidth=0.6)
            base += height


def _legend(all_axes: Any, own: bool) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=color, marker=marker, ls=line, lw=1.8, ms=5, label=kind)
        for kind, (color, marker, line) in LOOKS.items()
    ]
    if own:
        figure = figures.figure_of(all_axes)
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    else:
        all_axes[-1].legend(handles=handles, fontsize=7)
