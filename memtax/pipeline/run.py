"""Run the whole job: describe the sequences, score them, explain and predict, write dataset and report."""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memtax import report, schema
from memtax.engine import World, once
from memtax.engine import run as run_stage
from memtax.files import write_json
from memtax.filters.scores import LanguageModelFilter
from memtax.hub.folder import Config, write_dataset
from memtax.lm.loading import check_model, load_tokenizer, model_files
from memtax.pipeline.config import RunConfig
from memtax.pipeline.stages import ROWS_PER_BATCH, Described, describe, join, token_texts
from memtax.provenance import fingerprint_dataset, fingerprint_path, write_record
from memtax.taxonomy.correlations import correlations
from memtax.taxonomy.extraction_rates import extraction_rates
from memtax.taxonomy.guess_recall import OVERLAP, by_duplicates, by_overlap, cross_tabulate
from memtax.taxonomy.inference import infer
from memtax.taxonomy.logistic import TooFewRowsError
from memtax.taxonomy.predictor import Predictor

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

SCORES = tuple(LanguageModelFilter.columns)


@dataclass(frozen=True)
class RunResult:
    """Where the results are, and the figures of `metrics.json`."""

    output: Path
    report: Path
    metrics: Mapping[str, Any]


def run(config: RunConfig) -> RunResult:
    """Do everything the configuration asks for; what is finished already is reused.

    Under `accelerate launch` or `torchrun` the filters and the forward pass are shared among the processes.

    Raises:
        MemtaxError: an input cannot be used.
        StaleOutputError: the output holds results of another configuration or input.
    """
    started = time.time()
    world = World.current()
    output = Path(config.output)
    for model in (config.model, *config.checkpoints):
        check_model(model, config.revision if model == config.model else None, config.window)
    described = describe(config)
    scored = _score(config, described.dataset, output / "scores" / "model", config.model, True)
    dataset = join(described.dataset, scored)
    checkpoints = _score_checkpoints(config, described, scored, output)
    metrics: dict[str, Any] = {}
    if world.is_main:
        metrics = _conclude(config, described, dataset, checkpoints, output, started)
    world.wait()
    return RunResult(output, output / "report" / "index.html", metrics)


def _score(config: RunConfig, dataset: "datasets.Dataset", folder: Path, model: str, token_logprobs: bool) -> "pa.Table":
    scores = LanguageModelFilter(
        model=model,
        revision=config.revision if model == config.model else None,
        prompt=config.prompt,
        continuation=config.continuation,
        dtype=config.dtype,
        token_logprobs=token_logprobs,
    )
    return run_stage(dataset, scores, folder, ROWS_PER_BATCH)


def _score_checkpoints(config: RunConfig, described: Described, final: "pa.Table", output: Path) -> "pa.Table | None":
    """One row a checkpoint and sequence: the `checkpoints` config of the dataset."""
    import pyarrow as pa

    if not config.checkpoints:
        return None
    members = described.members
    final = final.filter(described.dataset.with_format("arrow")[:].column("is_member"))
    tables = []
    for number, checkpoint in enumerate(config.checkpoints):
        if _same_model(checkpoint, config.model):
            scored = final
        else:
            scored = _score(config, members, output / "scores" / f"checkpoint-{number:03d}", checkpoint, False)
        rows = scored.num_rows
        name = Path(checkpoint).name
        tables.append(
            pa.table(
                {
                    "sequence_id": scored.column("sequence_id"),
                    "taxonomy": members.with_format("arrow")[:].column("taxonomy"),
                    "checkpoint": pa.array([name] * rows, pa.string()),
                    "step": pa.array([_step(name)] * rows, pa.int64()),
                    "is_memorized": scored.column("is_memorized"),
                    "match_length": scored.column("match_length"),
                }
            )
        )
    return pa.concat_tables(tables)


def _same_model(one: str, other: str) -> bool:
    """Whether two folders hold the same weights: the last checkpoint of a training is usually the model itself."""
    return Path(one).is_dir() and [*map(fingerprint_path, model_files(one))] == [*map(fingerprint_path, model_files(other))]


def _step(name: str) -> int | None:
    """Optimizer steps from a checkpoint's name: `checkpoint-500` of the Trainer, `step143000` of Pythia."""
    found = re.fullmatch(r"(?:checkpoint-|step)(\d+)", name)
    return int(found[1]) if found else None


def _conclude(
    config: RunConfig,
    described: Described,
    dataset: "datasets.Dataset",
    checkpoints: "pa.Table | None",
    output: Path,
    started: float,
) -> dict[str, Any]:
    """Everything after the forward pass: it takes one process."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    everything = dataset.with_format("arrow")[:]
    table = everything.filter(everything.column("is_member"))
    tokenizer = load_tokenizer(config.tokenizer or config.model, None if config.tokenizer else config.revision)
    predictor, predictor_metrics = _fit(config, table, output)
    metrics: dict[str, Any] = {
        "run": _describe_run(config, described, table, output),
        "extraction": extraction_rates(table),
        "growth": _growth(checkpoints),
        "correlations": correlations(table),
        "predictor": predictor_metrics,
        "inference": infer(table),
        "guess_recall": _guess_recall(config, table),
        "nulls": {name: table.column(name).null_count for name in table.column_names if table.column(name).null_count},
        "skipped": described.skipped,
    }
    if config.held_out is not None:
        held_out = everything.filter(pc.invert(everything.column("is_member")))
        metrics["extraction"]["held_out"] = extraction_rates(held_out)["all"]
    table = table.append_column("memorized_probability", _predict(predictor, table))
    pieces = pa.array(token_texts(table.column("tokens").to_pylist(), tokenizer), pa.list_(pa.string()))
    table = table.drop_columns(["is_member"]).append_column("token_texts", pieces)

    counts = output / "counts"
    configs = [
        Config("features", "One row a sequence: its text, its factors, the model's scores and its category.", {"train": table}),
        Config(
            "token_frequencies",
            "One row a token of the vocabulary: how often it occurs in the corpus.",
            {"train": pq.read_table(counts / "token_frequencies.parquet")},
        ),
        Config(
            "num_duplicates",
            "One row a sequence: how often its continuation occurs in the corpus.",
            {"train": pq.read_table(counts / "num_duplicates.parquet")},
        ),
    ]
    if config.held_out is not None:
        keys = ["sequence_id", "is_member", "text", "document", *SCORES]
        row = "One row a sequence, those of the corpus and those held out of training, with the model's scores."
        configs.append(Config("membership", row, {"train": everything.select(keys)}))
    if checkpoints is not None:
        row = "One row a sequence and checkpoint of the training run."
        configs.append(Config("checkpoints", row, {"train": checkpoints}))
    run_facts = metrics["run"]
    summary = {
        "model": run_facts["model"],
        "corpus": run_facts["corpus"],
        "corpus tokens": f"{run_facts['tokens']:,}",
        "sequences": f"{run_facts['sequences']:,}",
        "prompt + continuation": f"{config.prompt} + {config.continuation} tokens",
        "memorized": f"{metrics['extraction']['all']['memorized']:,}",
    }
    metrics["run"]["seconds"] = round(time.time() - started, 1)
    write_dataset(output / "dataset", configs, f"{run_facts['title']}: memorized sequences", summary, config.license)
    write_json(output / "metrics.json", metrics)
    inputs = {**described.inputs, "model": fingerprint_path(config.model)}
    write_record(output / "run.yaml", "run", config.to_dict(), inputs)
    report.write(output)
    return metrics


def _describe_run(config: RunConfig, described: Described, table: "pa.Table", output: Path) -> dict[str, Any]:
    totals = json.loads((output / "counts" / "totals.json").read_text(encoding="utf-8"))
    model, corpus = (Path(name).name if Path(name).exists() else name for name in (config.model, config.corpus))
    return {
        "title": config.title or f"{model} on {corpus}",
        "model": model,
        "corpus": corpus,
        "tokens": totals["tokens"],
        "sequences": table.num_rows,
        "prompt": config.prompt,
        "continuation": config.continuation,
    }


def _growth(checkpoints: "pa.Table | None") -> list[dict[str, Any]]:
    """Extraction rates of each checkpoint, in the order of the checkpoints."""
    import pyarrow.compute as pc

    rows = []
    for name in dict.fromkeys(checkpoints.column("checkpoint").to_pylist()) if checkpoints is not None else ():
        assert checkpoints is not None
        mine = checkpoints.filter(pc.equal(checkpoints.column("checkpoint"), name))
        for category, rate in extraction_rates(mine).items():
            rows.append({"checkpoint": name, "step": mine.column("step")[0].as_py(), "category": category, **rate})
    return rows


def _guess_recall(config: RunConfig, table: "pa.Table") -> dict[str, Any]:
    """The competing labels (Dentan et al. 2025) by category, by both readings."""
    import pyarrow.compute as pc

    taxonomy, memorized = (table.column(name).to_pylist() for name in ("taxonomy", "is_memorized"))
    template = pc.or_kleene(table.column("is_incrementing"), table.column("is_repeating")).to_pylist()
    threshold = config.recitation_threshold
    labels = {
        "by_overlap": by_overlap(memorized, template, table.column("tokens").to_pylist(), prompt=config.prompt),
        "by_duplicates": by_duplicates(memorized, table.column("sequence_duplicates").to_pylist(), threshold=threshold),
    }
    counts = {name: cross_tabulate(taxonomy, own) for name, own in labels.items()}
    return {"threshold": threshold, "overlap": OVERLAP, **counts}


def _fit(config: RunConfig, table: "pa.Table", output: Path) -> tuple[Predictor | None, dict[str, Any]]:
    """The predictor and its metrics, or None and the reason why there is none; it is fitted once for the same table."""
    import datasets

    folder = output / "models" / "predictor"
    columns = [name for name in table.column_names if name in schema.COLUMNS and name not in ("text", "document")]
    identity = {
        "stage": "predictor",
        "version": 2,
        "seed": config.seed,
        "table": fingerprint_dataset(datasets.Dataset(table), columns),
    }
    try:
        once(folder, identity, lambda temporary: Predictor.fit(table, seed=config.seed).save_pretrained(temporary))
    except TooFewRowsError as error:
        # A model that memorized nothing (or everything) is a finding, not a failure.
        return None, {"reason": str(error)}
    predictor = Predictor.from_pretrained(folder)
    return predictor, dict(predictor.metrics)


def _predict(predictor: Predictor | None, table: "pa.Table") -> "pa.Array":
    """Probabilities (rows,) float32; all null without a predictor."""
    import pyarrow as pa

    return pa.nulls(table.num_rows, pa.float32()) if predictor is None else predictor.predict(table).cast(pa.float32())


__all__ = ["RunResult", "run"]
