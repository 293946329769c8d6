"""The horizontal axis of a series: checkpoints in order, or models by size, equally spaced."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memtax.report import words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_LABELS = 8
_CHARACTER = 0.071
"""Inches per character of a tick label."""
_USED = 0.85
"""Share of a panel's width that is inside its axes."""


@dataclass(frozen=True)
class Moments:
    """Members of a series in drawing order.

    Attributes:
        keys: model and checkpoint of each member.
        labels: short label of each member.
        said: each member in words.
        unit: meaning of the labels.
    """

    keys: tuple[tuple[Any, Any], ...]
    labels: tuple[str, ...]
    said: tuple[str, ...]
    unit: str

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], by: str | None) -> "Moments":
        """The members of a series that occur in the rows.

        Args:
            rows: with `model`, `checkpoint`, and the number given by `by`.
            by: `step` for time, `parameters` for size; None for a single model.
        """
        first: dict[tuple[Any, Any], Mapping[str, Any]] = {}
        for row in rows:
            first.setdefault(cls.key(row), row)
        if by is None:
            return cls(tuple(first), ("",) * len(first), ("the model",) * len(first), "")
        known = all(row.get(by) is not None for row in first.values())
        if known:
            models = list(dict.fromkeys(key[0] for key in first)) if by == "step" else [None]
            first = dict(sorted(first.items(), key=lambda item: (models.index(item[0][0]) if by == "step" else 0, item[1][by])))
        labels = tuple(words.short(row[by]) if known else str(row["checkpoint"])[-16:] for row in first.values())
        said = tuple(words.moment(row, by) for row in first.values())
        names = {"step": "optimizer steps", "parameters": "parameters"}
        return cls(tuple(first), labels, said, names[by] if known else {"step": "checkpoint", "parameters": "model"}[by])

    @staticmethod
    def key(row: Mapping[str, Any]) -> tuple[Any, Any]:
        """The member that a row belongs to."""
        return row.get("model"), row.get("checkpoint")

    @property
    def single(self) -> bool:
        """Whether there is only one member."""
        return len(self.keys) == 1

    def place(self, row: Mapping[str, Any]) -> float:
        """Horizontal position of a row."""
        return self.place_of(self.key(row))

    def place_of(self, key: tuple[Any, Any]) -> float:
        """Horizontal position of a member."""
        return float(self.keys.index(key))

    def label_axis(self, axes: "Axes") -> None:
        """Add as many tick labels as fit, and the axis label."""
        step = -(-len(self.labels) // _MOST_LABELS)
        shown = self.labels[::step]
        turned: dict[str, Any] = {"rotation": 30, "ha": "right"} if max(map(len, shown)) > 5 else {}
        if crowded(axes, shown):
            turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(range(0, len(self.labels), step), shown, fontsize=8, **turned)
        axes.set_xlim(-0.6, len(self.labels) - 0.4)
        axes.set_xlabel(self.unit)


def crowded(axes: "Axes", labels: Sequence[str]) -> bool:
    """Whether labels side by side would touch in panels of equal width."""
    figure, place = axes.figure, axes.get_subplotspec()
    columns = 1 if place is None else place.get_gridspec().ncols
    return sum(len(label) + 1 for label in labels) * _CHARACTER > _USED * float(figure.bbox.width / figure.dpi) / columns
