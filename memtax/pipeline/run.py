"""The whole job: describe the sequences, score them, explain and predict, write dataset and report."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from memtax import schema
from memtax.engine import World, once
from memtax.engine import run as run_stage
from memtax.filters.language_model import LanguageModelFilter
from memtax.hub.folder import Config, ParquetFiles
from memtax.hub.screening import public_name
from memtax.lm.loading import check_model, load_tokenizer, model_files
from memtax.pipeline.attached import attach
from memtax.pipeline.attached import check as check_attached
from memtax.pipeline.beyond_reference import by_category
from memtax.pipeline.config import RunConfig
from memtax.pipeline.guess_recall import OVERLAP, by_duplicates, by_overlap, cross_tabulate
from memtax.pipeline.neighbors import NEAREST
from memtax.pipeline.seen import gained_and_lost, since_seen
from memtax.pipeline.series import Member, each_member, growth, kinds_over_series, score_series
from memtax.pipeline.series_fits import fit_series
from memtax.pipeline.stages import ROWS_PER_BATCH, Described, describe, join, token_texts
from memtax.predictor import factors as declared
from memtax.predictor.correlations import correlations
from memtax.predictor.extraction_rates import extraction_rates
from memtax.predictor.inference import infer
from memtax.predictor.logistic import TooFewRowsError
from memtax.predictor.perplexities import perplexities_by_duplicates
from memtax.predictor.predictor import Predictor
from memtax.provenance import fingerprint_dataset, fingerprint_path
from memtax.record_shapes import TOTALS
from memtax.records import read_json
from memtax.statistics import Units

SCORES = tuple(LanguageModelFilter.columns)


@dataclass(frozen=True)
class RunFound:
    """Result of a run.

    Attributes:
        configs: configs of the dataset.
        metrics: every figure on the page.
        facts: first table of the card.
        inputs: name to fingerprint of each input.
    """

    configs: list[Config]
    metrics: dict[str, Any]
    facts: dict[str, Any]
    inputs: dict[str, str]


def run(config: RunConfig) -> RunFound | None:
    """Run everything that the configuration requests, in its output directory; finished stages are reused.

    Under `accelerate launch` or `torchrun`, filters and forward passes are shared among the processes.

    Returns:
        The result; None on all processes except the main one.

    Raises:
        MemtaxError: an input cannot be used.
        StaleOutputError: the output contains results of another configuration or input.
    """
    output = config.output
    check_attached(config)
    for member in _members(config):
        longest = 1 + config.continuation if config.answers else config.window
        check_model(member.path, member.revision, longest, len(config.opening))
    described = describe(config)
    dataset = join(described.dataset, _score(config, described.dataset, output / "scores" / "model"))
    if config.reference_model is not None:
        dataset = join(dataset, _score_reference(config, dataset, output))
    series = _score_series(config, described, dataset, output)
    return _conclude(config, described, dataset, series, output) if World.current().is_main else None


def _score(config: RunConfig, dataset: datasets.Dataset, folder: Path) -> pa.Table:
    scores = _scorer(config, Member(config.model, config.revision), token_logprobs=True)
    return run_stage(dataset, scores, folder, ROWS_PER_BATCH)


def _scorer(config: RunConfig, member: Member, **columns: Any) -> LanguageModelFilter:
    """The forward pass of one of the run's models; `columns` selects its columns."""
    same = ("prompt", "continuation", "dtype", "device_map", "quantization", "batch_size", "tokenizer", "answers")
    shared = {name: getattr(config, name) for name in same}
    return LanguageModelFilter(member.path, member.revision, bos=config.opening, **shared, **columns)


def _members(config: RunConfig) -> list[Member]:
    """All models that the run scores, its own first."""
    others = (*config.checkpoints, *config.models, *([config.reference_model] if config.reference_model else ()))
    return [Member(config.model, config.revision), *(Member.parse(text, config.model) for text in others)]


def _score_reference(config: RunConfig, dataset: datasets.Dataset, output: Path) -> pa.Table:
    """`is_memorized_by_reference` of every sequence."""
    assert config.reference_model is not None
    scored = _score_exactly(config, dataset, output / "scores" / "reference", Member.parse(config.reference_model, ""))
    return scored.select(["sequence_id", "is_memorized"]).rename_columns({"is_memorized": "is_memorized_by_reference"})


def _same_model(member: Member, config: RunConfig) -> bool:
    """Whether a member is the run's own model, by name or by weights; the last checkpoint of a training run usually is."""
    if (member.path, member.revision) == (config.model, config.revision):
        return True
    ours, theirs = model_files(config.model), model_files(member.path)
    return Path(member.path).is_dir() and [*map(fingerprint_path, theirs)] == [*map(fingerprint_path, ours)]


def _score_exactly(config: RunConfig, dataset: datasets.Dataset, folder: Path, member: Member) -> pa.Table:
    """Whether another model extracts each sequence, without other columns."""
    return run_stage(dataset, _scorer(config, member, exact_only=True), folder, ROWS_PER_BATCH)


def _score_series(
    config: RunConfig, described: Described, dataset: datasets.Dataset, output: Path
) -> dict[str, pa.Table | None]:
    """One row per checkpoint (or model) and sequence: the configs `checkpoints` and `models` of the dataset."""
    members = described.members
    own = dataset.with_format("arrow")[:]
    own = own.filter(own.column("is_member")).select(["sequence_id", "is_memorized", "match_length"])

    def scorer(kind: str) -> Callable[[int, Member], pa.Table]:
        def score(number: int, member: Member) -> pa.Table:
            if _same_model(member, config):
                return own
            return _score_exactly(config, members, output / "scores" / f"{kind}-{number:03d}", member)

        return score

    checkpoints = [Member.parse(text, config.model) for text in config.checkpoints]
    models = [Member.parse(text, config.model) for text in config.models]
    everyone = [Member(config.model, config.revision), *models] if models else []
    return {
        "checkpoints": score_series(checkpoints, members, scorer("checkpoint")),
        "models": score_series(everyone, members, scorer("model")),
    }


def _conclude(
    config: RunConfig,
    described: Described,
    dataset: datasets.Dataset,
    series: dict[str, pa.Table | None],
    output: Path,
) -> RunFound:
    """Everything after the forward pass, which takes only one process."""
    everything = dataset.with_format("arrow")[:]
    table = everything.filter(everything.column("is_member"))
    factors = (*declared.available(table.column_names, declared.PUBLISHED), *described.further_factors)
    units = Units.of_table(table)
    predictor, predictor_metrics = _fit(config, table, factors, output)
    metrics: dict[str, Any] = {
        "run": _describe_run(config, described, table, output),
        "units": {"unit": units.name, "units": units.count},
        "extraction": extraction_rates(table, units=units),
        "growth": growth(series["checkpoints"], units),
        "growth_by_size": growth(series["models"], units),
        **_in_time(config, table, series["checkpoints"], units),
        "kinds": _kinds(table, series, units),
        "fits": _fit_series(config, table, series, described.further_factors),
        "correlations": correlations(table, factors),
        "perplexities": perplexities_by_duplicates(table),
        "predictor": predictor_metrics,
        "inference": infer(table, factors),
        "guess_recall": _guess_recall(config, table),
        "nulls": {name: table.column(name).null_count for name in table.column_names if table.column(name).null_count},
        "skipped": described.skipped,
    }
    if config.held_out is not None:
        from memtax.membership.from_run import membership_of_run

        metrics["extraction"] |= _control(everything)
        metrics["membership"] = membership_of_run(everything)
    if config.reference_model is not None:
        metrics["reference"] = by_category(table)
    more, found = attach(config, table)
    metrics |= found
    features = _features(config, table, predictor)
    if config.mask_personal_data:
        from memtax.pipeline.personal import mask_attached, masked, personal_data

        personal = personal_data(config)
        features, everything = masked(features, personal), masked(everything, personal)
        more = [mask_attached(each) for each in more]
    configs = [*_configs(config, features, everything, series, output), *more]
    facts = metrics["run"]
    summary = {
        "model": facts["model"],
        "corpus": facts["corpus"],
        "corpus tokens": f"{facts['tokens']:,}",
        **({"occurrences in": facts["counted_in"]} if "counted_in" in facts else {}),
        "sequences": f"{facts['sequences']:,}",
        "prompt + continuation": _lengths(facts),
        "memorized": f"{metrics['extraction']['all']['memorized']:,}",
    }
    inputs = {**described.inputs, "model": fingerprint_path(config.model)}
    inputs |= {name: fingerprint_path(str(getattr(config, name))) for name in found}
    return RunFound(configs, metrics, summary, inputs)


def _lengths(facts: dict[str, Any]) -> str:
    before = "the conversation" if facts["prompt"] is None else facts["prompt"]
    return f"{before} + {facts['continuation']} tokens{' of the answer' if facts['prompt'] is None else ''}"


def _in_time(config: RunConfig, table: pa.Table, series: pa.Table | None, units: Units) -> dict[str, Any]:
    """What each checkpoint gained and lost, and memorization by time since a sequence was last seen."""
    own = Member(config.model, config.revision)
    alone = [({"model": own.model, "checkpoint": own.checkpoint, "step": own.step, "parameters": None}, table)]
    found = {
        "gained_and_lost": gained_and_lost(series, units),
        "since_seen": since_seen([*each_member(series)] or alone, table, config.recitation_threshold, units),
    }
    return {name: rows for name, rows in found.items() if rows}


def _fit_series(
    config: RunConfig, table: pa.Table, series: dict[str, pa.Table | None], further: tuple[str, ...]
) -> dict[str, list[dict[str, Any]]]:
    """A predictor for each checkpoint and model."""
    folder = config.output / "fits"
    return {name: fit_series(each, table, folder / name, config.seed, further) for name, each in series.items()}


def _kinds(table: pa.Table, series: dict[str, pa.Table | None], units: Units) -> dict[str, list[dict[str, Any]]]:
    """Rates for code and natural language over each series; without a series, for the run's model only."""
    over = {name: each for name, each in series.items() if each is not None}
    if not over:
        return {"model": kinds_over_series(None, table, units)}
    return {name: kinds_over_series(each, table, units) for name, each in over.items()}


def _control(everything: pa.Table) -> dict[str, dict[str, Any]]:
    """Extraction rates of held-out sequences, and of those whose continuation does not occur in the corpus."""
    held_out = everything.filter(pc.invert(everything.column("is_member")))
    absent = extraction_rates(held_out.filter(pc.equal(held_out.column("sequence_duplicates"), 0)))["all"]
    return {"held_out": extraction_rates(held_out)["all"], **({"held_out_absent": absent} if absent["sequences"] else {})}


def _features(config: RunConfig, table: pa.Table, predictor: Predictor | None) -> pa.Table:
    """The table as published: with the predictor's probability and each token decoded."""
    tokenizer = load_tokenizer(config.tokenizer or config.model, None if config.tokenizer else config.revision)
    pieces = pa.array(token_texts(table.column("tokens").to_pylist(), tokenizer), pa.list_(pa.string()))
    table = table.append_column("memorized_probability", _predict(predictor, table))
    return table.drop_columns(["is_member"]).append_column("token_texts", pieces)


def _configs(
    config: RunConfig, features: pa.Table, everything: pa.Table, series: dict[str, pa.Table | None], output: Path
) -> list[Config]:
    """The configs of the dataset, each with a description of its rows."""

    def finished(name: str, row: str, *path: str) -> Config:
        return Config(name, row, {"train": ParquetFiles((output.joinpath(*path),))})

    row = "One row per token of the vocabulary: how often it occurs in the corpus."
    tokens = finished("token_frequencies", row, "counts", "token_frequencies.parquet")
    row = "One row per sequence: how often its continuation occurs in the corpus."
    duplicates = finished("num_duplicates", row, "counts", "num_duplicates.parquet")
    row = "One row per sequence: its text, its factors, the model's scores and its category."
    configs = [Config("features", row, {"train": features}), tokens, duplicates]
    if config.places:
        row = "One row per sequence and one of the first places in the corpus where its continuation occurs."
        places = finished("places", row, "counts", "places.parquet")
        if config.mask_personal_data:
            from memtax.pipeline.personal import mask_attached

            places = mask_attached(places)
        configs.append(places)
    if config.embedding_model is not None:
        row = f"One row per sequence and one of its {NEAREST} nearest neighbors at a cosine of at least 0.8."
        configs.append(finished("neighbours", row, "neighbours", "neighbours.parquet"))
    if config.held_out is not None:
        keys = ["sequence_id", "is_member", "text", "document", "sequence_duplicates", *SCORES]
        row = "One row per sequence, from the corpus or held out of training, with the model's scores."
        configs.append(Config("membership", row, {"train": everything.select(keys)}))
    rows = {"checkpoints": "checkpoint of the training run", "models": "model"}
    return configs + [
        Config(name, f"One row per sequence and {rows[name]}.", {"train": each})
        for name, each in series.items()
        if each is not None
    ]


def _describe_run(config: RunConfig, described: Described, table: pa.Table, output: Path) -> dict[str, Any]:
    totals = read_json(output / "counts" / "totals.json", TOTALS)
    model, corpus = public_name(config.model), public_name(config.corpus)
    asked = f", asked by {totals['asked_by']}" if "asked_by" in totals else ""
    index = {"counted_in": f"{public_name(totals['source'])}{asked}"} if "source" in totals else {}
    return {
        **index,
        "title": config.title or f"{model} on {corpus}",
        "model": model,
        "corpus": corpus,
        "tokens": totals["tokens"],
        "sequences": table.num_rows,
        # The prompt of an answer is the conversation before it.
        "prompt": None if config.answers else config.prompt,
        "continuation": config.continuation,
        "bos": list(config.opening),
    }


def _guess_recall(config: RunConfig, table: pa.Table) -> dict[str, Any]:
    """The competing labels (Dentan et al. 2025) by category, by both definitions."""
    taxonomy, memorized = (table.column(name).to_pylist() for name in ("taxonomy", "is_memorized"))
    template = pc.or_kleene(table.column("is_incrementing"), table.column("is_repeating")).to_pylist()
    threshold = config.recitation_threshold
    prompts = table.column("prompt_tokens").to_pylist() if config.answers else config.prompt
    labels = {
        "by_overlap": by_overlap(memorized, template, table.column("tokens").to_pylist(), prompt=prompts),
        "by_duplicates": by_duplicates(memorized, table.column("sequence_duplicates").to_pylist(), threshold=threshold),
    }
    counts = {name: cross_tabulate(taxonomy, own) for name, own in labels.items()}
    return {"threshold": threshold, "overlap": OVERLAP, **counts}


def _fit(config: RunConfig, table: pa.Table, factors: tuple[str, ...], output: Path) -> tuple[Predictor | None, dict[str, Any]]:
    """The predictor and its metrics, or None and the reason why there is none; it is fitted once per table."""
    folder = output / "models" / "predictor"
    columns = [name for name in table.column_names if name in schema.COLUMNS]
    identity = {
        "stage": "predictor",
        "version": 4,
        "seed": config.seed,
        "table": fingerprint_dataset(table, columns),
    }
    try:
        once(
            folder,
            identity,
            lambda temporary: Predictor.fit(table, factors=factors, seed=config.seed).save_pretrained(temporary),
        )
    except TooFewRowsError as error:
        # A model that memorized nothing (or everything) is a finding, not a failure.
        return None, {"reason": str(error)}
    predictor = Predictor.from_pretrained(folder)
    return predictor, dict(predictor.metrics)


def _predict(predictor: Predictor | None, table: pa.Table) -> pa.Array:
    """Probabilities (rows,) float32; all null without a predictor."""
    return pa.nulls(table.num_rows, pa.float32()) if predictor is None else predictor.predict(table).cast(pa.float32())


__all__ = ["RunFound", "run"]
