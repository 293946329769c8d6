"""The growth figure: the memorized share at each checkpoint, or for each model of a series."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from memtax.report.figures import COLORS, TEXT_COLORS, error_bars, panels, percent_ticks, style
from memtax.report.words import label, short
from memtax.schema import CATEGORIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def growth(rows: Sequence[Mapping[str, Any]], by: str = "step", ax: "Axes | None" = None) -> "Axes":
    """The memorized share by category over checkpoints or models, with intervals as bands.

    Args:
        rows: `checkpoint`, the number given by `by` (or None), `category`, `rate`, `low`, `high`, in order.
        by: `step` for time, `parameters` for size (on a logarithmic axis).
        ax: axes to draw on.
    """
    checkpoints = list(dict.fromkeys(row["checkpoint"] for row in rows))
    values: dict[str, Any] = {row["checkpoint"]: row.get(by) for row in rows}
    numeric = all(value is not None for value in values.values())
    if numeric and by == "parameters":
        checkpoints.sort(key=lambda name: values[name])
        numeric = _apart([values[name] for name in checkpoints])
    places = {name: float(values[name]) if numeric else float(place) for place, name in enumerate(checkpoints)}
    with style():
        axes: Axes = panels(ax, 3.4)[0, 0]
        ends: list[tuple[float, str]] = []
        for name in [*CATEGORIES, "all"]:
            own = [row for row in rows if row["category"] == name and row.get("rate") is not None]
            if not own:
                continue
            own.sort(key=lambda row: places[row["checkpoint"]])
            x = [places[row["checkpoint"]] for row in own]
            y = [row["rate"] for row in own]
            below, above = error_bars(own, "rate")
            color = COLORS[name]
            axes.plot(x, y, color=color, marker="o", ms=4, lw=1.8, ls="--" if name == "all" else "-")
            axes.fill_between(x, y - below, y + above, color=color, alpha=0.15, lw=0)
            ends.append((y[-1], name))
        _end_labels(axes, ends)
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(percent_ticks())
        axes.set_ylabel("share memorized")
        if numeric and by == "parameters":
            axes.set_xscale("log")
            axes.set_xticks(sorted(set(places.values())), [short(place) for place in sorted(set(places.values()))])
            axes.minorticks_off()
            axes.set_xlabel("parameters")
        elif numeric:
            axes.set_xlabel("optimizer steps")
        else:
            sizes = {name: f"\n{short(values[name])}" if by == "parameters" and values[name] else "" for name in checkpoints}
            turned: dict[str, Any] = {"rotation": 20, "ha": "right"} if len(checkpoints) > 5 else {}
            axes.set_xticks(range(len(checkpoints)), [name[-24:] + sizes[name] for name in checkpoints], **turned)
            axes.set_xlabel("checkpoint" if by == "step" else "model and its parameters" if any(sizes.values()) else "model")
        return axes


def _apart(sizes: Sequence[float]) -> bool:
    """Whether sizes are ascending and far enough apart on a logarithmic axis for their labels."""
    steps = [math.log(after / before) for before, after in itertools.pairwise(sizes)]
    return not steps or min(steps) > 0.06 * sum(steps)


def _end_labels(axes: "Axes", ends: list[tuple[float, str]]) -> None:
    """Label each line at its right end, moving labels apart if lines end close together."""
    place = -1.0
    for value, name in sorted(ends):
        place = max(value, place + 0.065)
        axes.annotate(
            label(name),
            (1.01, place),
            xycoords=("axes fraction", "data"),
            color=TEXT_COLORS[name],
            va="center",
            fontweight="bold",
            annotation_clip=False,
        )
