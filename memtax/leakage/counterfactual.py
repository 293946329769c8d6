"""`memtax counterfactual`: how much likelier a text is for models trained with it than for models trained without.

The models are trained through `training/finetune_lora.py`, each on a random half of the texts, and then serve LiRA and RMIA
as reference models.
"""

import functools
import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from memtax import schema, statistics
from memtax.corpus import membership
from memtax.engine import World
from memtax.engine import run as run_stage
from memtax.engine.once import once
from memtax.errors import MemtaxError
from memtax.files import asset, write_json, write_parquet, write_text
from memtax.leakage.evidence import AttackFilter
from memtax.leakage.membership import ROWS_PER_BATCH, prepare
from memtax.progress import progress_bar, silence_libraries
from memtax.provenance import digest, fingerprint_path, write_record

COLUMNS = (
    "sequence_id",
    "counterfactual_memorization",
    "counterfactual_low",
    "counterfactual_high",
    "model_scores",
    "model_included",
)


@dataclass(frozen=True)
class Training:
    """How each model is trained.

    Args:
        model: folder or Hub name of the model to start from.
        models: how many are trained.
        share: share of the texts that each is trained on.
        full: train all weights instead of an adapter.
        epochs: passes over the texts.
        learning_rate: of AdamW.
        batch_size: texts a step.
        max_length: tokens of a text that are trained on.
        seed: of subsets and training.
    """

    model: str
    models: int = 8
    share: float = 0.5
    full: bool = False
    epochs: float = 3
    learning_rate: float = 1e-3
    batch_size: int = 16
    max_length: int = 256
    lora_rank: int = 16
    seed: int = 1024

    def __post_init__(self) -> None:
        if self.models < 4:
            raise MemtaxError(f"{self.models} models cannot tell chance from memory; train at least 4")
        if not 0 < self.share < 1:
            raise MemtaxError(f"share lies between 0 and 1, not at {self.share}")


def subsets(rows: int, training: Training) -> npt.NDArray[np.bool_]:
    """Which model is trained on which text: (models, rows).

    Models come in pairs with opposite random orders, so that with a share of one half every text is in exactly half of
    them (Carlini et al. 2022).
    """
    rng = np.random.default_rng(training.seed)
    size = round(training.share * rows)
    found = np.zeros((training.models, rows), bool)
    for number in range(0, training.models, 2):
        order = rng.permutation(rows)
        found[number, order[:size]] = True
        if number + 1 < training.models:
            found[number + 1, order[::-1][:size]] = True
    return found


@dataclass(frozen=True)
class CounterfactualResult:
    """Where the table is, and the figures of `summary.json`."""

    output: Path
    table: pa.Table
    summary: Mapping[str, Any] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """What came out, and the path."""
        mean, count = self.summary["mean"], self.summary["clearly_memorized"]
        found = "no text was both in and out" if mean is None else f"mean in minus out: {mean:.4f} nats a token"
        return [found, f"{count:,} texts have an interval above 0", f"table    {self.output / 'scores.parquet'}"]


def counterfactual(texts: pa.Table, training: Training, output: Path | str, source: str = "") -> CounterfactualResult:
    """Train the models, score every text under each, and compare (Zhang et al. 2021).

    Models that are finished in `output` are not trained again; parts of scores are reused too.

    Args:
        texts: `sequence_id`, `domain` and `text`, from `memtax.corpus.membership.load_texts`.
        training: how models are trained.
        output: the directory: `models/`, `parts/`, `scores.parquet`, `summary.json`, `run.yaml`.
        source: where the texts are from, for the record.

    Returns:
        For each text the mean LL under models trained with it minus that under the others, with a 95% Welch interval, and
        LL and inclusion model by model. Null where fewer than 2 models are on a side, or a text has no token to score.

    Raises:
        MemtaxError: there are too few texts, or the model cannot be trained.
        StaleOutputError: `output` holds models of other texts or settings.
    """
    import datasets

    silence_libraries()
    output = Path(output)
    if World.current().size > 1:
        raise MemtaxError("models are trained by one process (which may use several devices); start counterfactual as one")
    if len(texts) < 4:
        raise MemtaxError(f"{len(texts)} texts are too few to train on halves of; give at least 4")
    included = subsets(len(texts), training)
    folders = train_models(texts, training, included, output)
    given = texts.select(["sequence_id", "domain", "text"]).to_pylist()
    # Which of them a model was trained on differs from model to model; whole texts are meant.
    whole = {"is_member": False, "tokens": None, "chunk_start": None, "chunk_end": None}
    data = pa.Table.from_pylist([{**row, **whole} for row in given], schema=schema.arrow_schema(membership.COLUMNS))
    rows: Any = None
    scores = []
    for number, folder in enumerate(folders):
        scorer = AttackFilter(str(folder), ("loss",))
        if rows is None:
            rows = datasets.Dataset(prepare(data, scorer).select(["sequence_id", *scorer.requires]))
        found = run_stage(rows, scorer, output / "parts" / f"{number:03d}", ROWS_PER_BATCH, 1)
        scores.append(found.column("attack_loss").to_pylist())
    table = compare(texts.column("sequence_id").to_pylist(), scores, included)
    summary = _summary(table, training)
    write_parquet(output / "scores.parquet", schema.validate(table, COLUMNS, "the scores"))
    write_json(output / "summary.json", summary)
    inputs = {"texts": fingerprint_path(source), "model": fingerprint_path(training.model)}
    write_record(output / "run.yaml", "counterfactual", {"texts": source, **asdict(training)}, inputs)
    return CounterfactualResult(output, table, summary)


def train_models(texts: pa.Table, training: Training, included: npt.NDArray[np.bool_], output: Path) -> list[Path]:
    """The folders of the trained models; finished ones are taken as they are."""
    rows = output / "texts.jsonl"
    content = texts.column("text").to_pylist()
    folders = [output / "models" / f"{number:03d}" for number in range(training.models)]
    write_text(rows, "".join(json.dumps({"text": text or ""}) + "\n" for text in content))
    with progress_bar("training", training.models, "models", unit_scale=False) as bar:
        for number, folder in enumerate(folders):
            used = np.flatnonzero(included[number]).tolist()
            identity = {"training": asdict(training), "model": number, "rows": digest(used), "texts": digest(content)}
            once(folder, identity, functools.partial(_train, rows=rows, used=used, training=training, number=number))
            bar.update(1)
    return folders


def _train(folder: Path, rows: Path, used: Sequence[int], training: Training, number: int) -> None:
    """Train one model into an empty folder, with the script that users run."""
    import torch
    from transformers import TrainingArguments

    script = _script()
    write_text(folder / "rows.json", json.dumps(list(used)))
    script.train(
        script.ModelArguments(training.model, full=training.full, lora_rank=training.lora_rank),
        script.DataArguments(str(rows), column="text", rows_file=str(folder / "rows.json"), max_length=training.max_length),
        TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=training.epochs,
            learning_rate=training.learning_rate,
            per_device_train_batch_size=training.batch_size,
            seed=training.seed + number,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            dataloader_pin_memory=False,
        ),
    )


def _script() -> ModuleType:
    """`training/finetune_lora.py` as a module."""
    name = "memtax_finetune_lora"
    if name not in sys.modules:
        specification = importlib.util.spec_from_file_location(name, asset("training/finetune_lora.py"))
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        # Dataclasses look their module up while they are made.
        sys.modules[name] = module
        specification.loader.exec_module(module)
    return sys.modules[name]


def compare(ids: Sequence[int], scores: Sequence[Sequence[float | None]], included: npt.NDArray[np.bool_]) -> pa.Table:
    """In minus out for each text.

    Args:
        ids: sequence ids.
        scores: LL of each text under each model (models, texts).
        included: whether the model was trained on the text (models, texts).
    """
    rows = []
    for row, number in enumerate(ids):
        values = [model[row] for model in scores]
        flags = included[:, row].tolist()
        inside = [value for value, flag in zip(values, flags, strict=True) if flag and value is not None]
        outside = [value for value, flag in zip(values, flags, strict=True) if not flag and value is not None]
        interval = _difference(inside, outside)
        found = {"sequence_id": number, "model_scores": values, "model_included": flags}
        names = ("counterfactual_memorization", "counterfactual_low", "counterfactual_high")
        bounds = (None,) * 3 if interval is None else (interval.value, interval.low, interval.high)
        rows.append({**found, **dict(zip(names, bounds, strict=True))})
    return pa.Table.from_pylist(rows, schema=schema.arrow_schema(COLUMNS))


def _difference(inside: Sequence[float], outside: Sequence[float]) -> statistics.Interval | None:
    """Difference of two means with Welch's 95% interval."""
    from scipy.stats import ttest_ind

    if min(len(inside), len(outside)) < 2 or not np.isfinite([*inside, *outside]).all():
        return None
    value = float(np.mean(inside) - np.mean(outside))
    if np.ptp(inside) == 0 and np.ptp(outside) == 0:
        return statistics.Interval(value, value, value)
    bounds = ttest_ind(inside, outside, equal_var=False).confidence_interval(0.95)
    return statistics.Interval(value, float(bounds.low), float(bounds.high))


def _summary(table: pa.Table, training: Training) -> dict[str, Any]:
    values = [value for value in table.column("counterfactual_memorization").to_pylist() if value is not None]
    lows = [value for value in table.column("counterfactual_low").to_pylist() if value is not None]
    return {
        "model": training.model,
        "models": training.models,
        "texts": len(table),
        "without_score": len(table) - len(values),
        "mean": float(np.mean(values)) if values else None,
        "clearly_memorized": sum(low > 0 for low in lows),
    }
