"""The pages of `memtax mia`, `align` and `influence`, in the report's design, from the files that each verb writes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memtax.membership.measure import representatives
from memtax.progress import agree, numbered
from memtax.report import attached_sections as attached
from memtax.report import figures, sections, words
from memtax.report import membership_section as membership
from memtax.report.parts import Panel, Quote, Section, Table
from memtax.report.plain import write_page
from memtax.results import read_summary, read_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DRAWN = 100
"""Test examples in the figure of influence."""
LABELED = 30
"""Most test examples whose ids are at the axis."""
OPEN = 3
"""Test examples whose first table is not folded."""
SHOWN = 200
"""Maximum number of test examples on the influence page; the tables contain all."""
EXCERPT = 400
"""Number of characters of a text that are shown."""
NAMES = {
    "auroc": "AUROC",
    "tpr_at_fpr_0.01": "TPR at 1% FPR",
    "tpr_at_fpr_0.05": "TPR at 5% FPR",
    "fpr_at_tpr_0.95": "FPR at 95% TPR",
}


def mia(folder: Path | str) -> Path:
    """Write `index.html` from the summary.

    Args:
        folder: output of `memtax mia`.

    Returns:
        The page.
    """
    folder = Path(folder)
    found = read_summary(folder, "mia")
    sections = [
        part for number, (name, one) in enumerate(found["domains"].items()) for part in _domain(number, name, one, found)
    ]
    return write_page(
        folder / "index.html",
        membership.headline(found["domains"]),
        "who was in the training set",
        [("Model", str(found["model"])), ("Attacks", ", ".join(map(words.label, found["attacks"]))), *_sources(found)],
        sections,
        "Every number is in summary.json, the score of every text in dataset/scores.",
    )


def _sources(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    reserved = ", ".join(f"{words.count(rows)} for {name}" for name, rows in found["reserved"].items() if rows)
    left_out = "; ".join(f"{words.label(name)} ({reason})" for name, reason in found.get("left_out", {}).items())
    given = (
        ("Scored tokens", "the assistant's, of each conversation" if found.get("answers") else None),
        ("Attacks left out", left_out),
        ("Reference model", found.get("reference_model")),
        ("Non-members set aside", reserved),
        ("Token probabilities of DC-PDD", found["frequencies"]),
    )
    return [(term, str(value)) for term, value in given if value]


def _domain(number: int, name: str, one: Mapping[str, Any], found: Mapping[str, Any]) -> list[Section]:
    """The attacks on a domain, and differences between its members and non-members."""
    title = "All texts" if name == "all" else name
    rows = [(words.label(attack), metrics) for attack, metrics in one["attacks"].items()]
    rows.append(("blind baseline", one["blind"]))
    text = f"{membership.TEXT} {membership.counts(one)} {words.say_paired(found.get('forced', {}))}".rstrip()
    cells = tuple(
        (
            label,
            metrics.get("verdict", {}).get("reason", "never sees the model"),
            *map(membership.cell, map(metrics.get, NAMES)),
        )
        for label, metrics in rows
    )
    parts: list[Panel | Table | Quote] = []
    drawn = {name: one["attacks"][name] for name, _ in representatives(one)} | {"blind baseline": one["blind"]}
    if known := [(words.label(attack), metrics["auroc"]) for attack, metrics in drawn.items() if metrics["auroc"]]:
        caption = "Dots: AUROC; whiskers: its interval; dashed: chance. For Min-K%, k = 20%; the table has all values of k."
        parts.append(Panel(f"attacks-{number}", membership.conclusion(one), caption, membership.attack_rows(known)))
    if curves := {words.label(name): metrics["roc"] for name, metrics in drawn.items() if metrics.get("roc")}:
        caption = "Both axes are logarithmic; dashed: chance. The curve begins where the number of non-members supports it."
        parts.append(
            Panel(f"roc-{number}", "Members found at each rate of false alarms", caption, membership.roc_curves(curves))
        )
    parts.append(Table("Attacks and the baseline", ("score", "what it shows", *NAMES.values()), cells, texts=2))
    differences = tuple(
        (words.label(key), *(_value(key, row[kind]) for kind in ("members", "nonmembers")), words.estimate(row["auroc"]))
        for key, row in one["shift"].items()
    )
    if differences:
        head = ("difference", "members", "non-members", "AUROC of it alone")
        parts.append(Table("Differences between members and non-members, independent of the model", head, differences))
    return [Section(f"domain-{number}", title, text, tuple(parts))]


def _value(measure: str, value: float | None) -> str:
    """A mean as text; years have no thousands separators."""
    return f"{value:.0f}" if measure == "latest_year" and value is not None else words.number(value)


def windows(folder: Path | str) -> Path:
    """Write `index.html` of `memtax score --stride` from its summary.

    Args:
        folder: the output.

    Returns:
        The page.
    """
    figures = read_summary(folder, "score")
    lengths = f"{figures['prompt']} + {figures['continuation']} tokens, every {figures['stride']}"
    return write_page(
        Path(folder) / "index.html",
        words.say_sliding(figures),
        "where long texts are memorized",
        [("Model", str(figures["model"])), ("Tokens", words.count(figures["tokens"])), ("Windows", lengths)],
        [sections.where(figures), *_census(figures.get("census"))],
        "Every number is in summary.json, every window in dataset/windows.",
    )


def _census(census: Mapping[str, Any] | None) -> list[Section]:
    """Windows beyond matched texts, if there are any."""
    text = (
        "If the matched texts were not in the training data, what the model gives of them is what it can predict of such "
        "texts. By construction none of their windows counts. Nothing is sampled, so there is no p-value; the comparison is as "
        "good as the match in author, genre and length."
    )
    return [
        Section("census", "Beyond matched texts", f"{said[0].upper()}{said[1:]}. {text}") for said in words.say_census(census)
    ]


def align(folder: Path | str) -> Path:
    """Write `index.html` from the dataset and `summary.json`.

    Args:
        folder: output of `memtax align`.

    Returns:
        The page.
    """
    folder = Path(folder)
    found = read_summary(folder, "align")
    table = read_table(folder, "alignment")
    section = attached.alignment(found, table)
    members = table.column("is_member").to_pylist() if "is_member" in table.column_names else [None] * table.num_rows
    groups: dict[str, list[float]] = {}
    for value, member in zip(table.column("gradient_alignment").to_pylist(), members, strict=True):
        if value is not None:
            groups.setdefault({None: "texts", True: "members", False: "non-members"}[member], []).append(value)
    if groups:
        caption = "Texts by their mean cosine with their paraphrases; dashed: the limits of low and high (0.3 and 0.7)."
        most = max(found["levels"], key=found["levels"].__getitem__)
        number, verb = found["levels"][most], agree(found["levels"][most], "has")
        title = f"{words.count(number)} of {numbered(found['aligned'], 'text')} {verb} {most} alignment"
        panel = Panel("alignment-texts", title, caption, cosines(groups))
        section = replace(section, parts=(panel, *section.parts))
    mean = "no text has a valid paraphrase" if found["mean"] is None else f"mean cosine {words.fixed(found['mean'])}"
    return write_page(
        folder / "index.html",
        f"Gradient alignment: {mean}",
        "gradients at texts and their paraphrases",
        [("Model", str(found["model"])), ("Parameters", found["parameters"]), ("Texts", words.count(found["texts"]))],
        [section, _lost(found)],
        "Every number is in summary.json, the values of every text in dataset/alignment.",
    )


def _lost(found: Mapping[str, Any]) -> Section:
    given = found["paraphrases"]
    rows = (
        ("paraphrases given", words.count(given["given"])),
        ("used", words.count(given["used"])),
        ("missing because they failed", words.count(given["missing"])),
        ("left out: the text itself", words.count(given["identical_to_the_text"])),
        ("texts cut to the model's length", words.count(found["cut"])),
    )
    text = "Values that could not be computed are missing, never replaced by a placeholder."
    return Section("gaps", "What was compared", text, (Table("Paraphrases and texts", ("what", "number"), rows),))


def cosines(groups: Mapping[str, Sequence[float]], ax: "Axes | None" = None) -> "Axes":
    """Histograms of cosines, one panel wide; groups differ in color and line style.

    Args:
        groups: name to values between -1 and 1.
        ax: axes to draw on.
    """
    from matplotlib.ticker import MaxNLocator

    with figures.style():
        axes: Axes = figures.panels(ax, 2.8)[0, 0]
        least = min(0.0, *(min(values) for values in groups.values()))
        edges = np.linspace(np.floor(10 * least) / 10, 1, 41)
        looks = (("recitation", "-"), ("recollection", "--"), ("held_out", ":"))
        for (name, values), (color, line) in zip(groups.items(), looks, strict=False):
            counts, _ = np.histogram(values, edges)
            style: dict[str, Any] = {"color": figures.COLORS[color], "lw": 1.8, "ls": line}
            axes.stairs(counts, edges, label=f"{name} ({words.count(len(values))})", **style)
        for limit in (0.3, 0.7):
            axes.axvline(limit, color=figures.GREY, lw=1, ls="--")
        axes.set_xlabel("mean cosine of a text's gradient with those of its paraphrases")
        axes.set_ylabel("texts")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="upper left")
        return axes


def influence(folder: Path | str) -> Path:
    """Write `index.html` from the summary and the table `top`.

    Args:
        folder: output of `memtax influence`.

    Returns:
        The page.
    """
    folder = Path(folder)
    found = read_summary(folder, "influence")
    tests: dict[int, list[dict[str, Any]]] = {}
    for row in read_table(folder, "top").to_pylist():
        tests.setdefault(row["test_id"], []).append(row)
    whole = attached.influence(found)
    if tests:
        method = next(iter(tests.values()))[0]["method"]
        caption = f"Each test example's most influential training examples by {method}, the strongest first."
        title = f"Influence of the top training examples, by test example ({method})"
        panel = Panel("influences", title, caption, influences(list(tests.values())[:DRAWN]))
        whole = replace(whole, parts=(panel, *whole.parts))
    more = len(tests) - SHOWN
    missing = (f"{numbered(more, 'more test example', 'is')} in dataset/top.",) if more > 0 else ()
    sections = [Section(whole.anchor, whole.heading, whole.text, whole.parts, missing)]
    sections += [_example(rows, number < OPEN) for number, rows in enumerate(list(tests.values())[:SHOWN])]
    shown = found.get("personal_data_shown") is True
    quoted = "Texts are quoted unmasked." if shown else "Personal data in texts is masked."
    quoted += " Long texts are cut; dataset/top contains them in full."
    return write_page(
        folder / "index.html",
        f"Influence of {numbered(found['train'], 'training example')} on {numbered(found['test'], 'test example')}",
        "the most influential training examples",
        [("Model", str(found["model"])), ("Parameters", found["parameters"]), ("Methods", ", ".join(found["methods"]))],
        sections,
        f"Every pair is in dataset/influence, every figure in summary.json. {quoted}",
    )


def influences(tests: Sequence[Sequence[Mapping[str, Any]]], ax: "Axes | None" = None) -> "Axes":
    """The top influences on each test example by the first method, one column of marks per example.

    Args:
        tests: rows of the table `top`, by test example.
        ax: axes to draw on.
    """
    with figures.style():
        axes: Axes = figures.panels(ax, 2.8)[0, 0]
        method = tests[0][0]["method"]
        for number, rows in enumerate(tests):
            values = [row["influence"] for row in rows if row["method"] == method]
            color = figures.COLORS["recitation"]
            axes.plot([number] * len(values), values, ls="", marker="o", ms=4, alpha=0.6, color=color)
        axes.axhline(0, color=figures.GREY, lw=1)
        if len(tests) <= LABELED:
            axes.set_xticks(range(len(tests)), [str(rows[0]["test_id"]) for rows in tests])
        else:
            axes.set_xticks([])
        axes.set_xlabel("test example")
        axes.set_ylabel(f"influence ({method})")
        return axes


def _example(rows: Sequence[Mapping[str, Any]], unfolded: bool) -> Section:
    """A test example and its most influential training examples, by each method; all methods but the first are folded."""
    number = rows[0]["test_id"]
    methods: dict[str, list[tuple[str, ...]]] = {}
    for row in rows:
        cells = (str(row["rank"]), str(row["train_id"]), words.number(row["influence"]), excerpt(row["train_text"]))
        methods.setdefault(row["method"], []).append(cells)
    head = ("rank", "training example", "influence", "text")
    tables = (
        Table(f"Most influential training examples by {method}", head, tuple(listed), not (unfolded and at == 0), quoted=True)
        for at, (method, listed) in enumerate(methods.items())
    )
    quote = (Quote(f"Test example {number}", excerpt(rows[0]["test_text"])),) if rows[0]["test_text"] else ()
    return Section(f"test-{number}", f"Test example {number}", "", (*quote, *tables), listed=False)


def excerpt(text: str | None) -> str:
    """The beginning of a text, as shown on the page."""
    text = text or ""
    return text if len(text) <= EXCERPT else f"{text[:EXCERPT]} [...]"
