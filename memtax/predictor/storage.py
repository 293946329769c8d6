"""A predictor's folder: `predictor.json`, `model.safetensors` and a card. Nothing in it can run code."""

import hashlib
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memtax.checksums import verify
from memtax.errors import MemtaxError
from memtax.files import atomic_path, write_json, write_text
from memtax.hub.cards import render
from memtax.predictor.evaluation import METRICS
from memtax.predictor.logistic import LogisticModel, Scaler
from memtax.progress import numbered
from memtax.provenance import versions
from memtax.record_shapes import PREDICTOR
from memtax.records import read_json
from memtax.schema import CATEGORIES
from memtax.shapes import check

if TYPE_CHECKING:
    from memtax.predictor.predictor import Predictor

CONFIG, WEIGHTS, CARD = "predictor.json", "model.safetensors", "README.md"
FORMAT = 2
LARGE = 0.2
"""Share of all rows from which a group that a split keeps together is reported."""


def save(predictor: "Predictor", directory: Path) -> None:
    """Write the folder's files, each atomically, the one that names the others' digest last."""
    from safetensors.numpy import save as serialize

    tensors = {"scaler.mean": predictor.scaler.mean, "scaler.scale": predictor.scaler.scale}
    for name, model in predictor.models.items():
        tensors[f"{name}.coefficients"] = model.coefficients
        tensors[f"{name}.offsets"] = np.array([model.intercept, model.prior_shift, model.threshold])
        if model.recalibration is not None:
            tensors[f"{name}.recalibration"] = np.array(model.recalibration)
    weights = serialize({name: np.ascontiguousarray(tensor, np.float64) for name, tensor in tensors.items()})
    with atomic_path(directory / WEIGHTS) as path:
        path.write_bytes(weights)
    write_text(directory / CARD, card(predictor, directory))
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
    from safetensors.numpy import load as deserialize

    for name in (CONFIG, WEIGHTS):
        verify(directory / name)
    try:
        config = read_json(directory / CONFIG)
        weights = (directory / WEIGHTS).read_bytes()
    except (OSError, MemtaxError) as error:
        raise MemtaxError(f"{directory} holds no predictor ({error}); name a folder that memtax fit wrote") from error
    if config.get("memtax_predictor") != FORMAT:
        raise MemtaxError(f"{directory / CONFIG} is not a memtax predictor of format {FORMAT}; fit it again with this version")
    if hashlib.sha256(weights).hexdigest() != config.get("weights_sha256"):
        raise MemtaxError(f"{directory / WEIGHTS} is not the file that {CONFIG} was written with; save the predictor again")
    check(config, PREDICTOR, directory / CONFIG)
    try:
        return _fields(config, deserialize(weights))
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
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
        again = None
        if f"{name}.recalibration" in tensors:
            slope, offset = (float(value) for value in vector(f"{name}.recalibration", 2))
            again = slope, offset
        models[name] = LogisticModel(coefficients, intercept, shift, threshold, tuple(described["constant"]), again)
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


def card(predictor: "Predictor", directory: Path) -> str:
    """The folder's README.md: what it is, how to use it, and its figures on the test rows."""
    front_matter = {
        "library_name": "memtax",
        "pipeline_tag": "tabular-classification",
        "tags": ["memorization", "memtax"],
    }
    metrics = predictor.metrics
    withheld = {
        f"{group}: no intervals ({found['interval_reason']})"
        for groups in metrics["models"].values()
        for group, found in groups.items()
        if found.get("interval_reason")
    }
    reasons = {
        f"{group}: {found['reason']}"
        for groups in metrics["models"].values()
        for group, found in groups.items()
        if found["reason"]
    }
    return render(
        "predictor.md.j2",
        front_matter,
        directory,
        predictor=predictor,
        metrics=metrics,
        names=dict(zip(METRICS, ("ROC-AUC", "PR-AUC", "ECE", "Brier", "log loss", "F1", "precision", "recall"), strict=True)),
        shown=_shown,
        reasons=sorted(reasons | withheld),
        split=say_split(metrics),
        models=list(predictor.models),
        coefficients={(row["model"], row["factor"]): row["coefficient"] for row in metrics["coefficients"]},
        version=versions()["memtax"],
    )


def say_split(metrics: dict[str, Any]) -> str:
    """By what the rows were split, and how many units each part has; empty for a predictor of an older version."""
    split = metrics.get("split")
    if not split:
        return ""
    parts = ", ".join(f"{name} {units:,}" for name, units in split["units"].items())
    text = f"Split by {split['unit']} ({parts}); copies and near-copies are on one side."
    if split["copies"]:
        text += f" {numbered(split['copies'], 'row', 'has')} a copy or near-copy in another {split['unit']}."
    if split["boilerplate"]:
        text += f" {numbered(split['boilerplate'], 'row', 'holds')} text of many {split['unit']}s: the copies stay together, "
        text += f"the other rows of these {split['unit']}s may be on another side."
    rows = sum(metrics["rows"].values())
    if split["largest_group"] > LARGE * rows:
        text += f" The largest group has {split['largest_group']:,} of {rows:,} rows: the parts are of uneven size."
    return text


def push(predictor: "Predictor", repo_id: str, private: bool | None, token: str | None, message: str | None) -> str:
    """Upload the folder's files; see `Predictor.push_to_hub`."""
    from memtax.hub.publish import plan
    from memtax.hub.upload import push as upload

    with tempfile.TemporaryDirectory() as folder:
        save(predictor, Path(folder))
        (repository,) = plan(folder, repo_id)
        return upload(repository, private, token, message or "Upload memtax predictor").commit_url


def fetch(name: Path | str, revision: str | None, token: str | None) -> Path:
    """The folder of a predictor: a local one, the one in an output of `memtax fit` or `run`, or the copy of one on the Hub.

    Raises:
        MemtaxError: it is neither.
    """
    if Path(name).exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)):
        # The output of `memtax fit`, of a run, or the predictor itself.
        inside = Path(name) / "models" / "predictor"
        return inside if (inside / CONFIG).exists() and not (Path(name) / CONFIG).exists() else Path(name)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(hf_hub_download(str(name), CONFIG, revision=revision, token=token)).parent
        # The folder is named by its commit: both files are of the same.
        hf_hub_download(str(name), WEIGHTS, revision=folder.name, token=token)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise MemtaxError(
            f"{name} is neither a folder nor a predictor on the Hub as far as can be reached: {reason}"
        ) from error
    return folder


def _shown(interval: dict[str, float | None] | None) -> str:
    """An estimate with its interval; a dash where it is withheld."""
    if interval is None:
        return "-"
    return ("{value:.3f}" if interval["low"] is None else "{value:.3f} ({low:.3f} to {high:.3f})").format(**interval)
