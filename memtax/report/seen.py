"""The parts on the order of training: memorized against time since last seen, and what checkpoints gained and lost."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from memtax.report import figures, words
from memtax.report.parts import Panel, Table
from memtax.report.words import count, percent, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOOKS = {
    "all": (figures.COLORS["all"], "D", "--", "all sequences"),
    "once": (figures.SERIES[0], "o", "-", "occur once"),
    "few": (figures.SERIES[1], "s", "-", "a few times"),
    "many": (figures.COLORS["recitation"], "^", "-", "more often (recitation)"),
}
"""Color, marker, line style and name of each group."""
FEWEST = 10
"""Sequences in a bin below which no point is drawn."""


def since_seen(rows: Sequence[Mapping[str, Any]]) -> list[Panel | Table]:
    """The figure of the last checkpoint, and the numbers of all."""
    if not rows:
        return []
    last = [row for row in rows if row["checkpoint"] == rows[-1]["checkpoint"]]
    over = words.over_most(last)
    caption = (
        f"Share memorized at {words.moment(last[0])} by the number of optimizer steps since the sequence was last seen: of all "
        "sequences, and of those whose continuation occurs equally often in the corpus, which holds duplicates fixed. Other "
        f"copies of a sequence may have been seen later. Whiskers: 95% intervals {over}; bins with fewer than "
        f"{FEWEST} sequences are left out."
    )
    table = tuple(
        (
            row["checkpoint"],
            LOOKS[row["group"]][3],
            _steps(row),
            count(row["sequences"]),
            count(row["memorized"]),
            percent(row["rate"]),
            words.interval(row),
        )
        for row in rows
    )
    head = ("checkpoint", "group", "steps since last seen", "sequences", "memorized", "share", "interval")
    return [
        Panel("since_seen", _conclusion(last), caption, curves(last)),
        Table("Memorized sequences by time since they were last seen", head, table, folded=True, texts=3),
    ]


def gained_and_lost(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """The table of what each checkpoint gained and lost."""
    table = tuple(
        (
            row["checkpoint"],
            row["before"],
            count(row["gained"]),
            count(row["memorized"]),
            count(row["sequences"]),
            percent(row["rate"]) if row["sequences"] else "",
            words.interval(row) if row["sequences"] else "",
        )
        for row in rows
    )
    head = ("checkpoint", "since", "newly memorized", "forgotten", "of memorized before", "share forgotten", "interval")
    return [Table("What each checkpoint memorized and forgot", head, table, folded=True, texts=2)] if rows else []


def curves(rows: Sequence[Mapping[str, Any]], ax: "Axes | None" = None) -> "Axes":
    """Memorized share by time since last seen, one line per group, with whiskers.

    Args:
        rows: of one checkpoint, as from `memtax.pipeline.seen.since_seen`.
        ax: axes to draw on.
    """
    bins = sorted({(row["from"], row["to"]) for row in rows}, key=lambda each: (each[0] is not None, each[0] or 0))
    with figures.style():
        axes: Axes = figures.panels(ax, 3.6)[0, 0]
        for at, (group, (color, marker, line, name)) in enumerate(LOOKS.items()):
            own = [row for row in rows if row["group"] == group and row["sequences"] >= FEWEST]
            if not own:
                continue
            # Groups side by side, so that whiskers do not cover each other; no line leads from what was not seen yet.
            places = [bins.index((row["from"], row["to"])) + 0.06 * (at - 1.5) for row in own]
            rates = [row["rate"] for row in own]
            ends = figures.error_bars(own, "rate")
            axes.errorbar(places, rates, yerr=ends, color=color, marker=marker, ls="", ms=4.5, elinewidth=1, capsize=2)
            seen = [place for place, row in enumerate(own) if row["from"] is not None]
            line_of = ([each[at] for at in seen] for each in (places, rates))
            axes.plot(*line_of, color=color, marker=marker, ms=4.5, ls=line, lw=1.5, label=name)
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(figures.percent_ticks())
        axes.set_ylabel("share memorized")
        names = [_steps({"from": low, "to": high}).replace(" to ", "\nto ") for low, high in bins]
        axes.set_xticks(range(len(bins)), names)
        axes.set_xlabel("optimizer steps since it was last seen")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=4)
        return axes


def _steps(row: Mapping[str, Any]) -> str:
    if row["from"] is None:
        return "not seen yet"
    return short(row["from"]) if row["from"] == row["to"] else f"{short(row['from'])} to {short(row['to'])}"


def _conclusion(rows: Sequence[Mapping[str, Any]]) -> str:
    """The shares of the bins seen last and first, with duplicates held fixed where possible."""
    for group in ("once", "all"):
        own = [row for row in rows if row["group"] == group and row["from"] is not None and row["sequences"] >= FEWEST]
        if len(own) > 1:
            own.sort(key=lambda row: row["from"])
            whose = "Of sequences that occur once" if group == "once" else "Of all sequences"
            return (
                f"{whose}, {percent(own[0]['rate'])} of those seen in the last {short(own[0]['to'])} steps "
                f"are memorized, and {percent(own[-1]['rate'])} of those last seen at least {short(own[-1]['from'])} steps ago"
            )
    return "Too few sequences for a comparison of times since they were last seen"
