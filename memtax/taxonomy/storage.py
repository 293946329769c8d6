"""A predictor's folder: `predictor.json`, `model.safetensors` and a card. Nothing in it can run code."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memtax.errors import MemtaxError
from memtax.files import atomic_path, write_json, write_text
from memtax.schema import CATEGORIES
from memtax.taxonomy.logistic import LogisticModel, Scaler

if TYPE_CHECKING:
    from memtax.taxonomy.predictor import Predictor

CONFIG, WEIGHTS, CARD = "predictor.json", "model.safetensors", "README.md"
FORMAT = 1


def save(predictor: "Predictor", directory: Path) -> None:
    """Write the folder's files, each atomically, the one that names the others' digest last."""
    from safetensors.numpy import save as serialise

    tensors = {"scaler.mean": predictor.scaler.mean, "scaler.scale": predictor.scaler.scale}
    for name, model in predictor.models.items():
        tensors[f"{name}.coefficients"] = model.coefficients
        tensors[f"{name}.offsets"] = np.array([model.intercept, model.prior_shift, model.threshold])
    weights = serialise({name: np.ascontiguousarray(tensor, np.float64) for name, tensor in tensors.items()})
    with atomic_path(directory / WEIGHTS) as path:
        path.write_bytes(weights)
    write_text(directory / CARD, card(predictor))
    config = {
        "memtax_predictor": FORMAT,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "target": predictor.target,
        "category": predictor.category,
        "factors": list(predictor.factors),
        "models": {name: {"constant": list(model.constant)} for name, model in predictor.models.items()},
        "silent": predictor.silent,
        "metrics": predictor.metrics,
    }
    write_json(directory / CONFIG, config)


def load(directory: Path) -> dict[str, Any]:
    """The fields of a `Predictor`.

    Raises:
        MemtaxError: the folder holds no predictor, or its files do not belong together.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as deserialise

    try:
        config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
        weights = (directory / WEIGHTS).read_bytes()
    except (OSError, ValueError) as error:
        raise MemtaxError(f"{directory} holds no predictor ({error}); name a folder that memtax fit wrote") from error
    if not isinstance(config, dict) or config.get("memtax_predictor") != FORMAT:
        raise MemtaxError(f"{directory / CONFIG} is not a memtax predictor of format {FORMAT}; fit it again with this version")
    if hashlib.sha256(weights).hexdigest() != config.get("weights_sha256"):
        raise MemtaxError(f"{directory / WEIGHTS} is not the file that {CONFIG} was written with; save the predictor again")
    try:
        return _fields(config, deserialise(weights))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise MemtaxError(f"{directory} holds a damaged predictor ({error!r}); save it again") from error


def _fields(config: dict[str, Any], tensors: dict[str, Any]) -> dict[str, Any]:
    factors = tuple(config["factors"])

    def vector(name: str, size: int) -> Any:
        tensor = tensors[name]
        if tensor.shape != (size,) or tensor.dtype != np.float64:
            raise ValueError(f"{name} is {tensor.dtype} of shape {tensor.shape}")
        return tensor

    models = {}
    for name, described in config["models"].items():
        intercept, shift, threshold = (float(value) for value in vector(f"{name}.offsets", 3))
        coefficients = vector(f"{name}.coefficients", len(factors))
        models[name] = LogisticModel(coefficients, intercept, shift, threshold, tuple(described["constant"]))
    if "baseline" not in models or not set(models) <= {"baseline", *CATEGORIES}:
        raise ValueError(f"models are {', '.join(models)}")
    return {
        "factors": factors,
        "target": config["target"],
        "category": config["category"],
        "scaler": Scaler(vector("scaler.mean", len(factors)), vector("scaler.scale", len(factors))),
        "models": models,
        "silent": config["silent"],
        "metrics": config["metrics"],
    }


def card(predictor: "Predictor") -> str:
    """The folder's README.md: what it is, how to use it, and its figures on the test rows."""
    metrics = predictor.metrics
    lines = [
        "---",
        "library_name: memtax",
        "pipeline_tag: tabular-classification",
        "tags: [memorization]",
        "---",
        "# Memorization predictor",
        "",
        f"Predicts `{predictor.target}` of a sequence from {len(predictor.factors)} factors: one logistic regression for all",
        f"sequences (baseline) and one for each `{predictor.category}` (taxonomic). Fitted by memtax on"
        f" {metrics['rows']['train']:,} rows.",
        "",
        "```python",
        "from memtax import Predictor",
        "",
        'probabilities = Predictor.from_pretrained("path/to/this/folder").predict(table)',
        "```",
        "",
        f"On {metrics['rows']['test']:,} test rows, with 95% bootstrap intervals:",
        "",
        "| model | sequences | rows | positives | ROC-AUC | PR-AUC | ECE | Brier | F1 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for model, groups in metrics["models"].items():
        for group, found in groups.items():
            shown = " | ".join(_shown(found[name]) for name in ("roc_auc", "pr_auc", "ece", "brier", "f1"))
            lines.append(f"| {model} | {group} | {found['n']:,} | {found['positives']:,} | {shown} |")
    notes = {
        f"- {group}: {found['reason']}." for groups in metrics["models"].values() for group, found in groups.items()
        if found["reason"]
    }  # fmt: skip
    return "\n".join([*lines, "", *sorted(notes)]).rstrip() + "\n"


def _shown(interval: dict[str, float] | None) -> str:
    return "-" if interval is None else "{value:.3f} ({low:.3f} to {high:.3f})".format(**interval)
