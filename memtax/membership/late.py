"""Attacks that read finished tables: gradients from `memtax align`, reference models from `memtax counterfactual`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from memtax import schema
from memtax.errors import MemtaxError
from memtax.membership.attacks import Attack
from memtax.membership.strong import POOLED, VARIANCES, deviations, log_mean_probability


@dataclass(frozen=True)
class StrongSettings:
    """Settings of LiRA and RMIA.

    Args:
        variances: for LiRA: `pooled` over all texts, `shrunk`, or `per_text`, which needs many models (`strong.deviations`).
        rmia_a: constant a of offline RMIA (no models trained on the text), from 0 to 1 (see `strong.rmia`).
    """

    variances: str = POOLED
    rmia_a: float = 1.0

    def __post_init__(self) -> None:
        if self.variances not in VARIANCES:
            raise MemtaxError(f"LiRA's variances must be one of {', '.join(VARIANCES)}, got {self.variances!r}")
        if not 0 <= self.rmia_a <= 1:
            raise MemtaxError(f"RMIA's a must be between 0 and 1, got {self.rmia_a}")


def check_finished(table: pa.Table, attacks: Sequence[Attack], columns: pa.Table | None, references: pa.Table | None) -> None:
    """Check that the finished tables have what the attacks need for these texts; cheap enough to do before the model runs.

    Raises:
        MemtaxError: a table or column is missing, or belongs to other texts.
    """
    needed = {need for attack in attacks if attack.late for need in attack.needs}
    if columns is not None and not any(need.startswith("column:") for need in needed):
        raise MemtaxError(f"no attack reads a column of the --columns table, which has: {', '.join(columns.column_names)}")
    for need in sorted(need for need in needed if need.startswith("column:")):
        _joined(columns, need.removeprefix("column:"), table, "--columns")
    if "references" in needed:
        for name in ("model_scores", "model_included"):
            _joined(references, name, table, "--references")


def late_scores(
    table: pa.Table,
    attacks: Sequence[Attack],
    columns: pa.Table | None,
    references: pa.Table | None,
    population: Sequence[int],
    settings: StrongSettings = StrongSettings(),
) -> pa.Table:
    """Add the scores of attacks that read finished tables.

    Args:
        table: `COLUMNS` of `memtax.corpus.membership_texts` and `attack_loss`.
        attacks: the attacks to compute.
        columns: `sequence_id` and the columns that the attacks read.
        references: `sequence_id`, `model_scores` and `model_included`.
        population: rows of the table that form RMIA's population.
        settings: settings of LiRA and RMIA.

    Raises:
        MemtaxError: a table or column is missing, or belongs to other texts.
    """
    if not attacks:
        return table
    ids = table.column("sequence_id").to_pylist()
    evidence: list[dict[str, Any]] = [{} for _ in ids]
    if "attack_loss" in table.column_names:
        _fill(evidence, "score", table.column("attack_loss").to_pylist())
    needed = {need for attack in attacks for need in attack.needs}
    for need in sorted(need for need in needed if need.startswith("column:")):
        _fill(evidence, need, _joined(columns, need.removeprefix("column:"), table, "--columns"))
    if "references" in needed:
        scores = _joined(references, "model_scores", table, "--references")
        included = _joined(references, "model_included", table, "--references")
        pairs = [_in_and_out(*pair) for pair in zip(scores, included, strict=True)]
        _fill(evidence, "deviations", deviations(pairs, settings.variances))
        if not all(pair[0] for pair in pairs if pair and pair[1]):
            # As for LiRA, one formula for all texts: online and offline scores cannot be ranked together.
            pairs = [pair and ([], pair[1]) for pair in pairs]
        _fill(evidence, "references", pairs)
        _fill(evidence, "rmia_a", [settings.rmia_a] * len(ids))
    if "population" in needed:
        _fill(evidence, "population", [_population(evidence, population)] * len(ids))
    for attack in attacks:
        values = [attack.scores(row)[attack.columns[0]] for row in evidence]
        table = table.append_column(attack.columns[0], pa.array(values, pa.float64()))
    return table


def _fill(evidence: Sequence[dict[str, Any]], name: str, values: Sequence[Any]) -> None:
    for row, value in zip(evidence, values, strict=True):
        row[name] = value


def _joined(finished: pa.Table | None, name: str, table: pa.Table, option: str) -> list[Any]:
    """A column of a finished table, aligned to the rows of `table`; None for rows that it lacks."""
    if finished is None:
        raise MemtaxError(f"an attack reads {name!r}: give the table that contains it with {option}")
    schema.require(finished.column_names, ("sequence_id", name), f"the table of {option}")
    found = dict(zip(finished.column("sequence_id").to_pylist(), finished.column(name).to_pylist(), strict=True))
    ids = table.column("sequence_id").to_pylist()
    if not found.keys() & set(ids):
        raise MemtaxError(f"the table of {option} has none of the texts' sequence_ids; was it made from other data?")
    if "text" in finished.column_names:
        # Equal numbers may be a coincidence if each table numbers its own rows.
        texts = dict(zip(finished.column("sequence_id").to_pylist(), finished.column("text").to_pylist(), strict=True))
        for number, text in zip(ids, table.column("text").to_pylist(), strict=True):
            if text is not None and number in texts and (texts[number] or "") != text:
                raise MemtaxError(
                    f"sequence_id {number} is a different text in the table of {option}; make that table from the same data, "
                    "in the same order and not in chunks"
                )
    return [found.get(number) for number in ids]


def _in_and_out(scores: Sequence[float | None] | None, included: Sequence[bool]) -> tuple[list[float], list[float]] | None:
    """Scores of models trained with the text, and of models trained without it."""
    if scores is None:
        return None
    pairs = [(score, inside) for score, inside in zip(scores, included, strict=True) if score is not None]
    return [score for score, inside in pairs if inside], [score for score, inside in pairs if not inside]


def _population(evidence: Sequence[Mapping[str, Any]], rows: Sequence[int]) -> tuple[Any, Any]:
    """LL of the population's texts, and the log of their mean probability under models trained without them."""
    known = [
        (evidence[row]["score"], log_mean_probability(evidence[row]["references"][1]))
        for row in rows
        if evidence[row].get("score") is not None and evidence[row].get("references") and evidence[row]["references"][1]
    ]
    if not known:
        raise MemtaxError("attack 'rmia' needs a population: non-members with scores under reference models without them")
    return np.array([ours for ours, _ in known]), np.array([theirs for _, theirs in known])
