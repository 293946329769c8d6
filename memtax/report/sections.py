"""The page's sections: their figures and tables, and a sentence for each missing part."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from memtax import schema
from memtax.predictor.storage import say_split
from memtax.progress import numbered
from memtax.report import figures, words
from memtax.report.data import Run
from memtax.report.factor_section import GROUPS, goes_with, numbers_of
from memtax.report.growth import growth
from memtax.report.heat import heat
from memtax.report.parts import Panel, Section, Table
from memtax.report.seen import gained_and_lost, since_seen
from memtax.report.words import DASH, count, estimate, fixed, label, number, percent

MOST_TEXTS = 20
"""Maximum number of rows in the heat map."""
INTERVALS = ("interval of the share", "over", "if sequences were independent")
READINGS = ("by_overlap", "by_duplicates")
METRICS = ("roc_auc", "pr_auc", "ece", "brier", "f1")


def sections(run: Run) -> list[Section]:
    """The sections with figures and tables, in page order; the examples follow them."""
    from memtax.report.attached_sections import attached
    from memtax.report.fits import fits
    from memtax.report.kinds import kinds
    from memtax.report.membership_section import members
    from memtax.report.perplexities import perplexities

    over = fits(run)
    return [
        *(what(run), when(run), kinds(run), goes_with(run), perplexities(run), predicts(run)),
        *([over] if over else []),
        members(run),
        *attached(run),
    ]


def gaps(run: Run) -> Section:
    """Gaps in the data: nulls by column and skipped sequences, with the reason."""
    nulls = {name: times for name, times in (run.metrics.get("nulls") or {}).items() if times}
    skipped = run.metrics.get("skipped") or {}
    dropped = (run.metrics.get("predictor") or {}).get("dropped") or {}
    parts = []
    if nulls:
        rows = tuple(
            (name, schema.COLUMNS[name].null if name in schema.COLUMNS else DASH, count(times)) for name, times in nulls.items()
        )
        parts.append(Table("Missing values (null), by column", ("column", "meaning of null", "sequences"), rows, texts=2))
    lost = [(reason, "left out of the run", times) for reason, times in skipped.items()]
    lost += [(reason, "left out of the predictor", times) for reason, times in dropped.items()]
    if lost:
        rows = tuple((reason, where, count(times)) for reason, where, times in lost)
        parts.append(Table("Sequences left out", ("reason", "where", "sequences"), rows, texts=2))
    text = "A value that could not be computed is missing, never replaced by a placeholder."
    if not run.metrics:
        return Section("gaps", "What is missing", text, missing=("Not known: this run has no summary.json.",))
    if not parts:
        text += " In this run nothing is missing: every sequence has every factor."
    return Section("gaps", "What is missing", text, tuple(parts))


def what(run: Run) -> Section:
    """The memorized share of each category."""
    found = run.metrics.get("extraction") or {}
    groups = {name: found[name] for name in (*GROUPS, "held_out", "held_out_absent") if found.get(name)}
    lengths = run.metrics.get("run") or {}
    tested = "A sequence is memorized if greedy decoding from its prompt yields its continuation exactly. "
    if lengths.get("prompt") and lengths.get("continuation"):
        tested = (
            f"A sequence is memorized if greedy decoding from its first {count(lengths['prompt'])} tokens yields the next "
            f"{count(lengths['continuation'])} exactly. "
        )
    elif lengths.get("continuation") and "prompt" in lengths:
        tested = (
            "An answer is memorized if greedy decoding from the conversation before it yields its first "
            f"{count(lengths['continuation'])} tokens exactly. "
        )
    text = f"{tested}{words.CATEGORIES_EXPLAINED}"
    if groups:
        text += f" {words.say_units(groups.get('all') or next(iter(groups.values())))}"
    missing = []
    if not groups:
        return Section("what", "What is memorized", text, missing=("This run's metrics contain no extraction figures.",))
    if "held_out" not in groups:
        missing.append("Sequences that the model was not trained on were not measured, so no control is shown.")
    rows = tuple(
        (label(name), count(row["sequences"]), count(row["memorized"]), percent(row.get("rate")), *_intervals(row))
        for name, row in groups.items()
    )
    control = " Held out: sequences the model was not trained on." if "held_out" in groups else ""
    if said := words.say_control(found):
        text += f" {said}"
    if said := _nearest(run, groups):
        text += f" {said}"
    over = words.over(groups.get("all") or next(iter(groups.values())))
    caption = f"Left: counts by category. Right: memorized shares; whiskers are the interval of each share {over}.{control}"
    parts: tuple[Panel | Table, ...] = (
        Panel("extraction", words.say_extraction(found), caption, figures.extraction(groups)),
        Table("Sequences by category", ("group", "sequences", "memorized", "share", *INTERVALS), rows),
    )
    beyond = _beyond(run)
    if not beyond:
        missing.append("No reference model was scored, so predictable sequences cannot be separated (key reference_model).")
    labels = competing(run.metrics.get("guess_recall") or {})
    return Section("what", "What is memorized", text, (*parts, *beyond, *labels), tuple(missing))


def _nearest(run: Run, groups: Mapping[str, Any]) -> str:
    """What comes nearest to being memorized, where nothing is."""
    lengths = numbers_of(run.features, "match_length")
    if (groups.get("all") or {}).get("memorized") != 0 or lengths is None or not np.isfinite(lengths).any():
        return ""
    place = int(np.nanargmax(lengths))
    ids = numbers_of(run.features, "sequence_id")
    which = "a sequence" if ids is None else f"sequence {int(ids[place])}"
    found = numbered(int(lengths[place]), "token")
    return f"Nearest comes {which}: greedy decoding yields {found} of its continuation."


def competing(found: Mapping[str, Any]) -> tuple[Table, ...]:
    """Memorized sequences per category as guess or recall (Dentan et al. 2025), by both definitions; empty without figures.

    Args:
        found: `guess_recall` of a run's figures.
    """
    if not all(found.get(reading) for reading in READINGS):
        return ()
    rows = tuple(
        (
            "all sequences" if category == "all" else label(category),
            *(count(found[reading].get(category, {}).get(name)) for reading in READINGS for name in ("guess", "recall")),
        )
        for category in (*schema.CATEGORIES, "all")
    )
    overlap, threshold = number(found.get("overlap")), count(found.get("threshold"))
    title = (
        "Memorized sequences as guess or recall (Dentan et al. 2025). By overlap: a guess is a template, or repeats its prompt "
        f"(ROUGE of at least {overlap}). By duplicates: recall occurs more than {threshold} times"
    )
    head = ("category", "guess, by overlap", "recall, by overlap", "guess, by duplicates", "recall, by duplicates")
    return (Table(title, head, rows, folded=True),)


def _intervals(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Cells under `INTERVALS`."""
    return words.interval(row), words.units(row), words.interval(row, "independent")


def _beyond(run: Run) -> tuple[Panel | Table, ...]:
    """Extraction beyond a reference model, if one was scored."""
    found = run.metrics.get("reference") or {}
    groups = {name: found[name] for name in GROUPS if (found.get(name) or {}).get("sequences")}
    if not groups:
        return ()
    names = ("sequences", "model_memorized", "reference_memorized", "predictable", "memorized")
    rows = tuple(
        (label(name), *(count(row[key]) for key in names), percent(row.get("rate")), *_intervals(row))
        for name, row in groups.items()
    )
    head = ("group", "sequences", "by the model", "by the reference", "by both", "by the model alone", "share", *INTERVALS)
    caption = (
        "Extracted by the model and not by a reference model that was not trained on the sequences: what both complete is "
        "predictable rather than memorized."
    )
    return (
        Panel("beyond_reference", words.say_reference(found), caption, figures.extraction(groups)),
        Table("Extraction beyond the reference model, by category", head, rows),
    )


def where(sliding: Mapping[str, Any]) -> Section:
    """Sliding windows over long texts; `sliding` is from `memtax.pipeline.sliding`."""
    text = (
        f"One window every {count(sliding['stride'])} tokens: the probability that its last {count(sliding['continuation'])} "
        f"tokens are sampled as a whole after the {count(sliding['prompt'])} before them."
    )
    texts = sorted(sliding["texts"], key=lambda row: -row["windows"])[:MOST_TEXTS]
    rows = tuple(
        (
            number(row["threshold"]),
            *(cell for name in ("share", "coverage") for cell in (percent(row[name]["value"]), words.interval(row[name]))),
        )
        for row in sliding["thresholds"]
    )
    caption = "Brightness: the most likely suffix that contains the tokens, from one in ten billion (dark) to certain (bright)."
    missing = []
    if sliding.get("too_short"):
        missing.append(f"{numbered(sliding['too_short'], 'text', 'is')} shorter than one window.")
    if len(sliding["texts"]) > len(texts):
        missing.append(f"The heat map shows the {MOST_TEXTS} longest of {count(len(sliding['texts']))} texts.")
    parts = (
        Panel("heat", words.say_sliding(sliding), caption, heat(texts)),
        Table(
            "Share of the windows, and of the tokens in any suffix, at or above a probability (block bootstrap)",
            ("probability", "windows", "interval", "tokens", "interval"),
            rows,
        ),
    )
    return Section("where", "Where it is memorized", text, parts, tuple(missing))


def when(run: Run) -> Section:
    """Growth over checkpoints and over model sizes."""
    text = "The same sequences, scored at checkpoints of the training run, or by models of other sizes."
    parts: list[Panel | Table] = []
    rows = [row for row in run.metrics.get("growth") or () if row.get("rate") is not None]
    series = {
        name: [row for row in rows if row.get("model") == name] for name in dict.fromkeys(row.get("model") for row in rows)
    }
    for place, (model, own) in enumerate(series.items()):
        parts += _growth(own, "step", f"growth_{place}" if place else "growth", str(model) if len(series) > 1 else "")
    rows = [row for row in run.metrics.get("growth_by_size") or () if row.get("rate") is not None]
    if rows:
        parts += _growth(rows, "parameters", "growth_by_size", "")
    parts += [*gained_and_lost(run.metrics.get("gained_and_lost") or ()), *since_seen(run.metrics.get("since_seen") or ())]
    missing = []
    if not parts:
        missing = ["Only one model was scored, so there is no growth to show; score checkpoints of its training run to see it."]
    return Section("when", "When it is memorized", text, tuple(parts), tuple(missing))


def _growth(rows: Sequence[Mapping[str, Any]], by: str, name: str, model: str) -> list[Panel | Table]:
    """The figure of a series and its numbers."""
    what, unit = ("checkpoint", "optimizer steps") if by == "step" else ("model", "parameters")
    table = tuple(
        (
            row["checkpoint"],
            label(row["category"]),
            count(row.get(by)),
            count(row["sequences"]),
            count(row["memorized"]),
            percent(row["rate"]),
            *_intervals(row),
        )
        for row in rows
    )
    head = (what, "group", unit, "sequences", "memorized", "share", *INTERVALS)
    of = f" of {model}" if model else ""
    over = words.over(rows[0])
    caption = f"Share of each group that is memorized at each {what}{of}; bands are the intervals{over and f' {over}'}."
    said = words.say_growth(rows, by)
    return [
        Panel(name, f"{model}: {said[0].lower()}{said[1:]}" if model else said, caption, growth(rows, by)),
        Table(f"Memorized sequences by {what} and category{of}", head, table, folded=True, texts=2),
    ]


def predicts(run: Run) -> Section:
    """The predictor: curves, metrics, differences and weights."""
    predictor = run.metrics.get("predictor") or {}
    heading = "Predicting memorization"
    text = (
        "Logistic models of a sequence's factors: one for all sequences (the baseline), and one per category. "
        "Evaluated on sequences that were not used to fit or choose them."
    )
    if not predictor.get("models"):
        reason = predictor.get("reason") or "this run's metrics contain none"
        return Section("predictor", heading, text, missing=(f"No predictor was fitted: {reason}.",))
    rows = predictor.get("rows") or {}
    if rows:
        text += " Sequences: " + ", ".join(f"{label(name)} {count(times)}" for name, times in rows.items()) + "."
    text += f" {say_split(predictor)}" if predictor.get("split") else ""
    models = predictor["models"]
    parts: list[Panel | Table] = []
    missing = []
    if predictor.get("curves"):
        caption = (
            "On test sequences. Columns: all together, then each category. Top: ROC. Middle: precision and recall. Bottom: "
            "predicted probability against the observed share; larger marks represent more sequences."
        )
        parts.append(Panel("curves", words.say_predictor(predictor), caption, figures.curves(predictor["curves"], models)))
    else:
        missing.append("This run's metrics contain no curves of the predictor.")
    reasons = {cell["interval_reason"]: None for cell in [models["baseline"]["aggregate"]] if cell.get("interval_reason")}
    missing += [f"No intervals of the predictor's metrics: {reason}." for reason in reasons]
    parts += _metric_tables(models, predictor.get("differences") or [])
    weights = predictor.get("coefficients") or []
    panels = [name for name in ("baseline", *schema.CATEGORIES) if any(row["model"] == name for row in weights)]
    if panels:
        caption = "Standardized factors: the change in the log-odds of being memorized per additional standard deviation."
        figure = figures.dots(weights, panels, "model", "coefficient", "coefficient (log-odds per standard deviation)")
        table = tuple((label(row["factor"]), label(row["model"]), fixed(row.get("coefficient"))) for row in weights)
        head = ("factor", "model", "coefficient")
        parts += [
            Panel("weights", words.say_weights(weights), caption, figure),
            Table("Coefficients (log-odds per standard deviation)", head, table, folded=True, texts=2),
        ]
    else:
        missing.append("This run's metrics contain no weights of the predictor.")
    return Section("predictor", heading, text, tuple(parts), tuple(missing))


def _metric_tables(models: Mapping[str, Any], differences: Sequence[Mapping[str, Any]]) -> list[Panel | Table]:
    """Test metrics by group and model, and the differences between the models."""
    rows: list[tuple[str, ...]] = []
    for group in ("aggregate", *schema.CATEGORIES):
        for model in models:
            cell = models[model].get(group)
            if cell is None:
                continue
            start = (label(group), label(model), count(cell.get("n")), count(cell.get("positives")))
            if cell.get("roc_auc") is None and cell.get("reason"):
                rows.append((*start, f"withheld: {cell['reason']}"))
            else:
                rows.append((*start, *(estimate(cell.get(metric)) for metric in METRICS)))
    head = ("group", "model", "test sequences", "memorized", *(label(metric) for metric in METRICS))
    caption = (
        "On the test sequences, with intervals in brackets. ECE: expected calibration error. ECE and Brier: smaller is better"
    )
    tables: list[Panel | Table] = [Table(caption, head, tuple(rows), texts=2)]
    if differences:
        tables.append(
            Table(
                "Differences on the test sequences: one model per category minus one model for all",
                ("metric", "group", "difference", "interval"),
                tuple(
                    (label(row["metric"]), label(row["category"]), fixed(row.get("value")), words.span(row))
                    for row in differences
                ),
                folded=True,
                texts=2,
            )
        )
    return tables
