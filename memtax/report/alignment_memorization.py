"""Gradient alignment against memorization, as the hexagonal histogram of Paramem."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from memtax.attribution.alignment_memorization import FEWEST, points
from memtax.report import figures, words
from memtax.report.parts import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABELS = {
    "memorization_score": "memorization score (share of generated tokens that are correct)",
    "exact_memorization": "exact memorization (share of continuation tokens that are the argmax)",
}
CELLS = 24
"""Number of hexagons along the alignment axis."""


def against_memorization(found: Mapping[str, Any], table: pa.Table | None) -> tuple[tuple[Panel, ...], tuple[str, ...]]:
    """The figure of alignment against memorization, or the reason why it is withheld; neither without a memorization score.

    Args:
        found: from `memtax.attribution.alignment_memorization.agreement`; empty if there is no score.
        table: `gradient_alignment` and the score of each text.
    """
    both = None if table is None or not found else points(table)
    if both is None:
        return (), ()
    if found["texts"] < FEWEST:
        return (), (f"Alignment is not plotted against memorization: {found['reason']}.",)
    name, values = both
    caption = (
        f"{words.count(found['texts'])} texts that have both, from {words.units(found)}; darker hexagons contain more "
        f"texts. {_correlation(found)} Dashed: the limits of low and high alignment (0.3 and 0.7)."
    )
    return (Panel("alignment-memorization", _conclusion(found), caption, hexagons(values, LABELS[name])),), ()


def _conclusion(found: Mapping[str, Any]) -> str:
    value, low, high = (found[key] for key in ("spearman", "low", "high"))
    if value is None:
        return "Gradient alignment against memorization"
    number = f"Spearman {words.fixed(value)}"
    if low is None:
        return f"Gradient alignment against memorization: {number}, for these texts only"
    if low <= 0 <= high:
        return f"Gradient alignment is not clearly associated with memorization: {number}, with an interval that includes 0"
    return f"Gradient alignment is {'higher' if value > 0 else 'lower'} where more of a text is memorized: {number}"


def _correlation(found: Mapping[str, Any]) -> str:
    if found["spearman"] is None:
        return f"No correlation: {found['reason']}."
    if found["low"] is None:
        return f"Spearman {words.fixed(found['spearman'])}; no interval: {found['reason']}."
    return f"Spearman {words.fixed(found['spearman'])} (95% interval {words.span(found)}, over {words.units(found)})."


def hexagons(values: np.ndarray, label: str, ax: "Axes | None" = None) -> "Axes":
    """Texts by alignment and memorization, counted in hexagons.

    Args:
        values: (texts, 2), alignment and a share; texts with a NaN are dropped.
        label: label of the share.
        ax: axes to draw on.
    """
    from matplotlib import colormaps
    from matplotlib.colors import BoundaryNorm, ListedColormap

    with figures.style():
        axes: Axes = figures.panels(ax, 4.2)[0, 0]
        kept = values[np.isfinite(values).all(axis=1)]
        least = min(0.0, float(np.floor(10 * kept[:, 0].min()) / 10))
        cells = axes.hexbin(
            kept[:, 0],
            kept[:, 1],
            gridsize=(CELLS, 10),
            extent=(least, 1, 0, 1),
            mincnt=1,
            edgecolors="#30475E",
            linewidths=0.4,
        )
        counts: Any = cells.get_array()
        bounds = _bounds(float(counts.max()))
        # The lightest blue must still be distinguishable from white.
        shades = colormaps["Blues"](np.linspace(0.25, 1, len(bounds) - 1))
        cells.set_cmap(ListedColormap(shades))
        cells.set_norm(BoundaryNorm(bounds, len(bounds) - 1))
        for limit in (0.3, 0.7):
            axes.axvline(limit, color=figures.GREY, lw=1, ls="--", zorder=0)
        axes.set_xlim(least - 0.05, 1.05)
        axes.set_ylim(-0.08, 1.08)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        axes.set_xlabel("gradient alignment (mean cosine of a text's gradient with those of its paraphrases)")
        axes.set_ylabel("\n(".join(label.split(" (", 1)))
        bar = axes.figure.colorbar(cells, ax=axes, pad=0.01, spacing="uniform", ticks=bounds[:-1])
        bar.set_ticklabels([words.count(bound) for bound in bounds[:-1]])
        bar.ax.minorticks_off()
        bar.set_label("texts per hexagon, at least")
        return axes


def _bounds(most: float) -> list[float]:
    """Boundaries of the shades: 1, 2, 5, 10, 20 and so on up to the largest count; at least two shades."""
    bounds = [1.0, 2.0]
    while bounds[-1] <= most or len(bounds) < 3:
        bounds.append(bounds[-1] * (2.5 if str(bounds[-1])[0] == "2" else 2))
    return bounds
