"""`memtax mia`: membership inference from texts to figures, each next to a baseline without the model."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from memtax import schema
from memtax.corpus.conversations import SCORED
from memtax.corpus.membership_texts import COLUMNS
from memtax.engine import World
from memtax.errors import MemtaxError
from memtax.lm.folders import base_model
from memtax.lm.loading import load_tokenizer, split_revision
from memtax.lm.served_names import is_served
from memtax.lm.special_tokens import text_ids, without_bos
from memtax.membership.attacks import LATE, Attack, choose, registered
from memtax.membership.estimates import ALL, METRICS, RESAMPLES, Figures, figures
from memtax.membership.evidence import PARAMETERS, AttackFilter
from memtax.membership.late import StrongSettings, check_finished, late_scores
from memtax.membership.paired import FORCED
from memtax.progress import numbered, skipped
from memtax.provenance import fingerprint_table

Stage = Callable[..., pa.Table]

ROWS_PER_BATCH = 256
"""Texts per filter call, independent of the number of processes."""
SHOTS = 8
"""Non-members prefixed to each text by `recall`; Xie et al. find 7 to 12 best."""
POPULATION = 64
"""Maximum size of the non-member population for `rmia`, which is at most a quarter of the non-members."""
SEED = 1024

REWRITES = {"lowercase", "neighbours", "prefixed"}
"""Evidence from another version of a text."""

DEFAULT = ("loss", "zlib", "min_k", "min_k_plus_plus", "lowercase", "recall")
"""Attacks that need only the model and the texts."""


@dataclass(frozen=True)
class Membership:
    """Result of `infer_membership`.

    Attributes:
        table: one row per text with keys, label and scores.
        figures: for each domain the attacks with intervals, the blind baseline and the set test.
    """

    table: pa.Table
    figures: Mapping[str, Any]

    def metrics(self) -> pa.Table:
        """The figures in long form: one row per domain, attack and metric."""
        return pa.Table.from_pylist(_metric_rows(self.figures["domains"]))

    def lines(self) -> list[str]:
        """One line per domain and attack."""
        lines = []
        for domain, one in self.figures["domains"].items():
            lines.append(f"{domain}: {kinds(one)}")
            for name, reason in representatives(one):
                lines.append(f"  {name:<22}{_estimate(one['attacks'][name]['auroc'])}  {reason}")
            blind = one["blind"]
            alone = f" ({blind['feature']['name']} alone)" if blind["feature"] else ""
            lines.append(f"  {'blind baseline':<22}{_estimate(blind['auroc'])}  {blind['verdict']['reason']}{alone}")
            if test := one["set_test"]:
                beside = "unknown" if test["blind_p_value"] is None else f"{test['blind_p_value']:.3g}"
                lines.append(f"  {'all attacks together':<22}p = {test['p_value']:.3g}; the texts alone: p = {beside}")
        return lines


def kinds(one: Mapping[str, Any]) -> str:
    """Number of texts and units in a domain, per class."""
    units = one["units"]
    found = f"{numbered(one['members'], 'member')}, {numbered(one['nonmembers'], 'non-member')}"
    if (units["members"], units["nonmembers"]) != (one["members"], one["nonmembers"]):
        found += f", of {units['members']:,} and {units['nonmembers']:,} {units['name']}"
    if one["copies"]:
        found += f"; {numbered(one['copies'], 'further copy')} left out"
    if one["shared"]:
        found += f"; {numbered(one['shared'], 'text')} of both kinds left out"
    return found


def infer_membership(
    data: pa.Table,
    scorer: AttackFilter,
    stage: Stage,
    *,
    attacks: Sequence[str] = DEFAULT,
    columns: pa.Table | None = None,
    references: pa.Table | None = None,
    shots: int = SHOTS,
    resamples: int = RESAMPLES,
    strong: StrongSettings = StrongSettings(),  # noqa: B008 - frozen
) -> Membership:
    """Score texts and compare members with non-members.

    Args:
        data: from `memtax.corpus.membership_texts.load_membership`; from `load_neighbours` if neighbors are given.
        scorer: the model and its settings; its `attacks` and `prefixes` are set here.
        stage: runs a filter over rows, given a folder name, rows per batch and batches per part; see
            `memtax.jobs.base.Work.stage`.
        attacks: names of registered attacks.
        columns: `sequence_id` and the columns that attacks such as `gradient_norm` read.
        references: `sequence_id`, `model_scores` and `model_included` from `memtax counterfactual`, for `lira` and `rmia`.
        shots: number of non-members per domain that `recall` uses as the prefix; they are excluded from evaluation.
        resamples: number of bootstrap resamples for the intervals.
        strong: variances of LiRA and the constant a of RMIA.

    Raises:
        MemtaxError: an input is missing or belongs to other texts, or no text is left to evaluate.
        StaleOutputError: there are parts from another input or other settings.
    """
    chosen = choose(attacks)
    data = prepare(data, scorer)
    # Checked before the model runs, so that a table that does not match wastes no hours.
    check_finished(data, chosen, columns, references)
    skipped(
        sum(len(tokens) < 2 for tokens in data.column("tokens").to_pylist()), "without a token to score; its scores are null"
    )
    prefixed, population = _reserve(data, chosen, shots)
    scorer = _early_scorer(scorer, chosen, data, prefixed)
    prepared = data.select(["sequence_id", *scorer.requires])
    rows = datasets.Dataset(prepared, fingerprint=fingerprint_table(prepared))
    scored = stage(rows, scorer, "parts", ROWS_PER_BATCH, 1)
    table = pa.table({**{name: data.column(name) for name in COLUMNS}, **{c: scored.column(c) for c in scorer.columns}})
    table = late_scores(table, [attack for attack in chosen if attack.late], columns, references, population, strong)
    kept = np.ones(len(table), bool)
    kept[[*prefixed, *population]] = False
    table = table.filter(pa.array(kept))
    names = [column for attack in chosen for column in attack.columns]
    table, forced = _over_set(table, chosen)
    figures_found = {
        "model": scorer.model,
        "bos": list(scorer.opening),
        "attacks": [attack.name for attack in chosen],
        "reserved": {"recall": len(prefixed), "rmia": len(population)},
        "frequencies": scorer.frequencies,
        "reference_model": scorer.reference_model,
        "forced": forced,
        "strong": asdict(strong) if {"lira", "rmia"} & set(attacks) else None,
        # Only the main process needs the bootstraps, which are slow.
        "domains": figures(table, names, resamples) if World.current().is_main else {},
    }
    columns_kept = ["sequence_id", "domain", "document", "is_member", "chunk_start", "chunk_end", *dict.fromkeys(names)]
    return Membership(schema.validate(table, columns_kept, "the scores"), figures_found)


def _early_scorer(scorer: AttackFilter, chosen: Sequence[Attack], data: pa.Table, prefixed: Sequence[int]) -> AttackFilter:
    """The filter for the attacks that read passes of the model, with the score that late attacks read."""
    for name, reason in unsuited(data, [attack.name for attack in chosen]).items():
        raise MemtaxError(f"attack {name!r} is not possible: {reason}; leave it out")
    early = tuple(attack.name for attack in chosen if not attack.late)
    needs_score = any("score" in attack.needs for attack in chosen)
    run = tuple(dict.fromkeys((*early, *(("loss",) if needs_score or not early else ()))))
    return replace(scorer, attacks=run, prefixes=_prefixes(data, prefixed), answers=SCORED in data.column_names)


def _over_set(table: pa.Table, chosen: Sequence[Attack]) -> tuple[pa.Table, dict[str, int]]:
    """The scores of attacks whose scores depend on the whole set, and the number of texts placed by rule in each."""
    forced = {}
    for attack in chosen:
        for column in attack.columns if attack.over_set else ():
            single = table.column(column).to_pylist()
            assert attack.over_set is not None
            place = table.column_names.index(column)
            table = table.set_column(place, column, pa.array(attack.over_set(single), pa.float64()))
            forced[attack.name] = sum(value is not None and value >= FORCED for value in single)
    return table, forced


def default_reference(model: str, reference: str | None, attacks: Sequence[str]) -> str | None:
    """The reference model: the one given, else an adapter's base model if an attack reads one; None without either.

    Args:
        model: folder or Hub name of the attacked model, NAME@REVISION for a revision.
        reference: the reference model given.
        attacks: names of the requested attacks; empty for all that are possible.
    """
    reading = any(PARAMETERS.get(need) == ("reference_model",) for attack in choose(attacks) for need in attack.needs)
    base = base_model(*split_revision(model)) if reference is None and (reading or not attacks) else None
    return reference if base is None else "@".join(part for part in base if part)


def possible_attacks(
    parameters: Mapping[str, Any], tables: Mapping[str, pa.Table], table: pa.Table, *, chunks: bool
) -> tuple[str, ...]:
    """Attacks that are possible with the given models, tables and texts.

    Args:
        parameters: parameters of `AttackFilter`.
        tables: the given tables among `columns` and `references`.
        table: the texts.
        chunks: whether chunks of texts are scored.
    """
    present = tables["columns"].column_names if "columns" in tables else []

    def is_given(need: str) -> bool:
        if need in REWRITES and SCORED in table.column_names:
            return False
        if need.startswith("column:"):
            return need.removeprefix("column:") in present
        if need == "prefixed":  # the prefix is made of whole non-member texts
            return not chunks and _enough_for_prefixes(table)
        if need in LATE:
            return "references" in tables
        fields = PARAMETERS.get(need, ())
        return not fields or any(parameters.get(field) for field in fields)

    names = [attack.name for attack in registered().values() if all(map(is_given, attack.needs))]
    return tuple(sorted(names, key=lambda name: name not in DEFAULT))


def without_unavailable(attacks: Sequence[str], model: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """The attacks that a model gives the evidence for, and the others with the reason.

    Args:
        attacks: names of attacks.
        model: name of the attacked model.

    Raises:
        MemtaxError: no attack is left.
    """
    if not is_served(model):
        return tuple(attacks), {}
    reasons = {
        attack.name: "it needs the distribution over the vocabulary"
        if "moments" in attack.needs
        else "it needs the model itself"
        for attack in choose(attacks)
        if "moments" in attack.needs or attack.gather is not None
    }
    left = tuple(name for name in attacks if name not in reasons)
    if attacks and not left:
        raise MemtaxError(f"a served model gives log-probabilities only; {', '.join(reasons)} cannot be computed")
    return left, reasons


def unsuited(texts: pa.Table, attacks: Sequence[str] = DEFAULT) -> dict[str, str]:
    """The attacks that conversations do not allow, with the reason."""
    if SCORED not in texts.column_names:
        return {}
    reason = "it compares a text with another version of it, and conversations keep the form of their template"
    return {attack.name: reason for attack in choose(attacks) if REWRITES & set(attack.needs)}


def _enough_for_prefixes(table: pa.Table) -> bool:
    """Whether any domain has enough non-members for a prefix."""
    counts = Counter(
        domain
        for domain, member, start in zip(
            *(table.column(name).to_pylist() for name in ("domain", "is_member", "chunk_start")), strict=True
        )
        if not member and start is None
    )
    return any(count >= 4 for count in counts.values())


def prepare(data: pa.Table, scorer: AttackFilter) -> pa.Table:
    """Add tokens for every text and, if a tokenizer is available, text for every row of tokens; without BOS."""
    opening = scorer.opening
    texts = data.column("text").to_pylist()
    tokens = [None if ids is None else without_bos(ids, opening) for ids in data.column("tokens").to_pylist()]
    if any(ids is None for ids in tokens):
        tokenizer = load_tokenizer(scorer.tokenizer or scorer.model, None if scorer.tokenizer else scorer.revision)
        rows = [row for row, ids in enumerate(tokens) if ids is None]
        unique = list(dict.fromkeys(texts[row] or "" for row in rows))
        found = dict(zip(unique, text_ids(tokenizer, unique), strict=True))
        for row in rows:
            tokens[row] = without_bos(found[texts[row] or ""], opening)
    elif any(text is None for text in texts):
        try:
            tokenizer = load_tokenizer(scorer.tokenizer or scorer.model, None if scorer.tokenizer else scorer.revision)
        except MemtaxError:
            # Attacks that read text then have no score.
            tokenizer = None
        if tokenizer is not None:
            texts = [tokenizer.decode(ids) if text is None else text for text, ids in zip(texts, tokens, strict=True)]
    columns = {"text": pa.array(texts, pa.string()), "tokens": pa.array(tokens, pa.list_(pa.int32()))}
    if "document" not in data.column_names:
        data = data.append_column("document", pa.nulls(len(data), pa.string()))
    names = [*COLUMNS, *(name for name in ("neighbour_texts", SCORED) if name in data.column_names)]
    return schema.validate(pa.table({**{name: data.column(name) for name in names}, **columns}), names, "the texts")


def _reserve(data: pa.Table, chosen: Sequence[Attack], shots: int) -> tuple[list[int], list[int]]:
    """Rows of non-members used as prefixes and as RMIA's population; both are excluded from evaluation."""
    by_prefix = [attack.name for attack in chosen if "prefixed" in attack.needs]
    shots = shots if by_prefix else 0
    population = any("population" in attack.needs for attack in chosen)
    rng = np.random.default_rng(SEED)
    labels = np.array(data.column("is_member").to_pylist(), bool)
    whole = np.array([start is None for start in data.column("chunk_start").to_pylist()], bool)
    domains = np.array(data.column("domain").to_pylist(), object)
    prefixed: list[int] = []
    others: list[int] = []
    for domain in dict.fromkeys(domains.tolist()):
        rows = rng.permutation(np.flatnonzero((domains == domain) & ~labels & whole)).tolist()
        # At least half of the non-members remain for evaluation.
        count = min(shots, len(rows) // 4)
        prefixed += rows[:count]
        others += rows[count : count + len(rows) // 4] if population else []
    if by_prefix and not prefixed:
        named = f"attack {by_prefix[0]!r}"
        raise MemtaxError(f"{named} uses non-members as prefixes: give at least 4 in a domain, or leave {named} out")
    return sorted(prefixed), sorted(rng.permutation(others).tolist()[:POPULATION])


def _prefixes(data: pa.Table, rows: Sequence[int]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    found: dict[str, list[int]] = {}
    for row in rows:
        found.setdefault(data.column("domain")[row].as_py(), []).extend(data.column("tokens")[row].as_py())
    return tuple((domain, tuple(tokens)) for domain, tokens in found.items())


def _metric_rows(domains: Mapping[str, Figures]) -> list[dict[str, Any]]:
    """The figures in long form: one row per domain, attack and metric."""
    found = []
    for domain, one in domains.items():
        for name, metrics in {**one["attacks"], "blind": one["blind"]}.items():
            shows = metrics.get("verdict", {}).get("shows_membership")
            for metric in METRICS:
                value = {key: (metrics[metric] or {}).get(key) for key in ("value", "low", "high")}
                counts = {key: metrics[key] for key in ("members", "nonmembers", "without_score")}
                found.append({"domain": domain, "attack": name, "metric": metric, **value, **counts, "shows_membership": shows})
    return found


def _estimate(value: Mapping[str, float] | None) -> str:
    if value is None or value["value"] is None:
        return "—"
    return f"{value['value']:.3f}" + ("" if value["low"] is None else f" ({value['low']:.3f} to {value['high']:.3f})")


def representatives(one: Mapping[str, Any]) -> list[tuple[str, str]]:
    """For each attack, the column to report (the middle k of a grid, not the best) and its label."""
    found = []
    for attack in registered().values():
        columns = [column.removeprefix("attack_") for column in attack.columns]
        middle = columns[1] if len(columns) > 1 else columns[0]
        if middle in one["attacks"]:
            found.append((middle, one["attacks"][middle]["verdict"]["reason"]))
    return found


__all__ = [
    "ALL",
    "DEFAULT",
    "Membership",
    "default_reference",
    "infer_membership",
    "possible_attacks",
    "prepare",
    "representatives",
    "unsuited",
    "without_unavailable",
]
