"""Numbers as text, names of factors, and the sentences above the figures. Everything is computed from the data."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from memtax.predictor.factors import FROM_SCORES
from memtax.progress import agree, numbered, printable
from memtax.schema import CATEGORIES, COLUMNS, is_declared
from memtax.statistics import FEWEST_UNITS

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"

LABELS = {
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    "ece": "ECE",
    "brier": "Brier score",
    "f1": "F1",
    "held_out": "held out",
    "held_out_absent": "held out, unseen",
    "nl": "NL",
    "min_k": "Min-K%",
    "min_k_plus_plus": "Min-K%++",
    "dc_pdd": "DC-PDD",
    "lira": "LiRA",
    "rmia": "RMIA",
    "ez": "EZ (error zone)",
    "wbc": "WBC (windows)",
    "all": "all sequences",
    "aggregate": "all sequences",
}


CATEGORIES_EXPLAINED = (
    "Recitation: the continuation occurs many times in the corpus. Reconstruction: it follows from a template, by counting or "
    "repeating. Recollection: neither, so the model must have stored it."
)


def label(name: str) -> str:
    """The display name of a column, group or attack."""
    if share := re.fullmatch(r"min_k(_plus_plus)?_([0-9.]+)", name):
        return f"Min-K%{'++' if share[1] else ''}, {100 * float(share[2]):g}%"
    # A number in a name, such as a threshold, has a decimal point.
    # `is_declared` also looks into installed packages, whose columns may have labels.
    declared = COLUMNS[name].label if name not in LABELS and is_declared(name) and name in COLUMNS else ""
    return declared or LABELS.get(name, printable(re.sub(r"(?<=\d) (?=\d)", ".", name.replace("_", " "))))


def say_scored(answers: bool) -> str:
    """Which tokens of conversations are scored; empty for texts."""
    return "Of each conversation only the assistant's tokens are scored. " if answers else ""


def say_paired(forced: Mapping[str, int]) -> str:
    """What the attacks that compare with a base model measure, if they ran; `forced` counts texts placed by rule."""
    if "ez" not in forced:
        return ""
    text = (
        "Reference subtracts the base model's log-likelihood; WBC is the share of token windows that are likelier than under "
        "the base model; EZ divides gains by losses against it at the tokens that the model predicts wrongly"
    )
    if not forced["ez"]:
        return f"{text}."
    return f"{text}: {numbered(forced['ez'], 'text')} without such a loss {agree(forced['ez'], 'is')} ranked above all others."


def say_prompt(prompt: int | None) -> str:
    """The prompt of a sequence; None: the conversation before an answer."""
    return "a conversation up to an answer" if prompt is None else f"the first {prompt} tokens of a sequence"


def say_window(window: Mapping[str, Any]) -> str:
    """Lengths of `prompt` (None: the conversation before an answer) and `continuation`."""
    if window["prompt"] is None:
        return f"prompt: the conversation up to an answer; continuation: the answer's first {window['continuation']} tokens"
    return f"{window['prompt']} tokens of prompt"


def say_sequences(count: int, window: Mapping[str, Any]) -> str:
    """Number and length of the sequences."""
    if window["prompt"] is None:
        return f"{count:,} answers of conversations, the first {window['continuation']} tokens of each"
    return f"{count:,} of {sum(window.values())} tokens"


def say_left_out(left_out: Mapping[str, int]) -> str:
    """The reasons why rows or answers were left out, with their numbers; empty if none was."""
    return ", ".join(f"{reason} ({count:,})" for reason, count in left_out.items() if count)


def count(value: Any) -> str:
    """An integer with separators; a dash if missing."""
    return DASH if value is None else f"{int(value):,}"


def percent(share: float | None) -> str:
    """A share as a percentage that is rounded to 0% or 100% only if it is exact."""
    if share is None or not math.isfinite(share):
        return DASH
    if share in (0, 1):
        return f"{100 * share:.0f}%"
    for digits in range(1, 6):
        text = f"{100 * share:.{digits}f}"
        if float(text) not in (0.0, 100.0):
            return f"{text}%"
    return "<0.00001%" if share < 0.5 else ">99.99999%"


def number(value: Any) -> str:
    """A real number to three significant digits, with a typographic minus sign; a dash if missing."""
    if value is None or not math.isfinite(value):
        return DASH
    if float(value).is_integer() and abs(value) < 1e15:
        text = f"{int(value):,}"
    elif abs(value) >= 1000:
        text = f"{value:,.0f}"
    else:
        text = f"{float(f'{value:.3g}'):g}"
    return text.replace("-", MINUS)


def short(value: float) -> str:
    """A large number in thousands, millions or billions: `70.4M`."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def fixed(value: Any) -> str:
    """A coefficient or metric to three decimals; what rounds to zero has no sign."""
    return DASH if value is None or not math.isfinite(value) else f"{value:z.3f}".replace("-", MINUS)


def estimate(value: Any) -> str:
    """A metric with its interval, if it has one: `0.912 (0.880 to 0.941)`."""
    if not isinstance(value, Mapping):
        return fixed(value)
    if value.get("low") is None or value.get("high") is None:
        return fixed(value.get("value"))
    # Narrow columns may wrap before the bracket, never inside it.
    return f"{fixed(value['value'])} ({fixed(value['low'])}\u00a0to\u00a0{fixed(value['high'])})"


def interval(row: Mapping[str, Any], kind: str = "") -> str:
    """The interval of a rate: `80.2% to 85.9%`.

    Args:
        row: with `low` and `high`; if they are None, `units` says whether the interval is withheld.
        kind: `independent` for the interval of independent sequences.
    """
    low, high = (row.get(f"{name}_{kind}" if kind else name) for name in ("low", "high"))
    if low is None or high is None:
        return "withheld" if row.get("rate") is not None and row.get("reason") else DASH
    return f"{percent(low)} to {percent(high)}"


def units(row: Mapping[str, Any]) -> str:
    """Name and number of the units of an interval: `37 documents`."""
    if row.get("units") is None:
        return DASH
    return numbered(row["units"], row.get("unit") or "unit")


def over(row: Mapping[str, Any]) -> str:
    """The units of an interval, for use in a sentence: `over 37 documents`."""
    return "" if row.get("units") is None else f"over {units(row)}"


def over_most(rows: Sequence[Mapping[str, Any]]) -> str:
    """The units of intervals that differ by row: `over up to 37 documents`."""
    return over({"unit": rows[0]["unit"], "units": max(row["units"] for row in rows)}).replace("over", "over up to")


def over_other(row: Mapping[str, Any]) -> str:
    """`, over 37 documents`; empty if units are the sequences themselves."""
    return "" if row.get("units") in (None, row.get("sequences")) else f", {over(row)}"


def span(row: Mapping[str, Any]) -> str:
    """The interval of a coefficient: `0.120 to 0.340`."""
    if row.get("low") is None or row.get("high") is None:
        return "withheld" if row.get("interval_reason") else DASH
    return f"{fixed(row['low'])} to {fixed(row['high'])}"


def say_units(row: Mapping[str, Any]) -> str:
    """The units of the intervals of rates, from the row of all sequences."""
    if row.get("units") is None:
        return "Intervals are exact (Clopper-Pearson, 95%), assuming that sequences are independent of each other."
    if row["units"] == row["sequences"]:
        why = "No document is recorded and no two sequences are equal, so sequences are assumed to be independent"
        if row.get("unit") == "document":
            why = "Each sequence comes from a document of its own"
        return f"{why}: intervals are exact (Clopper-Pearson, 95%)."
    name = {"document": "documents", "text": "distinct texts"}.get(row.get("unit") or "", "units")
    said = (
        f"Intervals (95%) are over {count(row['units'])} {name}, because sequences from the same one depend on each "
        "other. The last interval (Clopper-Pearson) assumes independent sequences."
    )
    if row.get("reason"):
        said = f"Sequences come from {units(row)}; intervals over fewer than {FEWEST_UNITS} are withheld."
    return said


def say_extraction(extraction: Mapping[str, Any]) -> str:
    """Which category is memorized most, and whether the intervals support this."""
    known = [
        (name, extraction[name])
        for name in CATEGORIES
        if (extraction.get(name) or {}).get("sequences") and extraction[name].get("rate") is not None
    ]
    if not known:
        return "No category has a sequence to count"
    known.sort(key=lambda item: -item[1]["rate"])
    name, best = known[0]
    if not best["rate"]:
        return "No sequence of any category is memorized"
    said = f"{name.capitalize()} is memorized most: {percent(best['rate'])} of its sequences"
    if len(known) > 1:
        other, second = known[1]
        if best.get("reason") or second.get("reason"):
            return f"{said}, which may not hold for other documents: there are too few for an interval"
        if best.get("low") is not None and second.get("high") is not None and best["low"] <= second["high"]:
            return f"{said}, though not clearly more than {other}: the intervals overlap"
        said += f", against {percent(second['rate'])} of {other}"
    return said


def say_control(extraction: Mapping[str, Any]) -> str:
    """Interpretation of memorized held-out sequences: held-out sequences that occur in the corpus were seen after all."""
    every, absent = extraction.get("held_out"), extraction.get("held_out_absent")
    if not every or not absent:
        return ""
    known, of_known = every["memorized"] - absent["memorized"], every["sequences"] - absent["sequences"]
    return (
        f"Of {numbered(every['sequences'], 'held-out sequence')}, {count(of_known)} {agree(of_known, 'has')} a continuation "
        f"that also occurs in another document of the corpus: {count(known)} of them {agree(known, 'is')} memorized. "
        f"Of the {count(absent['sequences'])} whose continuation does not occur there, {count(absent['memorized'])} "
        f"{agree(absent['memorized'], 'is')} (interval {interval(absent)})."
    )


def say_growth(rows: Sequence[Mapping[str, Any]], by: str = "step") -> str:
    """How the memorized share of all sequences changes over training (or size), and which category is highest at the end."""
    overall = [row for row in rows if row["category"] == "all" and row.get("rate") is not None] or list(rows)
    if all(row.get(by) is not None for row in overall):
        overall = sorted(overall, key=lambda row: row[by])
    first, last = overall[0], overall[-1]
    end = [row for row in rows if row["checkpoint"] == last["checkpoint"] and row["category"] in CATEGORIES and row.get("rate")]
    lead = max(end, key=lambda row: row["rate"]) if end else None
    tail = f"; {lead['category']} leads with {percent(lead['rate'])}" if lead else ""
    if first["checkpoint"] == last["checkpoint"]:
        return f"At {moment(last, by)}, {percent(last['rate'])} is memorized{tail}"
    verb = "grows" if last["rate"] > first["rate"] else "falls" if last["rate"] < first["rate"] else "stays"
    return (
        f"The memorized share {verb} from {percent(first['rate'])} at {moment(first, by)} "
        f"to {percent(last['rate'])} at {moment(last, by)}{tail}"
    )


def moment(row: Mapping[str, Any], by: str = "step") -> str:
    """A checkpoint or model in words."""
    if row.get(by) is None:
        return str(row["checkpoint"])
    return f"step {count(row['step'])}" if by == "step" else f"{short(row['parameters'])} parameters"


def say_reference(found: Mapping[str, Any]) -> str:
    """Number of extracted sequences that a model that never saw them completes as well."""
    overall = found["all"]
    if not overall["model_memorized"]:
        return "Nothing is extracted, so nothing is beyond the reference model"
    share = overall["predictable"] / overall["model_memorized"]
    return (
        f"Of {numbered(overall['model_memorized'], 'extracted sequence')} the reference model completes "
        f"{count(overall['predictable'])} ({percent(share)}); {count(overall['memorized'])} "
        f"{agree(overall['memorized'], 'lies')} beyond it"
    )


def say_correlations(rows: Sequence[Mapping[str, Any]]) -> str:
    """The factor known before training with the strongest correlation over all sequences, or else the model's own scores."""
    everything = [row for row in rows if row["group"] == "all" and row.get("spearman") is not None]
    known = [row for row in everything if row["factor"] not in FROM_SCORES] or everything
    if not known:
        return "No factor's correlation with memorization could be computed over all sequences"
    best = max(known, key=lambda row: abs(row["spearman"]))
    side = "lower" if best["spearman"] < 0 else "higher"
    return (
        f"Strongest factor{'' if best['factor'] in FROM_SCORES else ' known before training'}: {label(best['factor'])}, {side} "
        f"where sequences are memorized (Spearman {fixed(best['spearman'])})"
    )


def say_predictor(predictor: Mapping[str, Any]) -> str:
    """Whether one model per category ranks held-out sequences better than one model for all."""
    models = predictor["models"]
    ours, baseline = (((models.get(name) or {}).get("aggregate") or {}).get("roc_auc") for name in ("taxonomic", "baseline"))
    if ours is None or baseline is None:
        return "Too few test sequences to compare the predictors"
    shown = f"ROC-AUC {fixed(ours['value'])} against {fixed(baseline['value'])}"
    found = [row for row in predictor.get("differences", ()) if (row["metric"], row["category"]) == ("roc_auc", "aggregate")]
    if not found or found[0].get("low") is None or found[0].get("high") is None:
        return f"One model per category and one for all, on test sequences: {shown}"
    if found[0]["low"] > 0:
        return f"One model per category ranks test sequences better than one for all: {shown}"
    if found[0]["high"] < 0:
        return f"One model per category ranks test sequences worse than one for all: {shown}"
    return f"One model per category ranks test sequences no better or worse, within the interval, than one for all: {shown}"


def say_weights(rows: Sequence[Mapping[str, Any]]) -> str:
    """The heaviest factors, each with the categories in which it is the heaviest."""
    said: dict[str, list[str]] = {}
    for name in CATEGORIES:
        own = [row for row in rows if row["model"] == name and row.get("coefficient") is not None]
        if own:
            said.setdefault(label(max(own, key=lambda row: abs(row["coefficient"]))["factor"]), []).append(name)
    told = "; ".join(f"{factor} for {' and '.join(names)}" for factor, names in said.items())
    return f"Largest weights: {told}" if told else "The weights of the predictor's models"


def say_medians(name: str, memorized: float, rest: float) -> str:
    """How a factor's median differs between memorized and other sequences."""
    if memorized == rest:
        return f"The median of {label(name)} is the same for memorized and other sequences: {number(memorized)}"
    side = "lower" if memorized < rest else "higher"
    return f"Memorized sequences have a {side} {label(name)}: median {number(memorized)} against {number(rest)}"


def say_census(census: Mapping[str, Any] | None) -> list[str]:
    """Windows beyond matched texts, in a sentence; empty without matched texts."""
    if census is None:
        return []
    share, coverage = (f"{percent(census[name]['value'])} ({interval(census[name])})" for name in ("share", "coverage"))
    limit = "which sampling never yields"
    if census["log_threshold"] is not None:
        limit = f"the likeliest of which has a log-probability of {number(census['log_threshold'])}"
    return [
        f"{share} of the windows, with {coverage} of the tokens, are more probable than every window of "
        f"{numbered(len(census['largest']), 'matched text')}, {limit}"
    ]


def say_sliding(sliding: Mapping[str, Any]) -> str:
    """Share of the tokens that can be extracted with at least the middle threshold."""
    rows = sliding["thresholds"]
    row = rows[len(rows) // 2]
    return (
        f"{percent(row['coverage']['value'])} of the tokens are in a passage that is extracted with a probability of at least "
        f"{number(row['threshold'])}"
    )
