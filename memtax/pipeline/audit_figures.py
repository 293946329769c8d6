"""Figures of the audit of a fine-tuned model: what can be extracted from it, how severe that is, and what to do."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from memtax import statistics
from memtax.errors import MemtaxError
from memtax.lm.extraction import discoverable
from memtax.lm.served_names import is_served
from memtax.membership.canaries import Canary, find_record, read_out, read_record
from memtax.pipeline.audit_texts import KINDS, Row, distinct, kind_of, listed, personal_figures, read_rows
from memtax.pipeline.config import RunConfig
from memtax.pipeline.personal import personal_data
from memtax.record_shapes import ADAPTER
from memtax.records import read_json

SAMPLES, PROBABILITIES = (1, 100, 10_000), (0.1, 0.5, 0.9)


def audit_figures(
    config: RunConfig,
    metrics: Mapping[str, Any],
    planted: Sequence[Canary],
    membership: Mapping[str, Any],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Figures of an audit, from a run over the training set of a model.

    Args:
        config: configuration of the finished run.
        metrics: metrics of the run.
        planted: canaries in the training set.
        membership: figures of membership inference, or the reason why there are none.
        about: facts about the audit: `model`, `adapter`, `base`, `train`, `held_out`, `personal_data_shown`.
    """
    folder = config.output
    table = pq.read_table(folder / "dataset" / "features" / "train.parquet")
    rows = read_rows(folder, personal_data(config))
    units = _units(folder)
    return {
        **about,
        "window": {name: metrics["run"][name] for name in ("prompt", "continuation")},
        "bos": metrics["run"]["bos"],
        "sequences": len(rows),
        "distinct": {"sequences": distinct(rows), "memorized": distinct([row for row in rows if row["is_memorized"]])},
        "skipped": metrics["skipped"],
        "extraction": metrics["extraction"],
        "sampling": discoverable([row["continuation_logprob"] for row in rows], SAMPLES, PROBABILITIES, units),
        "kinds": _kinds(rows, units),
        "canaries": _canaries(planted, config),
        "membership": dict(membership),
        "personal_data": personal_figures(rows),
        "advice": _advice(table, rows, units, folder),
        "worrying_sequences": listed([row for row in rows if kind_of(row) == "worrying"]),
    }


def kinds_table(kinds: Mapping[str, Mapping[str, Any]]) -> pa.Table:
    """The kinds of memorized sequences as a table.

    Args:
        kinds: `kinds` of the figures.
    """
    keys = ("memorized", "sequences", "distinct", "rate", "low", "high")
    return pa.Table.from_pylist([{"kind": name, **{key: row.get(key) for key in keys}} for name, row in kinds.items()])


def worrying_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The worrying sequences as a table.

    Args:
        rows: `worrying_sequences` of the figures.
    """
    kinds = {name: pa.string() for name in ("document", "category", "text")}
    kinds |= {name: pa.int64() for name in ("sequence_id", "duplicates", "windows")} | {"personal_data": pa.list_(pa.string())}
    order = ("sequence_id", "document", "category", "duplicates", "windows", "personal_data", "text")
    return pa.Table.from_pylist([*map(dict, rows)], schema=pa.schema([(name, kinds[name]) for name in order]))


def planted_canaries(canaries: Path | None, audited: str) -> list[Canary]:
    """Planted canaries from a record, or from the folder of the model or adapter; empty if there are none."""
    record = canaries if canaries is not None else find_record(audited)
    return read_record(record) if record is not None else []


def check_adapter(adapter: str, model: str) -> None:
    """Check that the adapter belongs to the model, since loading uses the base model that the adapter names."""
    file = Path(adapter) / "adapter_config.json"
    if not Path(adapter).is_dir():
        return
    if not file.exists():
        raise MemtaxError(f"{adapter} is not an adapter: adapter_config.json is missing; give a whole model with --model alone")
    base = read_json(file, ADAPTER, finite=False).get("base_model_name_or_path")
    same = base == model.partition("@")[0] or (Path(str(base)).exists() and Path(str(base)).resolve() == Path(model).resolve())
    if not same:
        raise MemtaxError(f"the adapter {adapter} was trained on {base!r}, not on {model!r}; give that as --model")


def _units(folder: Path) -> statistics.Units:
    """Documents of the members, by their unmasked names: the features have masked names."""
    sequences = pq.read_table(folder / "sequences" / "train.parquet")
    return statistics.Units.of_table(sequences.filter(sequences.column("is_member")))


def _kinds(rows: Sequence[Row], units: statistics.Units) -> dict[str, Any]:
    """Memorized sequences by kind, as a share of all with a verdict, with intervals over documents."""
    known = np.array([row["is_memorized"] is not None for row in rows], bool)
    kinds = np.array([kind_of(row) for row in rows], object)
    return {
        name: {
            **statistics.share(kinds[known] == name, units[known]),
            "distinct": distinct([row for row, kind in zip(rows, kinds, strict=True) if kind == name]),
        }
        for name in KINDS
    }


def _canaries(planted: Sequence[Canary], config: RunConfig) -> dict[str, Any]:
    """Exposure and extraction of planted canaries, or the reason why there are none."""
    if not planted:
        return {"measurable": False, "reason": "no record of planted canaries was given"}
    base = config.reference_model if _same_tokenizer(config) else None
    try:
        found = read_out(planted, config.model, config.revision, config.dtype, config.opening, base, config.tokenizer)
    except MemtaxError as error:
        if not is_served(config.model):
            raise
        return {"measurable": False, "reason": str(error)}
    return {"measurable": True, **found}


def _same_tokenizer(config: RunConfig) -> bool:
    """Whether the base model reads the tokens of the audited one, as far as both have a tokenizer."""
    from memtax.lm.loading import load_tokenizer, split_revision
    from memtax.membership.evidence import same_tokenization

    if config.reference_model is None:
        return False
    try:
        names = ((config.tokenizer or config.model, None), split_revision(config.reference_model))
        return same_tokenization(*(load_tokenizer(*name) for name in names))
    except MemtaxError:
        return True


def _advice(table: pa.Table, rows: Sequence[Row], units: statistics.Units, folder: Path) -> dict[str, Any]:
    """Sequences to drop, sequences to deduplicate, and the predicted effect of the deduplication."""
    drop = [row["sequence_id"] for row in rows if kind_of(row) == "worrying"]
    # Only copies can be removed; what the base model completes anyway is unaffected.
    places = [
        place
        for place, row in enumerate(rows)
        if row["is_memorized"] and (row["sequence_duplicates"] or 0) > 1 and not row.get("is_memorized_by_reference")
    ]
    rest = np.array([row["is_memorized"] is not None and kind_of(row) != "worrying" for row in rows], bool)
    memorized = np.array([bool(row["is_memorized"]) for row in rows], bool)
    after = statistics.share(memorized[rest], units[rest])
    return {
        "drop": {"sequence_ids": drop, "rate_among_the_rest": after},
        "deduplicate": {"sequence_ids": [rows[place]["sequence_id"] for place in places], **_predicted(table, places, folder)},
    }


def _predicted(table: pa.Table, places: Sequence[int], folder: Path) -> dict[str, Any]:
    """Expected number of memorized sequences with their copies and with one copy each, by the predictor."""
    from memtax.filters.taxonomy import taxonomy
    from memtax.predictor.predictor import Predictor

    if not places:
        return {"measurable": False, "reason": "no memorized sequence occurs more than once"}
    if not (folder / "models" / "predictor").exists():
        return {"measurable": False, "reason": "too few sequences were memorized, or not, to fit a predictor"}
    chosen = table.take(list(places)).drop_columns(["memorized_probability"])
    ones = pa.array([1] * len(places), pa.int64())
    labels = taxonomy(*(each.to_pylist() for each in (ones, chosen.column("is_incrementing"), chosen.column("is_repeating"))))
    alone = chosen.set_column(chosen.column_names.index("sequence_duplicates"), "sequence_duplicates", ones)
    place = alone.column_names.index("taxonomy")
    alone = alone.set_column(place, alone.schema.field(place), pa.array(labels, alone.schema.field(place).type))
    predictor = Predictor.from_pretrained(folder / "models" / "predictor")
    sums = [_total(predictor.predict(each).to_pylist()) for each in (chosen, alone)]
    if None in sums:
        return {"measurable": False, "reason": "a factor of the predictor is missing for these sequences"}
    return {"measurable": True, "expected_now": sums[0], "expected_once_each": sums[1]}


def _total(values: Sequence[float | None]) -> float | None:
    return None if any(value is None for value in values) else float(sum(value for value in values if value is not None))
