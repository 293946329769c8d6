"""Figures of a model as the Hub's model index, which the model page shows and searches use."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memtax.errors import MemtaxError
from memtax.files import read_json
from memtax.record_shapes import EVALUATION, PREDICTOR
from memtax.shapes import check

_PREDICTOR = {"roc_auc": "roc_auc", "pr_auc": "average_precision", "ece": "ece", "brier": "brier_score", "f1": "f1"}
"""Figures in a predictor's index, and their Hub names."""
_CLASSIFIER = {
    "roc_auc": ("roc_auc", "ROC-AUC"),
    "pr_auc_code": ("average_precision", "PR-AUC, code"),
    "pr_auc_natural_language": ("average_precision", "PR-AUC, natural language"),
    "best_f1": ("f1", "best F1, natural language"),
}
_SEQUENCES = ("memorized-sequences", "the sequences it was fitted on")
"""Identifier and name used for a dataset without a repository; the index needs both."""
_PASSAGES = ("code-vs-natural-language", "code and natural language")


def predictor_index(folder: Path, repo_id: str, dataset: str | None) -> dict[str, Any]:
    """The figures of a predictor on test rows, as front matter; empty if all are withheld.

    Raises:
        MemtaxError: the folder contains an incomplete predictor.
    """
    described, weights = read_json(folder / "predictor.json"), folder / "model.safetensors"
    found_weights = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else None
    if "metrics" not in described or described.get("weights_sha256") != found_weights:
        raise MemtaxError(f"{folder} contains no complete predictor: its two files are not from one save; save it again")
    check(described, PREDICTOR, folder / "predictor.json")
    metrics = described["metrics"]
    found = [
        (_PREDICTOR[name], f"{_PREDICTOR[name]} ({model}, {group})", figures[name]["value"])
        for model, groups in metrics["models"].items()
        for group, figures in groups.items()
        for name in _PREDICTOR
        if figures.get(name)
    ]
    task = {"task_type": "tabular-classification", "task_name": "Whether a sequence is memorized", "dataset_split": "test"}
    return _index(repo_id, (dataset, dataset) if dataset else _SEQUENCES, task, found)


def classifier_index(folder: Path, repo_id: str) -> dict[str, Any]:
    """The figures of a classifier of code and natural language, as front matter."""
    evaluations = read_json(folder / "evaluation.json", EVALUATION)
    found = [
        (kind, f"{title} ({name})", figures[key]["value"] if isinstance(figures[key], dict) else figures[key])
        for name, figures in evaluations.items()
        for key, (kind, title) in _CLASSIFIER.items()
    ]
    return _index(repo_id, _PASSAGES, {"task_type": "text-classification"}, found)


def extraction_index(metrics: Mapping[str, Any], repo_id: str, dataset: str | None) -> dict[str, Any]:
    """Extraction rates of a language model, from a run's figures, as front matter."""
    found = [
        ("k_extractability", f"share memorized ({group.replace('_', ' ')})", figures["rate"])
        for group, figures in (metrics.get("extraction") or {}).items()
        if figures and figures.get("rate") is not None
    ]
    return _index(repo_id, (dataset, dataset) if dataset else _SEQUENCES, {"task_type": "text-generation"}, found)


def _index(
    repo_id: str, dataset: tuple[str, str], task: Mapping[str, str], found: Sequence[tuple[str, str, float]]
) -> dict[str, Any]:
    """Front matter from rows of a metric, its title and its value, all for one dataset (identifier and name)."""
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index

    # Results are grouped by the dataset's identifier, so the title says which part of it a figure is for.
    results = [
        EvalResult(
            dataset_type=dataset[0],
            dataset_name=dataset[1],
            metric_type=kind,
            metric_name=title,
            metric_value=round(value, 6),
            **task,  # type: ignore[arg-type]
        )
        for kind, title, value in found
    ]
    return {"model-index": eval_results_to_model_index(repo_id.split("/")[1], results)} if results else {}
