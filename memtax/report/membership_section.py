"""The section on membership inference: attacks next to a baseline that never sees the model."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from memtax.membership.measure import kinds
from memtax.report import figures, words
from memtax.report.data import Run
from memtax.report.parts import Panel, Section, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEXT = (
    "Can training sequences be distinguished from held-out sequences by the model's probabilities alone? AUROC is "
    "the probability that a member scores above a held-out sequence. The blind baseline reads the texts, never the model: its "
    "AUROC reflects a difference between the two sets of texts, not membership."
)

_LINES = (*(figures.COLORS[name] for name in ("recitation", "reconstruction", "recollection", "baseline")), *figures.SERIES[:2])
"""Colors of curves, one per attack."""


def members(run: Run) -> Section:
    """Attacks, the blind baseline, and the conclusion."""
    found = run.metrics.get("membership")
    if not found:
        return Section(
            "members",
            "Who was in the training set",
            TEXT,
            missing=("Not measured: no sequences were held out (key held_out).",),
        )
    rows = [(words.label(name), metrics, metrics["verdict"]["reason"]) for name, metrics in found["attacks"].items()]
    rows.append(("blind baseline", found["blind"], found["blind"]["verdict"]["reason"]))
    text = f"{TEXT} {counts(found)}"
    table = Table(
        "Attacks and the baseline",
        ("score", "what it shows", "AUROC", "TPR at 1% FPR"),
        tuple((name, reason, words.estimate(row.get("auroc")), cell(row.get("tpr_at_fpr_0.01"))) for name, row, reason in rows),
        texts=2,
    )
    known = [(name, row["auroc"]) for name, row, _ in rows if row.get("auroc")]
    if not known:
        return Section("members", "Who was in the training set", text, (table,))
    panel = Panel(
        "membership",
        conclusion(found),
        "Dots: AUROC; whiskers: its interval, if there are enough units; dashed: chance.",
        attack_rows(known),
    )
    return Section("members", "Who was in the training set", text, (panel, table))


def conclusion(found: Mapping[str, Any]) -> str:
    """One-sentence summary of the attacks on a domain."""
    attacks = {name: row for name, row in found["attacks"].items() if row.get("auroc")}
    showing = [name for name in attacks if attacks[name]["verdict"]["shows_membership"]]
    if showing:
        best = max(showing, key=lambda name: attacks[name]["auroc"]["value"])
        value = attacks[best]["auroc"]["value"]
        return f"Members can be told: {words.label(best)} reaches {value:.2f}, more than the texts alone reach"
    blind, units = found["blind"].get("auroc"), found["units"]
    if attacks and blind and all(row["verdict"]["shows_membership"] is None for row in attacks.values()):
        best = max(attacks, key=lambda name: attacks[name]["auroc"]["value"])
        value = attacks[best]["auroc"]["value"]
        return (
            f"{words.label(best)} reaches {value:.2f}, the texts alone {blind['value']:.2f}: for these "
            f"{units['members']:,} and {units['nonmembers']:,} {units['name']} only, too few for an interval"
        )
    return "No attack shows membership: none beats both chance and the baseline that never sees the model"


def headline(domains: Mapping[str, Mapping[str, Any]]) -> str:
    """Summary of the attacks over all domains, in a few words."""
    showing = [one for one in domains.values() if any(row["verdict"]["shows_membership"] for row in one["attacks"].values())]
    if showing:
        several = f" in {words.count(len(showing))} of {words.count(len(domains))} domains"
        return "Membership can be inferred" + (several if len(domains) > 1 else "")
    decided = [
        row for one in domains.values() for row in one["attacks"].values() if row["verdict"]["shows_membership"] is not None
    ]
    if not decided:
        return "Too few texts or documents to say whether membership can be inferred"
    return "No attack shows membership beyond the blind baseline"


def counts(found: Mapping[str, Any]) -> str:
    """Numbers of texts and units behind the figures, in a sentence or two."""
    text = f"The unit of intervals, folds and tests is one of the {found['units']['name']}: {kinds(found)}."
    if test := found.get("set_test"):
        beside = "unknown" if test["blind_p_value"] is None else f"{test['blind_p_value']:.3g}"
        text += f" All attacks together (dataset inference): p = {test['p_value']:.3g}; the texts alone: p = {beside}."
    if feature := found["blind"].get("feature"):
        text += f" The blind baseline is the {feature['name']} alone"
        if classifier := feature.get("classifier"):
            text += f", which ranks members better than a classifier of the texts (AUROC {words.estimate(classifier)})"
        text += "."
    return text


def cell(metric: Mapping[str, Any] | None) -> str:
    """A metric with its interval, or the reason why it is withheld."""
    if metric and metric.get("value") is None and metric.get("reason"):
        return str(metric["reason"])
    return words.estimate(metric)


def attack_rows(rows: Sequence[tuple[str, Mapping[str, float]]], ax: "Axes | None" = None) -> "Axes":
    """A dot with its interval, one row per estimate.

    Args:
        rows: names and estimates.
        ax: axes to draw on.
    """
    with figures.style():
        axes: Axes = figures.panels(ax, 0.9 + 0.4 * len(rows))[0, 0]
        for place, (name, interval) in enumerate(rows):
            value, low, high = (interval[key] for key in ("value", "low", "high"))
            color = figures.GREY if name == "blind baseline" else figures.COLORS["recitation"]
            low, high = (value if low is None else low), (value if high is None else high)
            axes.errorbar(
                value, place, xerr=[[max(value - low, 0)], [max(high - value, 0)]], fmt="o", color=color, ms=7, capsize=3
            )
        axes.axvline(0.5, color=figures.GREY, lw=1, ls="--")
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("AUROC")
        return axes


def roc_curves(curves: Mapping[str, Mapping[str, Sequence[float]]], ax: "Axes | None" = None) -> "Axes":
    """ROC curves with logarithmic axes, which show the low false positive rates that matter (Carlini et al. 2022).

    Args:
        curves: for each score `fpr` and `tpr`.
        ax: axes to draw on.
    """
    with figures.style():
        axes: Axes = figures.panels(ax, 4.2)[0, 0]
        for place, (name, curve) in enumerate(curves.items()):
            again, color = divmod(place, len(_LINES))
            own = figures.GREY if name == "blind baseline" else _LINES[color]
            axes.plot(curve["fpr"], curve["tpr"], color=own, ls=("-", "--", ":")[again % 3], lw=1.8, label=name)
        lowest = min(min(curve["fpr"]) for curve in curves.values())
        axes.plot([lowest, 1], [lowest, 1], color=figures.GREY, lw=1, ls="--")
        axes.set(xscale="log", yscale="log", xlim=(lowest, 1), ylim=(lowest, 1.05), xlabel="false positive rate")
        axes.set_ylabel("true positive rate")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda rate, _: f"{100 * rate:g}%")
        axes.legend(loc="lower right", frameon=False)
        return axes
