"""Comparison of two runs over the same sequences: before and after deduplication, unlearning or training, or two models."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from memtax import schema, statistics
from memtax.errors import MemtaxError
from memtax.progress import agree, numbered
from memtax.report import figures, plain, words
from memtax.report.pairing import pair_rows, read_run, shared_units
from memtax.report.parts import Panel, Section, Table
from memtax.report.quoting import quotable
from memtax.results import read_summary, read_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 20
"""Number of changed sequences quoted on the page, per direction."""
_EXCERPT = 240
CHANGES = ("newly memorized", "forgotten")


@dataclass(frozen=True)
class Comparison:
    """Result of `compare`."""

    summary: Mapping[str, Any]
    """The figures."""
    changed: pa.Table
    """`sequence_id`, `change`, both categories, and the text if known."""

    def groups(self) -> pa.Table:
        """Rates before and after by category, and their difference, as a table."""
        rows = []
        for name, group in self.summary["groups"].items():
            counts = {key: group[key] for key in ("sequences", "unit", "units", "newly", "forgotten", "p")}
            rates = {
                f"{key}_{end}": group[key][end] for key in ("first", "second", "difference") for end in ("value", "low", "high")
            }
            rows.append({"category": name, **counts, **rates})
        return pa.Table.from_pylist(rows)

    def lines(self) -> list[str]:
        """Summary lines for the terminal."""
        found = self.summary["groups"]["all"]
        return [
            _shared(self.summary),
            f"memorized {words.percent(found['first']['value'])} before, {words.percent(found['second']['value'])} after: "
            f"difference {_points(found['difference'])}",
            f"{found['newly']:,} newly memorized, {found['forgotten']:,} forgotten, sign-flip p over {words.units(found)} = "
            f"{_p(found['p'])}",
            *_came_back(self.summary),
        ]


def compare(first: Path | str, second: Path | str, *, show_personal_data: bool = False) -> Comparison:
    """Compare what two runs memorized, sequence by sequence.

    Sequences are matched by `sequence_id`. If the same id has other tokens in the other run, as after deduplication, they are
    matched by their tokens; among equal sequences in a run, the first is used.

    Args:
        first: the directory of a run or audit, or a Parquet file with `sequence_id` and `is_memorized` (such as the output of
            `memtax score`).
        second: another one, over all or some of the same sequences.
        show_personal_data: quote texts unmasked; otherwise personal data is masked, unless both are audits that show it.

    Returns:
        The changes.

    Raises:
        MemtaxError: a run cannot be read, has repeated ids, or shares no sequence with the other.
    """
    one, two = (read_run(Path(path), show_personal_data) for path in (first, second))
    at_one, at_two, matched_by = pair_rows(one, two)
    before, after = one.memorized[at_one], two.memorized[at_two]
    scored = np.array([a is not None and b is not None for a, b in zip(before, after, strict=True)], bool)
    if not scored.any():
        raise MemtaxError(f"{first} and {second} share {len(at_one)} sequences, none with a verdict in both")
    at_one, at_two = at_one[scored], at_two[scored]
    was, now = before[scored].astype(bool), after[scored].astype(bool)
    old, new = one.taxonomy[at_one], two.taxonomy[at_two]
    groups = {"all": np.ones(len(old), bool)} | {name: old == name for name in schema.CATEGORIES}
    moved = was != now
    units = shared_units(one, two, at_one, at_two)
    show = show_personal_data or (one.shown and two.shown)
    quoted, rows = (two, at_two[moved]) if two.texts is not None else (one, at_one[moved])
    changed = {
        "sequence_id": one.ids[at_one][moved],
        **({"sequence_id_after": two.ids[at_two][moved]} if matched_by == "tokens" else {}),
        "change": pa.array([CHANGES[0] if yes else CHANGES[1] for yes in now[moved]], pa.string()),
        "taxonomy_before": pa.array(old[moved].tolist(), pa.string()),
        "taxonomy_after": pa.array(new[moved].tolist(), pa.string()),
    }
    if quoted.texts is not None:
        texts, documents = quoted.texts.tolist(), quoted.documents.tolist()
        changed["text"] = pa.array(quotable(texts, documents, rows.tolist(), show=show, masked=quoted.masked), pa.string())
    summary = {
        "personal_data_shown": show,
        "first": one.about,
        "second": two.about,
        "matched_by": matched_by,
        "sequences": len(old),
        "only_in_first": one.distinct(matched_by) - len(scored),
        "only_in_second": two.distinct(matched_by) - len(scored),
        "without_verdict": int((~scored).sum()),
        "groups": {name: _group(was[rows], now[rows], units[rows]) for name, rows in groups.items() if rows.any()},
        "transitions": _transitions(old, new, was, now),
    }
    return Comparison(summary, pa.table(changed))


def write(folder: Path | str) -> Path:
    """Write `index.html` for an output of `memtax compare`, from its summary and its table.

    Returns:
        The page.
    """
    summary = read_summary(folder, "compare")
    return plain.write_page(
        Path(folder) / "index.html",
        "What changed between two runs",
        "two runs compared",
        [("Before", str(summary["first"]["name"])), ("After", str(summary["second"]["name"]))],
        [_how_much(summary), _where(summary), _which(read_table(folder, "changes").to_pylist())],
        "Every number is in summary.json; every changed sequence in dataset/changes.",
        "Change of the share memorized, in percentage points",
        [_tile(name, group) for name, group in summary["groups"].items()],
    )


def _came_back(summary: Mapping[str, Any]) -> list[str]:
    """What came back of the data to forget when the model was relearned or rounded, in two audits of unlearning."""
    before, after = (summary[name].get("came_back", {}) for name in ("first", "second"))
    return [
        f"{state}: {a['memorized']:,} of {numbered(a['sequences'], 'forgotten sequence')} came back before, "
        f"{after[state]['memorized']:,} of {after[state]['sequences']:,} after"
        for state, a in before.items()
        if state in after
    ]


def _shared(summary: Mapping[str, Any]) -> str:
    """Number of compared sequences, as text."""
    if summary["matched_by"] == "sequence_id":
        return f"{numbered(summary['sequences'], 'sequence')} in both runs"
    return f"{numbered(summary['sequences'], 'distinct sequence')} in both runs, matched by their tokens"


def _group(was: np.ndarray, now: np.ndarray, units: statistics.Units) -> dict[str, Any]:
    """Rates and their difference over units; `independent` assumes that sequences are independent."""
    both, forgotten, newly = int((was & now).sum()), int((was & ~now).sum()), int((~was & now).sum())
    rows, change = len(was), now.astype(float) - was.astype(float)
    paired = statistics.paired_difference(both, forgotten, newly, rows - both - forgotten - newly)
    return {
        "sequences": rows,
        "unit": units.name,
        "units": units.count,
        "first": _value(float(was.mean()), statistics.cluster_rate(was, units.codes)),
        "second": _value(float(now.mean()), statistics.cluster_rate(now, units.codes)),
        "difference": _value(paired.value, statistics.cluster_difference(was, now, units.codes)),
        "newly": newly,
        "forgotten": forgotten,
        "p": statistics.sign_flip_test(change, units.codes),
        "reason": statistics.withheld(units),
        "independent": {"difference": asdict(paired), "mcnemar_p": statistics.mcnemar(newly, forgotten)},
    }


def _value(value: float, interval: statistics.Interval | None) -> dict[str, float | None]:
    """A number with its interval; the bounds are None if it is withheld."""
    return {"value": value, "low": interval.low if interval else None, "high": interval.high if interval else None}


def _transitions(old: np.ndarray, new: np.ndarray, was: np.ndarray, now: np.ndarray) -> list[dict[str, Any]]:
    """Number of sequences by state before and after; a state is a category, or `not memorized`."""
    states = (*schema.CATEGORIES, "uncategorized", "not memorized")

    def state(category: object, memorized: object) -> str:
        return (str(category) if category is not None else "uncategorized") if memorized else "not memorized"

    found: dict[tuple[str, str], int] = {}
    for a, x, b, y in zip(old, was, new, now, strict=True):
        key = state(a, x), state(b, y)
        found[key] = found.get(key, 0) + 1
    order = {name: place for place, name in enumerate(states)}
    keys = sorted(found, key=lambda key: (order[key[0]], order[key[1]]))
    return [{"before": before, "after": after, "sequences": found[before, after]} for before, after in keys]


def _points(interval: Mapping[str, float | None]) -> str:
    """A difference of rates in percentage points, with its interval."""
    value, low, high = (
        None if interval[key] is None else f"{100 * (interval[key] or 0):+.1f}".replace("-", words.MINUS)
        for key in ("value", "low", "high")
    )
    return f"{value} points (interval withheld)" if low is None else f"{value} points ({low} to {high})"


def _p(value: float) -> str:
    return "below 0.0001" if value < 1e-4 else f"{value:.2g}"


def _tile(name: str, group: Mapping[str, Any]) -> dict[str, str]:
    change, interval = _points(group["difference"]).split(" points ")
    return {
        "group": name,
        "label": words.label(name),
        "value": change,
        "count": f"{group['newly']:,} newly, {group['forgotten']:,} forgotten",
        "interval": f"{interval.strip('()').removeprefix('interval ')} ({words.units(group)})",
    }


def _how_much(summary: Mapping[str, Any]) -> Section:
    found = summary["groups"]
    rows = tuple(
        (
            words.label(name),
            words.count(group["sequences"]),
            words.percent(group["first"]["value"]),
            words.percent(group["second"]["value"]),
            _points(group["difference"]),
            words.units(group),
            words.count(group["newly"]),
            words.count(group["forgotten"]),
            _p(group["p"]),
            _points(group["independent"]["difference"]),
            _p(group["independent"]["mcnemar_p"]),
        )
        for name, group in found.items()
    )
    head = (
        *(
            "category before",
            "sequences",
            "before",
            "after",
            "difference",
            "over",
            "newly memorized",
            "forgotten",
            "sign-flip p",
        ),
        *("difference if sequences were independent", "McNemar p then"),
    )
    left_out = [
        f"{numbered(summary[key], 'sequence', 'is')} {text} and left out."
        for key, text in (
            ("only_in_first", "only in the first run"),
            ("only_in_second", "only in the second run"),
            ("without_verdict", "without a verdict in one of the runs"),
        )
        if summary[key]
    ]
    text = (
        f"{_shared(summary)}. Differences have paired 95% intervals over {words.units(found['all'])} (Newcombe's interval "
        "with the effective number of sequences); the test asks whether as many were forgotten as newly memorized, "
        "by flipping the sign of the change of whole units. The last columns contain the same interval and McNemar's exact "
        "test under independence of the sequences. The tests of the categories are not corrected for multiple testing."
    )
    panel = Panel(
        "change",
        _conclusion(found["all"]),
        "Dots: difference; whiskers: its paired interval over units.",
        difference_rows(found),
    )
    notes = (*left_out, *(f"{line[0].upper()}{line[1:]}." for line in _came_back(summary)))
    return Section("change", "How much changed", text, (panel, Table("By category", head, rows)), notes)


def _conclusion(group: Mapping[str, Any]) -> str:
    """One-sentence summary of the figure."""
    low, high = group["difference"]["low"], group["difference"]["high"]
    if low is None or high is None:
        few = f"{words.units(group)} {agree(group['units'], 'is')} too few"
        return f"{_points(group['difference'])} of all sequences: {few} to generalize beyond them"
    if low <= 0 <= high:
        return "No difference beyond chance: the interval of all sequences includes 0"
    return f"{'More' if low > 0 else 'Less'} is memorized after: {_points(group['difference'])} of all sequences"


def difference_rows(groups: Mapping[str, Mapping[str, Any]], ax: "Axes | None" = None) -> "Axes":
    """Differences with intervals, one row per category.

    Args:
        groups: category to `difference` with its interval.
        ax: axes to draw on.
    """
    with figures.style():
        axes: Axes = figures.panels(ax, 0.8 + 0.42 * len(groups))[0, 0]
        for place, (name, group) in enumerate(groups.items()):
            value = 100 * group["difference"]["value"]
            low, high = (
                value if group["difference"][key] is None else 100 * group["difference"][key] for key in ("low", "high")
            )
            color = figures.COLORS.get(name, figures.GREY)
            axes.errorbar(
                value, place, xerr=[[max(value - low, 0)], [max(high - value, 0)]], fmt="o", color=color, ms=7, capsize=3
            )
        axes.axvline(0, color=figures.GREY, lw=1, ls="--")
        axes.set_yticks(range(len(groups)), [words.label(name) for name in groups])
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_xlabel("change of the share memorized (percentage points)")
        return axes


def _where(summary: Mapping[str, Any]) -> Section:
    rows = tuple((row["before"], row["after"], words.count(row["sequences"])) for row in summary["transitions"])
    text = "State of each sequence before and after. A memorized sequence counts under its category in that run."
    return Section(
        "transitions", "Where sequences went", text, (Table("Transitions", ("before", "after", "sequences"), rows, texts=2),)
    )


def _which(rows: Sequence[Mapping[str, Any]]) -> Section:
    """Examples of changed sequences, in both directions."""
    parts, missing = [], []
    for change in CHANGES:
        chosen = [row for row in rows if row["change"] == change]
        # The category in the run in which the sequence is memorized.
        category = "taxonomy_after" if change == CHANGES[0] else "taxonomy_before"
        if not chosen:
            missing.append(f"No sequence was {change}.")
            continue
        cells = tuple(
            (str(row["sequence_id"]), row[category] or words.DASH, (row.get("text") or words.DASH)[:_EXCERPT])
            for row in chosen[:SHOWN]
        )
        caption = f"{change}: {len(cells)} of {len(chosen):,}"
        parts.append(Table(caption, ("sequence", "category", "text"), cells, texts=3))
    return Section("sequences", "Which sequences", "All of them are in dataset/changes.", tuple(parts), tuple(missing))
