"""The audit as text: its page and its section in a model card."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memtax.membership.canaries import conclusion
from memtax.pipeline import audit_coverage, audit_membership, audit_unlearning
from memtax.pipeline.audit_near import near_verbatim
from memtax.pipeline.audit_parts import Finding, say_share
from memtax.pipeline.audit_verdicts import QUESTIONS, verdict_rows
from memtax.progress import agree, numbered
from memtax.report import figures, words
from memtax.report.page import tiles
from memtax.report.parts import Panel, Section, Table
from memtax.report.plain import write_page

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNMEASURED = "Not measurable with this data"


def write(path: Path, result: Mapping[str, Any]) -> Path:
    """Write the page from the audit's figures."""
    about = [
        ("Model", result["model"]),
        ("Adapter", result["adapter"]),
        ("Base", result.get("base")),
        ("Training set", result["train"]),
        ("To forget", result.get("forget")),
        ("To retain", result.get("retain")),
    ]
    window = result["window"]
    about += [("Held out", result["held_out"]), ("Sequences", words.say_sequences(result["sequences"], window))]
    parts = [_extraction(result), _calibrated(result.get("calibrated")), near_verbatim(result), _sampling(result)]
    parts += [_worrying(result), _canaries(result), _personal(result), _advice(result)]
    asked = QUESTIONS["membership"]
    unlearned = audit_unlearning.section(result, "unlearning")
    found = [part.section(f"part-{number}") for number, part in enumerate(parts) if part is not None]
    return write_page(
        path,
        f"Audit: {headline(result)}",
        "what a fine-tuned model gives away",
        [(term, str(value)) for term, value in about if value],
        [
            _answer(result),
            *([] if unlearned is None else [unlearned]),
            audit_coverage.section(result, "coverage"),
            audit_membership.section(result, f"{asked} {_verdict(result, 'membership').capitalize()}", "membership"),
            *found,
        ],
        "Every number is in summary.json; audit.json has the digests of model, data and figures (memtax verify).",
        "Share of the training sequences that can be extracted",
        [{**tile, "count": f"{tile['count']} sequences"} for tile in tiles(result["extraction"])],
    )


def _answer(result: Mapping[str, Any]) -> Section:
    """The verdicts, which come first."""
    head = ("Question", "Answer", "What was shown, and what was not looked at")
    table = Table("Verdicts", head, tuple(verdict_rows(result["verdicts"])), texts=3)
    return Section("answer", "The answer", "", (table,))


def _verdict(result: Mapping[str, Any], about: str) -> str:
    (one,) = (each["verdict"] for each in result["verdicts"] if each["about"] == about)
    return str(one)


def headline(result: Mapping[str, Any]) -> str:
    """One-sentence summary: how much can be extracted, how much is worrying or personal data, and the verdict on membership."""
    found, worrying, personal = result["extraction"]["all"], result["kinds"]["worrying"], result["personal_data"]
    extracted = f"{found['memorized']:,} of {numbered(found['sequences'], 'sequence')} can be extracted"
    if found["memorized"]:
        extracted += _distinct(found["memorized"], result["distinct"]["memorized"])
        extracted += f", {worrying['memorized']:,} of them worrying{_distinct(worrying['memorized'], worrying['distinct'])}"
        if personal["measurable"]:
            extracted += f", {personal['count']:,} with personal data{_distinct(personal['count'], personal['distinct'])}"
    unlooked = "" if personal["measurable"] else "; personal data not looked for"
    return f"{extracted}{unlooked}; membership: {_verdict(result, 'membership')}"


def _texts(count: int) -> str:
    return numbered(count, "distinct text")


def _distinct(sequences: int, texts: int) -> str:
    """How many texts these sequences are, where some are equal."""
    return "" if texts == sequences else f" ({_texts(texts)})"


def card_section(result: Mapping[str, Any]) -> str:
    """A Markdown section for the model card, without any text of the training set."""
    window = result["window"]
    lines = ["## Memorization audit", "", f"{headline(result)} ({words.say_window(window)}, greedy decoding)."]
    lines += ["", "| | sequences | distinct texts | share (95% interval) |", "|---|---|---|---|"]
    kinds = result["kinds"].items()
    lines += [f"| {name} | {one['memorized']:,} | {one['distinct']:,} | {say_share(one)} |" for name, one in kinds]
    lines += [
        "",
        *(f"- {question} **{answer}**: {sentence}" for question, answer, sentence in verdict_rows(result["verdicts"])),
    ]
    lines.append("")
    return "\n".join(lines)


def _extraction(result: Mapping[str, Any]) -> Finding:
    rows = [
        [words.label(name), f"{one['memorized']:,}", f"{one['sequences']:,}", say_share(one)]
        for name, one in result["extraction"].items()
    ]
    window = result["window"]
    text = (
        f"Given {words.say_prompt(window['prompt'])} in the training set, greedy decoding yields exactly the "
        f"{'next' if window['prompt'] is not None else 'first'} {window['continuation']} tokens of the "
        f"{'training set' if window['prompt'] is not None else 'answer'}. {words.CATEGORIES_EXPLAINED} "
        f"{words.say_units(result['extraction']['all'])}"
    )
    if said := words.say_control(result["extraction"]):
        text += f" {said}"
    if result["held_out"] is None:
        text += f" {UNMEASURED}: how much of it a model completes without having seen it; no held-out texts were given."
    head = ("Category", "Extracted", "Sequences", "Share")
    heading = f"{words.percent(result['extraction']['all']['rate'])} of the training sequences can be extracted"
    drawn = figures.extraction({name: one for name, one in result["extraction"].items() if one["sequences"]})
    caption = "Left: counts by category. Right: extracted shares; whiskers are the interval of each share."
    panel = Panel("extraction", words.say_extraction(result["extraction"]), caption, drawn)
    return Finding(heading, text, "Extraction by greedy decoding", head, rows, panel)


def _calibrated(found: Mapping[str, Any] | None) -> Finding | None:
    """Extraction beyond what the model produces of texts that it never saw."""
    if found is None:
        return None
    if not found["measurable"]:
        heading = "Beyond text never seen: not measurable with this data"
        return Finding(
            heading, f"{UNMEASURED}: how much of it is beyond what the model gives of unseen texts: {found['reason']}."
        )
    share, unseen, unit = found["exceeds"], found["memorized_held_out"], found["unit"]
    heading = f"{words.percent(share['rate'])} of the training sequences are more probable than texts never seen"
    text = (
        f"A continuation counts if its log-probability exceeds {found['threshold']:.2f} nats, which at most "
        f"{words.percent(found['alpha'])} of unseen {unit}s reach with any of their continuations (split-conformal threshold "
        f"over {found['units']:,} held-out {unit}s, {found['sequences']:,} sequences, that do not occur in the training set; "
        f"the guarantee is on average over such sets, for {unit}s of the same kind and length). Share: {say_share(share)}. "
        f"{numbered(found['memorized_below'], 'sequence')} that greedy decoding yields "
        f"{agree(found['memorized_below'], 'is')} below, {found['exceeds_unmemorized']:,} above that it does not yield. "
        f"Greedy decoding yields {say_share(unseen)} of the held-out sequences: so much is completed without having been seen."
    )
    return Finding(heading, text)


def _sampling(result: Mapping[str, Any]) -> Finding:
    rows = [
        [f"{one['samples']:,}", f"{one['probability']:g}", f"{one['extractable']:,}", say_share(one)]
        for one in result["sampling"]
    ]
    text = (
        "Results of repeated queries: a continuation counts if n samples from the model (temperature 1) contain "
        "it at least once with a probability of p or more (Hayes et al. 2024)."
    )
    middle = next(one for one in result["sampling"] if (one["samples"], one["probability"]) == (100, 0.5))
    heading = f"100 samples give {middle['extractable']:,} of {middle['sequences']:,} with probability 0.5 or more"
    return Finding(
        heading, text, "(n, p)-discoverable extraction", ("Samples n", "Probability p", "Extractable", "Share"), rows
    )


def _worrying(result: Mapping[str, Any]) -> Finding:
    one = result["kinds"]
    rows = [
        [str(row["sequence_id"]), f"{row['duplicates']}", ", ".join(row["personal_data"]) or words.DASH, _quoted(row)]
        for row in result["worrying_sequences"]
    ]
    text = (
        f"Worrying: recollected (rare and not a template), or with personal data, however often it occurs "
        f"({say_share(one['worrying'])}). Benign: repeated often or templated without personal data, or completed by the base "
        f"model as well ({say_share(one['benign'])}). Each text is listed once. {_shown(result)}"
    )
    if not result["personal_data"]["measurable"]:
        text += " Personal data was not searched for, so a secret that was repeated often counts as benign here."
    heading = (
        f"{numbered(one['worrying']['memorized'], 'memorized sequence', 'is')} worrying, {one['benign']['memorized']:,} benign"
    )
    caption = f"{len(rows):,} of {_texts(one['worrying']['distinct'])}, those with personal data first"
    head = ("sequence_id", "Occurrences", "Personal data", _text_head(result))
    return Finding(heading, text, caption, head, rows, quoted=True)


def _quoted(row: Mapping[str, Any]) -> str:
    return row["text"] or "not shown: it cannot be masked"


def _text_head(result: Mapping[str, Any]) -> str:
    return "Text, unmasked" if result["personal_data_shown"] else "Text, personal data masked"


def _shown(result: Mapping[str, Any]) -> str:
    """How texts are quoted."""
    if result["personal_data_shown"]:
        return "Texts are quoted unmasked (--show-personal-data)."
    return (
        "In texts, every run of five or more digits and everything in the format of an e-mail address, a postal address or a "
        "credential is masked, valid or not; only valid ones are counted. Names of people are not masked."
    )


def _canaries(result: Mapping[str, Any]) -> Finding:
    found = result["canaries"]
    if not found["measurable"]:
        text = f"{UNMEASURED}: {found['reason']}. training/finetune_lora.py plants them in the next training run."
        return Finding("Canaries: none were planted", text)
    rows = [
        [
            f"{row['repetitions']:,}",
            f"{row['canaries']:,}",
            f"{row['exposure']['mean']:.2f} ({row['exposure']['least']:.2f} to {row['exposure']['most']:.2f})",
            _mean_interval(row),
            f"{row['memorized']:,}",
            say_share(row),
        ]
        for row in found["by_repetitions"]
    ]
    text = (
        f"Planted random sequences ({found['planted']:,}), ranked by {_ranked_by(found)} among {found['held_out']:,} "
        "held-out ones of the same kind: they measure how well the model remembers a text that resembles no other. "
        "Exposure (Carlini et al. 2019) is log2 of the candidates minus log2 of the rank: "
        f"{found['most_bits']:.1f} bits at most, "
        f"for a canary that ranks before all held-out ones, and {found['chance_bits']:.2f} on average if nothing was "
        "learned. Extracted: greedy "
        f"decoding from the first half yields the second half; {found['held_out_extracted']:,} held-out ones "
        f"{agree(found['held_out_extracted'], 'is')} extracted. A number, a name or a password that occurs as often in the "
        "training set as a canary may be remembered as well. Intervals (95%) are "
        "over canaries, which are drawn independently of each other."
    )
    text += f" {_epsilon(found.get('epsilon'))}"
    head = ("Planted times", "Canaries", "Mean exposure in bits (range)", "Interval of the mean", "Extracted", "Share")
    panel = Panel("canaries", conclusion(found), "Dots: mean exposure; bars: range; dashed: chance.", _exposure(found))
    return Finding("What planted canaries show", text, "Canaries by repetitions", head, rows, panel)


def _ranked_by(found: Mapping[str, Any]) -> str:
    return "log-likelihood minus that under the base model" if found.get("base") else "likelihood"


def _epsilon(found: Mapping[str, Any] | None) -> str:
    """What the canaries with a coin say about differential privacy."""
    if found is None:
        return (
            "No bound on the epsilon of differential privacy: it needs canaries that were planted by coins "
            "(training/finetune_lora.py --canary_coins SEED)."
        )
    start = f"{found['right']:,} of {found['guesses']:,} guesses which canaries were trained on are right"
    ceiling = f"with so many guesses at most {found['ceiling']:.2f} could be shown"
    if not found["epsilon"]:
        return f"{start}: no bound on the epsilon of differential privacy is shown, which does not mean privacy; {ceiling}."
    return (
        f"{start}: this training is not differentially private with an epsilon below {found['epsilon']:.2f} "
        f"(delta {found['delta']:g}, confidence {found['level']:.0%}, one canary added or removed; Steinke et al. 2023); "
        f"{ceiling}."
    )


def _mean_interval(row: Mapping[str, Any]) -> str:
    """The interval of a mean exposure, or the number of canaries if there is none."""
    low, high = row["exposure"]["low"], row["exposure"]["high"]
    if low is None or high is None:
        return "for this canary only" if row["canaries"] == 1 else f"for these {row['canaries']:,} canaries only"
    return f"{low:.2f} to {high:.2f}"


def _exposure(found: Mapping[str, Any], ax: "Axes | None" = None) -> "Axes":
    """Exposure by repetitions, one row per number of repetitions."""
    with figures.style():
        axes: Axes = figures.panels(ax, 0.9 + 0.4 * len(found["by_repetitions"]))[0, 0]
        for place, row in enumerate(found["by_repetitions"]):
            mean, least, most = (row["exposure"][key] for key in ("mean", "least", "most"))
            # Rounding may put the mean of equal numbers slightly outside their range.
            reach = [[max(0.0, mean - least)], [max(0.0, most - mean)]]
            axes.errorbar(mean, place, xerr=reach, fmt="o", color=figures.COLORS["recollection"], ms=7, capsize=3)
        axes.axvline(found["chance_bits"], color=figures.GREY, lw=1, ls="--")
        axes.set_yticks(
            range(len(found["by_repetitions"])), [f"planted {row['repetitions']:,} x" for row in found["by_repetitions"]]
        )
        axes.set_ylim(len(found["by_repetitions"]) - 0.5, -0.5)
        axes.set_xlim(-0.1, 1.04 * found["most_bits"])
        axes.set_xlabel(f"exposure (bits; {found['most_bits']:.1f} is the maximum with {found['held_out']:,} held out)")
        return axes


def _personal(result: Mapping[str, Any]) -> Finding:
    found = result["personal_data"]
    if not found["measurable"]:
        return Finding("Personal data: not searched for", f"{found['reason']}.")
    rows = [
        [
            str(row["sequence_id"]),
            f"{row['windows']:,}",
            row["category"] or "unknown",
            ", ".join(row["personal_data"]),
            _quoted(row),
        ]
        for row in found["sequences"]
    ]
    text = (
        "E-mail addresses, telephone numbers, bank accounts, payment cards, identity numbers, public IP addresses and "
        "credentials in the extractable sequences, found in whole documents by format, checksum and numbering plan; "
        "a sequence counts if it contains any part of one. Postal addresses are masked by their format and not counted; names "
        "of people are neither masked nor counted."
    )
    heading = (
        f"{numbered(found['count'], 'memorized sequence', 'holds')} personal data{_distinct(found['count'], found['distinct'])}"
    )
    head = ("sequence_id", "Sequences", "Category", "Personal data", _text_head(result))
    return Finding(heading, text, f"{len(rows):,} of {_texts(found['distinct'])}", head, rows, quoted=True)


def _advice(result: Mapping[str, Any]) -> Finding:
    drop, copies = result["advice"]["drop"], result["advice"]["deduplicate"]
    effect = f"not predictable: {copies.get('reason')}"
    if copies["measurable"]:
        effect = (
            f"of these, {copies['expected_now']:.1f} are expected to be memorized now, {copies['expected_once_each']:.1f} then"
        )
    rows = [
        [
            "Drop the worrying",
            f"{len(drop['sequence_ids']):,}",
            f"of the rest {say_share(drop['rate_among_the_rest'])} is memorized",
        ],
        ["Keep one copy of each", f"{len(copies['sequence_ids']):,}", effect],
    ]
    if cleaned := result.get("clean"):
        went = f"{cleaned['worrying']:,} worrying and {cleaned['copies']:,} repeated rows left out of {cleaned['rows']:,}"
        rows.append(["Written to --clean", f"{numbered(cleaned['kept'], 'row')} of the training set", went])
    text = (
        "Expectations come from the fitted predictor, which describes associations, not causes: train again and run memtax "
        "compare. summary.json lists the sequences. The folder run/ contains unmasked texts of the training set: keep this "
        "folder, which only its owner can read, private."
    )
    return Finding("What to do", text, "Remedies", ("Remedy", "Sequences", "Expected effect"), rows)
