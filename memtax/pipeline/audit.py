"""The audit of a fine-tuned model: what it can be made to say of its training set, how bad that is, and what to do."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memtax import statistics
from memtax.checksums import seal
from memtax.errors import MemtaxError
from memtax.files import make_private, read_json, write_json, write_text
from memtax.leakage.canaries import Canary, find_record, read_out, read_record
from memtax.lm.extraction import discoverable
from memtax.pipeline.audit_page import card_section, write
from memtax.pipeline.audit_texts import KINDS, Row, distinct, kind_of, listed, personal_figures, read_rows
from memtax.pipeline.config import RunConfig
from memtax.pipeline.personal import personal_data
from memtax.pipeline.run import run
from memtax.record_shapes import ADAPTER

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 2
"""Of `audit.json`: raised when a key changes its meaning or goes."""

ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus")
SAMPLES, PROBABILITIES = (1, 100, 10_000), (0.1, 0.5, 0.9)


def audit(
    model: str,
    train: str,
    output: Path | str,
    *,
    adapter: str | None = None,
    held_out: str | None = None,
    column: str | None = None,
    prompt: int = 32,
    continuation: int = 32,
    dtype: str = "float32",
    region: str = "US",
    resamples: int = 1000,
    canaries: Path | str | None = None,
    bos: str = "auto",
    show_personal_data: bool = False,
) -> dict[str, Any]:
    """Audit a model against its training set; finished parts in `output` are reused.

    Args:
        model: folder or Hub name, `NAME@REVISION` for a revision.
        train: what it was trained on, as `path[:config[:split]]`.
        output: the folder: `audit.json`, `index.html`, `card_section.md`, `run/`, `membership/`.
        adapter: folder or Hub name of a LoRA adapter of `model`, which is then what is audited; what `model` completes
            without the adapter counts as predictable.
        held_out: texts of the same kind that it was not trained on.
        column: column of text or tokens.
        prompt: prompt tokens.
        continuation: continuation tokens.
        dtype: number format of the weights.
        region: country of telephone numbers without a country code.
        resamples: bootstrap resamples of the intervals of membership inference.
        canaries: record of planted canaries, as `training/finetune_lora.py` writes it; by default the one in the folder of the
            model or adapter, if there is one.
        bos: what the model reads before each sequence, one of `memtax.lm.special_tokens.BOS`.
        show_personal_data: quote texts as they are, in page, JSON and the run's dataset and report, for those who may see them.
            Reports, comparisons, explorers and pushes made of the audit follow it.

    Returns:
        The contents of `audit.json`.

    Raises:
        MemtaxError: an input cannot be used.
    """
    from memtax.lm.loading import split_revision

    output = Path(output)
    audited = adapter or model
    if adapter is not None:
        _check_adapter(adapter, model)
    name, revision = split_revision(audited)
    config = RunConfig(
        model=name,
        revision=revision,
        corpus=train,
        output=str(output / "run"),
        held_out=held_out,
        column=column,
        tokenizer=split_revision(model)[0] if adapter else None,
        reference_model=model if adapter else None,
        prompt=prompt,
        continuation=continuation,
        dtype=dtype,
        bos=bos,
        mask_personal_data=not show_personal_data,
        region=region,
    )
    make_private(output)
    metrics = run(config).metrics
    record = Path(canaries) if canaries is not None else find_record(audited)
    planted = read_record(record) if record is not None else []
    membership = _membership(config, audited, output, held_out, resamples)
    from memtax.engine import World

    if not World.current().is_main:
        return {}
    table = _features(output / "run")
    rows = read_rows(output / "run", personal_data(config))
    units = _units(output / "run")
    result: dict[str, Any] = {
        "schema": "memtax.audit",
        "schema_version": SCHEMA_VERSION,
        "model": model,
        "adapter": adapter,
        "train": train,
        "held_out": held_out,
        "window": {"prompt": prompt, "continuation": continuation},
        "bos": metrics["run"]["bos"],
        "personal_data_shown": show_personal_data,
        "sequences": len(rows),
        "distinct": {"sequences": distinct(rows), "memorized": distinct([row for row in rows if row["is_memorized"]])},
        "skipped": metrics["skipped"],
        "extraction": metrics["extraction"],
        "sampling": discoverable([row["continuation_logprob"] for row in rows], SAMPLES, PROBABILITIES, units),
        "kinds": _kinds(rows, units),
        "canaries": _canaries(planted, config),
        "membership": membership,
        "personal_data": personal_figures(rows),
        "advice": _advice(table, rows, units, output / "run"),
        "worrying_sequences": listed([row for row in rows if kind_of(row) == "worrying"]),
    }
    write_json(output / "audit.json", result)
    write_text(output / "card_section.md", card_section(result))
    write(output / "index.html", result)
    seal(output, "the same memtax audit command", "audit", ("audit.json", "card_section.md"))
    make_private(output, ("audit.json", "index.html", "card_section.md", "run", "membership"))
    return result


def _check_adapter(adapter: str, model: str) -> None:
    """That the adapter belongs to the model: loading takes the base that the adapter names."""
    file = Path(adapter) / "adapter_config.json"
    if not Path(adapter).is_dir():
        return
    if not file.exists():
        raise MemtaxError(f"{adapter} is no adapter: adapter_config.json is missing; give a whole model with --model alone")
    base = read_json(file, ADAPTER, finite=False).get("base_model_name_or_path")
    same = base == model.partition("@")[0] or (Path(str(base)).exists() and Path(str(base)).resolve() == Path(model).resolve())
    if not same:
        raise MemtaxError(f"the adapter {adapter} was trained on {base!r}, not on {model!r}; give that as --model")


def _features(folder: Path) -> "pa.Table":
    import pyarrow.parquet as pq

    return pq.read_table(folder / "dataset" / "features" / "train.parquet")


def _units(folder: Path) -> statistics.Units:
    """Documents of the members, by their names as they are: the features have them masked."""
    import pyarrow.parquet as pq

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
    """Exposure and extraction of planted canaries, or why there is none."""
    if not planted:
        return {"measurable": False, "reason": "no record of planted canaries was given"}
    return {"measurable": True, **read_out(planted, config.model, config.revision, config.dtype, config.opening)}


def _membership(config: RunConfig, audited: str, output: Path, held_out: str | None, resamples: int) -> dict[str, Any]:
    """AUROC of every attack beside the blind baseline, or why there is none."""
    if held_out is None:
        return {"measurable": False, "reason": "no held-out texts were given; they are what members are compared with"}
    from memtax.leakage.membership import run_command

    found = run_command(
        audited,
        output / "membership",
        members=config.corpus,
        nonmembers=held_out,
        attack=ATTACKS,
        column=config.column,
        resamples=resamples,
        tokenizer=config.tokenizer,
        dtype=config.dtype,
        bos=config.bos,
    )
    return {"measurable": True, "domains": found.summary["domains"]}


def _advice(table: "pa.Table", rows: Sequence[Row], units: statistics.Units, folder: Path) -> dict[str, Any]:
    """Which sequences to drop, which to deduplicate, and what the predictor expects of the second."""
    drop = [row["sequence_id"] for row in rows if kind_of(row) == "worrying"]
    # Only copies can be taken away; what the base model says anyway stays as it is.
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


def _predicted(table: "pa.Table", places: Sequence[int], folder: Path) -> dict[str, Any]:
    """Memorized sequences that the predictor expects with their copies and with one copy each."""
    import pyarrow as pa

    from memtax.taxonomy.labels import taxonomy
    from memtax.taxonomy.predictor import Predictor

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
