"""Heat maps of the predictors of a series: factor weights and AUC by category, for each model or checkpoint."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from memtax.report import figures, words
from memtax.report.data import Run
from memtax.report.moments import Moments
from memtax.report.parts import Panel, Section, Table
from memtax.schema import CATEGORIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEXT = (
    "One predictor for each member of the series: logistic models of the factors that are known before training, fitted to "
    "what that member memorized. For these members only verdicts are computed, so perplexities are not among the factors. "
    "Each fit has its own split by document, stratified by what its member memorized."
)
_BY = {"checkpoints": "step", "models": "parameters"}


def fits(run: Run) -> Section | None:
    """Weights and AUC over training time and model size; None if no series was scored."""
    fitted = run.metrics.get("fits") or {}
    series = {name: fitted[name] for name in _BY if fitted.get(name)}
    if not series:
        return None
    parts: list[Panel | Table] = []
    missing: list[str] = []
    for name, members in series.items():
        moments = Moments.of(members, _BY[name])
        reasons = [f"{said}: {row['reason']}" for said, row in _in_order(members, moments) if "reason" in row]
        missing += [f"No predictor at {reason}." for reason in reasons]
        if len(reasons) < len(members):
            parts += _series([row for row in members if "reason" not in row], name, moments)
    return Section("fits", "Predicting memorization over time and size", TEXT, tuple(parts), tuple(missing))


def _in_order(members: Sequence[Mapping[str, Any]], moments: Moments) -> list[tuple[str, Mapping[str, Any]]]:
    by_key = {Moments.key(row): row for row in members}
    return [(said, by_key[key]) for key, said in zip(moments.keys, moments.said, strict=True) if key in by_key]


def _series(members: Sequence[Mapping[str, Any]], name: str, moments: Moments) -> list[Panel | Table]:
    what = "checkpoint" if name == "checkpoints" else "model"
    groups = [group for group in ("aggregate", *CATEGORIES) if any(group in row["auc"] for row in members)]
    areas = (
        "ROC-AUC of one model per category on test sequences, and below it the 95% interval over units of the test part, if "
        "available; a dash marks a withheld value, whose reason is in the table below. 0.5 is chance."
    )
    standardized = (
        "Coefficients of the standardized factors (log-odds per standard deviation): red raises the predicted probability of "
        "memorization, blue lowers it; a dash marks a missing model or a constant factor. No intervals are computed here."
    )
    return [
        Panel(f"fits_auc_{name}", _conclusion(members, moments), areas, auc(members, groups, moments)),
        _auc_table(members, groups, what),
        Panel(f"fits_weights_{name}", _heaviest(members, moments), standardized, weights(members, moments)),
        _weight_table(members, what),
    ]


def _conclusion(members: Sequence[Mapping[str, Any]], moments: Moments) -> str:
    known = [
        (said, row["auc"]["aggregate"]["value"])
        for said, row in _in_order(members, moments)
        if row["auc"]["aggregate"]["value"] is not None
    ]
    if not known:
        return "Too few test sequences for an AUC at any member of the series"
    (first, start), (last, end) = known[0], known[-1]
    if len(known) == 1:
        return f"ROC-AUC of all sequences at {first}: {words.fixed(start)}"
    return f"ROC-AUC of all sequences: {words.fixed(start)} at {first}, {words.fixed(end)} at {last}"


def _heaviest(members: Sequence[Mapping[str, Any]], moments: Moments) -> str:
    said, last = _in_order(members, moments)[-1]
    own = [row for row in last["coefficients"] if row["model"] == "baseline" and row["coefficient"] is not None]
    best = max(own, key=lambda row: abs(row["coefficient"]), default=None)
    return f"At {said}, {words.label(best['factor'])} weighs most for all sequences" if best else "Weights of the factors"


def _auc_table(members: Sequence[Mapping[str, Any]], groups: Sequence[str], what: str) -> Table:
    rows: list[tuple[str, ...]] = []
    for member in members:
        for group, cell in ((group, member["auc"][group]) for group in groups if group in member["auc"]):
            counts = tuple(words.count(cell[name]) for name in ("n", "positives", "units"))
            start = (str(member["checkpoint"]), words.label(group), *counts)
            if cell["value"] is None:
                rows.append((*start, f"withheld: {cell['reason']}"))
            else:
                span = words.span({**cell, "interval_reason": cell["reason"]})
                rows.append((*start, words.fixed(cell["value"]), span, cell["reason"] or words.DASH))
    head = (what, "group", "test sequences", "memorized", "units", "ROC-AUC", "its interval", "why withheld")
    return Table(f"ROC-AUC by {what} and category", head, tuple(rows), folded=True, texts=2)


def _weight_table(members: Sequence[Mapping[str, Any]], what: str) -> Table:
    rows = tuple(
        (str(member["checkpoint"]), words.label(row["model"]), words.label(row["factor"]), words.fixed(row["coefficient"]))
        for member in members
        for row in member["coefficients"]
    )
    head = (what, "predictor", "factor", "coefficient")
    return Table(f"Coefficients by {what} (log-odds per standard deviation)", head, rows, folded=True, texts=3)


def auc(members: Sequence[Mapping[str, Any]], groups: Sequence[str], moments: Moments, ax: Any = None) -> "Axes":
    """AUC of each category (rows) at each member (columns), from chance to 1.

    Args:
        members: the fitted members, from `memtax.pipeline.series_fits.fit_series`.
        groups: `aggregate` and categories, in order.
        moments: the members of the series as positions on the axis.
        ax: axes to draw on.
    """
    values = np.full((len(groups), len(moments.keys)), np.nan)
    texts = [[words.DASH] * values.shape[1] for _ in groups]
    for member in members:
        column = int(moments.place(member))
        for row, group in enumerate(groups):
            cell = member["auc"].get(group)
            if cell is not None and cell["value"] is not None:
                values[row, column] = cell["value"]
                low, high = cell["low"], cell["high"]
                span = "withheld" if low is None else f"{low:.2f}{words.DASH}{high:.2f}"
                texts[row][column] = f"{cell['value']:.2f}\n{span}"
    with figures.style():
        axes: Axes = figures.panels(ax, 0.9 + 0.5 * len(groups))[0, 0]
        _grid(axes, values, texts, ("Blues", 0.5, 1.0), moments)
        axes.set_yticks(range(len(groups)), [words.label(group) for group in groups])
        return axes


def weights(members: Sequence[Mapping[str, Any]], moments: Moments, ax: Any = None) -> Any:
    """Coefficients of the factors (rows) at each member (columns), one panel per predictor; arguments as in `auc`."""
    every = [(int(moments.place(member)), row) for member in members for row in member["coefficients"]]
    panels = [name for name in ("baseline", *CATEGORIES) if any(row["model"] == name for _, row in every)]
    factors = list(dict.fromkeys(row["factor"] for _, row in every))
    most = max((abs(row["coefficient"]) for _, row in every if row["coefficient"] is not None), default=1.0) or 1.0
    with figures.style():
        columns = min(len(panels), 2)
        lines = -(-len(panels) // columns)
        grid = figures.panels(ax, 0.5 + lines * (0.55 + 0.25 * len(factors)), lines, columns, sharex=True, sharey=True)
        for axes, panel in zip(grid.ravel(), panels, strict=False):
            values = np.full((len(factors), len(moments.keys)), np.nan)
            for column, row in every:
                if row["model"] == panel and row["coefficient"] is not None:
                    values[factors.index(row["factor"]), column] = row["coefficient"]
            texts = [[words.DASH if np.isnan(value) else _short(value) for value in line] for line in values]
            _grid(axes, values, texts, ("RdBu_r", -most, most), moments)
            axes.set_title(words.label(panel))
            axes.label_outer()
            axes.set_yticks(range(len(factors)), [words.label(factor) for factor in factors])
        for axes in grid.ravel()[len(panels) :]:
            axes.set_visible(False)
        return grid


def _short(value: float) -> str:
    digits = 2 if abs(value) < 10 else 0
    return f"{value:.{digits}f}".replace("-", words.MINUS)


def _grid(
    axes: "Axes", values: np.ndarray, texts: Sequence[Sequence[str]], scale: tuple[str, float, float], moments: Moments
) -> None:
    """Colored cells with their numbers, in a text color with a contrast of at least 4.5 to 1."""
    from matplotlib import colormaps

    name, low, high = scale
    shown = colormaps[name]((np.clip(values, low, high) - low) / ((high - low) or 1) * 0.9 + 0.05)
    shown[np.isnan(values)] = (0.95, 0.95, 0.95, 1)
    edges = [np.arange(size + 1) - 0.5 for size in values.shape]
    axes.pcolormesh(edges[1], edges[0], shown, edgecolors="white", linewidth=1)
    linear = np.where(shown[..., :3] <= 0.04045, shown[..., :3] / 12.92, ((shown[..., :3] + 0.055) / 1.055) ** 2.4)
    dark = linear @ np.array([0.2126, 0.7152, 0.0722]) < 0.1791
    size = 8 if values.shape[1] <= 8 else 6
    for row, column in np.ndindex(*values.shape):
        color = "white" if dark[row, column] else "black"
        axes.text(column, row, texts[row][column], ha="center", va="center", fontsize=size, color=color, linespacing=1.1)
    axes.grid(visible=False)
    moments.label_axis(axes)
    axes.set_xlim(-0.5, values.shape[1] - 0.5)
    axes.set_ylim(values.shape[0] - 0.5, -0.5)
    axes.tick_params(length=0)
