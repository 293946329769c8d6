"""The section on perplexity and duplicates: medians by number of duplicates, and divergence of memorized sequences."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from memtax.predictor.factors import FROM_SCORES
from memtax.report import figures, words
from memtax.report.data import Run
from memtax.report.parts import Panel, Section, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEXT = (
    "Memorized and other sequences whose continuation occurs equally often in the corpus. The symmetric Kullback-Leibler "
    "divergence between their distributions of perplexity is 0 if the two cannot be distinguished. "
    "Continuation and sequence perplexity use the same tokens as the target, so they differ by construction; "
    "prompt perplexity does not."
)
LOOKS = {
    "memorized": (figures.SERIES[0], "o", "-", "memorized"),
    "rest": (figures.SERIES[2], "s", "--", "not memorized"),
}
"""Color, marker, line style and name of each group."""
LINES = dict(zip(FROM_SCORES, zip(figures.SERIES, "os^", ("-", "--", ":"), strict=True), strict=True))


def perplexities(run: Run) -> Section:
    """Perplexity against duplicates."""
    found = run.metrics.get("perplexities") or {}
    medians, divergence = found.get("medians") or [], found.get("divergence") or []
    heading = "Perplexity and duplicates"
    if not medians:
        return Section("perplexities", heading, TEXT, missing=("This run's metrics contain no perplexities by duplicates.",))
    parts: list[Panel | Table] = []
    missing = []
    over = words.over_most(medians)
    if any(row["median"] is not None for row in medians):
        caption = (
            "Median perplexity by the number of times that the continuation occurs in the corpus; whiskers: 95% bootstrap "
            f"intervals {over}; hollow marks: too few for an interval. Groups of fewer than 10 sequences are left "
            "out."
        )
        parts.append(Panel("perplexities", _conclusion(medians), caption, median_panels(medians)))
    else:
        missing.append("No group of sequences is large enough for a median of perplexity.")
    head = ("perplexity", "duplicates", "group", "sequences", "over", "median", "its interval", "why withheld")
    parts.append(Table("Median perplexity by number of duplicates", head, tuple(map(_median_row, medians)), True, 3))
    if any(row["kl"] is not None for row in divergence):
        caption = (
            "Symmetric KL divergence (nats) between the perplexities of memorized and other sequences, in five bins of equal "
            f"counts, corrected for the bias from noise; whiskers: 95% bootstrap intervals {over}; hollow marks: uncorrected "
            "values without an interval."
        )
        parts.append(Panel("perplexity_divergence", _apart(divergence), caption, divergences(divergence)))
    else:
        missing.append("No number of duplicates has enough memorized and other sequences for a divergence.")
    head = ("perplexity", "duplicates", "memorized", "others", "over", "divergence (nats)", "its interval", "why withheld")
    caption = "KL divergence between memorized and other sequences by number of duplicates"
    parts.append(Table(caption, head, tuple(map(_divergence_row, divergence)), True, 2))
    return Section("perplexities", heading, TEXT, tuple(parts), tuple(missing))


def bin_label(row: Mapping[str, Any]) -> str:
    """The bin of duplicates in words: `1`, `3-5`, `10,001+`."""
    if row["to"] is None:
        return f"{words.count(row['from'])}+"
    if row["from"] == row["to"]:
        return words.count(row["from"])
    return f"{words.count(row['from'])}{words.DASH}{words.count(row['to'])}"


def _conclusion(medians: Sequence[Mapping[str, Any]]) -> str:
    """Number of bins in which memorized sequences have lower prompt perplexity, with intervals that do not overlap."""
    name = medians[0]["perplexity"]
    sides: dict[Any, dict[str, Mapping[str, Any]]] = {}
    for row in medians:
        if row["perplexity"] == name and row["low"] is not None:
            sides.setdefault(row["from"], {})[row["group"]] = row
    both = [pair for pair in sides.values() if len(pair) == 2]
    if not both:
        return "Perplexity by number of duplicates: too few documents for intervals of both groups"
    lower = sum(pair["memorized"]["high"] < pair["rest"]["low"] for pair in both)
    where = "bin" if len(both) == 1 else "bins"
    return (
        f"The median {words.label(name)} of memorized sequences is lower, with separate intervals, in {lower} of {len(both)} "
        f"{where} of duplicates"
    )


def _apart(divergence: Sequence[Mapping[str, Any]]) -> str:
    name = divergence[0]["perplexity"]
    known = [row for row in divergence if row["perplexity"] == name and row["low"] is not None]
    if not known:
        return "Divergence between memorized and other sequences, for these documents only"
    first, last = known[0], known[-1]
    text = f"Divergence of {words.label(name)}: {words.number(first['kl'])} nats at {bin_label(first)} duplicates"
    return text if first is last else f"{text}, {words.number(last['kl'])} at {bin_label(last)}"


def _median_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    group, sequences = LOOKS[row["group"]][3], words.count(row["sequences"])
    start = (words.label(row["perplexity"]), bin_label(row), group, sequences, words.units(row))
    if row["median"] is None:
        return (*start, f"withheld: {row['reason']}")
    return (*start, words.number(row["median"]), _span(row), row["reason"] or words.DASH)


def _divergence_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    memorized, rest = words.count(row["memorized"]), words.count(row["rest"])
    start = (words.label(row["perplexity"]), bin_label(row), memorized, rest, words.units(row))
    if row["kl"] is None:
        return (*start, f"withheld: {row['reason']}")
    return (*start, words.number(row["kl"]), _span(row), row["reason"] or words.DASH)


def _span(row: Mapping[str, Any]) -> str:
    return "withheld" if row["low"] is None else f"{words.number(row['low'])} to {words.number(row['high'])}"


def median_panels(medians: Sequence[Mapping[str, Any]], ax: Any = None) -> Any:
    """Median perplexity (logarithmic) against bins of duplicates, one panel per perplexity.

    Args:
        medians: from `memtax.predictor.perplexities.perplexities_by_duplicates`.
        ax: one axes per perplexity.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    names = [name for name in FROM_SCORES if any(row["perplexity"] == name for row in medians)]
    bins = _bins(medians)
    with figures.style():
        all_axes = figures.panels(ax, 3.2, 1, len(names), sharey=True)[0]
        for axes, name in zip(all_axes, names, strict=True):
            for shift, (group, (color, marker, line, label)) in enumerate(LOOKS.items()):
                own = [row for row in medians if (row["perplexity"], row["group"]) == (name, group) and row["median"]]
                _draw(axes, own, bins, "median", (color, marker, line, label), 0.12 * (2 * shift - 1))
            axes.set_title(words.label(name))
            axes.set_yscale("log")
            _label_bins(axes, bins)
        low, high = all_axes[0].get_ylim()
        all_axes[0].yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0) if high < 10 * low else (1.0, 3.0)))
        all_axes[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: words.number(value)))
        all_axes[0].yaxis.set_minor_formatter(NullFormatter())
        all_axes[0].set_ylabel("median perplexity")
        figures.figure_of(all_axes).legend(*all_axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        return all_axes


def divergences(rows: Sequence[Mapping[str, Any]], ax: "Axes | None" = None) -> "Axes":
    """Divergence against bins of duplicates, one line per perplexity.

    Args:
        rows: the `divergence` of `memtax.predictor.perplexities.perplexities_by_duplicates`.
        ax: axes to draw on.
    """
    bins = [row for row in _bins(rows) if any(bin_label(other) == row and other["kl"] is not None for other in rows)]
    with figures.style():
        axes: Axes = figures.panels(ax, 3.0)[0, 0]
        for shift, (name, look) in enumerate(LINES.items()):
            own = [row for row in rows if row["perplexity"] == name and row["kl"] is not None]
            _draw(axes, own, bins, "kl", (*look, words.label(name)), 0.1 * (shift - 1))
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        _label_bins(axes, bins)
        axes.set_ylabel("symmetric KL divergence (nats)")
        axes.legend(loc="best", fontsize=7.5)
        return axes


def _bins(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [bin_label(row) for row in {row["from"]: row for row in sorted(rows, key=lambda row: row["from"])}.values()]


def _draw(
    axes: "Axes",
    rows: Sequence[Mapping[str, Any]],
    bins: Sequence[str],
    key: str,
    look: tuple[str, str, str, str],
    shift: float,
) -> None:
    """A line with whiskers; marks without an interval are hollow."""
    color, marker, line, label = look
    if not rows:
        return
    x = [bins.index(bin_label(row)) + shift for row in rows]
    y = [row[key] for row in rows]
    axes.errorbar(x, y, yerr=figures.error_bars(rows, key), color=color, ls=line, lw=1.4, elinewidth=1.2, capsize=2, label=None)
    for place, row in zip(x, rows, strict=True):
        face = color if row["low"] is not None else "white"
        axes.plot(place, row[key], marker=marker, ms=5, color=color, markerfacecolor=face, ls="")
    axes.plot([], [], marker=marker, ms=5, color=color, ls=line, label=label)


def _label_bins(axes: "Axes", bins: Sequence[str]) -> None:
    turned: dict[str, Any] = {"rotation": 30, "ha": "right"} if len(bins) > 5 else {}
    axes.set_xticks(range(len(bins)), bins, **turned)
    axes.set_xlim(-0.5, len(bins) - 0.5)
    axes.set_xlabel("duplicates of the continuation in the corpus")
