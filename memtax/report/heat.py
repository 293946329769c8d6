"""The heat map of long texts."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from memtax.report.figures import panels, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def heat(texts: Sequence[Mapping[str, Any]], ax: "Axes | None" = None) -> "Axes":
    """Probability that each part of a text can be extracted, one row per text.

    Args:
        texts: `text_id` and `heat`, the log p_z (nats) of equal parts of the text, None where no suffix reaches.
        ax: axes to draw on.
    """
    with style():
        axes: Axes = panels(ax, 1.3 + 0.36 * len(texts))[0, 0]
        for row, text in enumerate(texts):
            known = np.array([[np.nan if value is None else value / np.log(10) for value in text["heat"]]])
            image = axes.imshow(
                known,
                extent=(0, 100, row + 0.42, row - 0.42),
                aspect="auto",
                cmap="inferno",
                vmin=-10,
                vmax=0,
                interpolation="nearest",
            )
        axes.set_facecolor("#E4E4E4")
        axes.grid(visible=False)
        axes.set_xlim(0, 100)
        axes.set_ylim(len(texts) - 0.5, -0.5)
        axes.set_yticks(range(len(texts)), [f"text {text['text_id']}" for text in texts])
        axes.set_xlabel("position in the text (%)")
        bar = axes.figure.colorbar(image, ax=axes, pad=0.01)
        bar.set_label("log10 of the most likely suffix")
        return axes
