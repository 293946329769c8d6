"""Information in hidden states: a linear probe per layer for the category and for being memorized, with controls."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from memtax import statistics
from memtax.errors import MemtaxError
from memtax.lm.special_tokens import bos_of
from memtax.predictor.copies import Groups
from memtax.predictor.evaluation import Estimate
from memtax.predictor.logistic import MINIMUM, Array, Scaler
from memtax.predictor.split import Split, stratified_split
from memtax.progress import progress_bar

STRENGTHS = (0.001, 0.01, 0.1, 1.0)
"""Values of C that are tried on validation rows: there are more directions than a few hundred rows can tell apart."""


def hidden_states(
    model: Any, sequences: Sequence[Sequence[int]], pooling: Literal["mean", "last"] = "mean", batch: int = 64
) -> NDArray[np.float32]:
    """One vector per layer and sequence.

    Args:
        model: a `transformers` causal language model; its BOS is put before every sequence and not pooled.
        sequences: token ids, all sequences of one length.
        pooling: mean over tokens, or the last token's state.
        batch: sequences a forward pass.

    Returns:
        (layers + 1, sequences, width); the first layer is the embeddings.

    Raises:
        MemtaxError: no sequence, or lengths differ.
    """
    import torch

    lengths = {len(sequence) for sequence in sequences}
    if len(lengths) != 1 or 0 in lengths:
        raise MemtaxError(f"sequences of one length are needed, not of {', '.join(map(str, sorted(lengths))) or 'none'}")
    if pooling not in ("mean", "last"):
        raise MemtaxError(f"pooling is 'mean' or 'last', not {pooling!r}")
    bos = bos_of(model)
    tokens = torch.as_tensor(np.array([[*bos, *sequence] for sequence in sequences], np.int64))
    parts = []
    with torch.inference_mode(), progress_bar("hidden states", len(tokens)) as bar:
        for start in range(0, len(tokens), batch):
            ids = tokens[start : start + batch].to(model.device)
            # The base model: a probe needs no logits.
            layers = model.base_model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
            pooled = [(layer[:, len(bos) :].float().mean(1) if pooling == "mean" else layer[:, -1].float()) for layer in layers]
            parts.append(torch.stack(pooled).cpu().numpy())
            bar.update(len(ids))
    return np.concatenate(parts, axis=1)


def probe(
    states: NDArray[np.float32],
    labels: NDArray[np.int64],
    factors: Array | None = None,
    *,
    name: str = "memorized",
    validation: float = 0.2,
    test: float = 0.2,
    seed: int = 1024,
    resamples: int = 500,
    groups: Groups | None = None,
) -> list[dict[str, Any]]:
    """Probe every layer, with two controls: the same probe on shuffled labels, and the factors without any layer.

    A probe is a logistic regression on states that are standardized on training rows; its penalty is chosen on validation
    rows, its value is that on test rows. For two classes that is the ROC-AUC (chance: .5), for more the balanced accuracy
    (chance: one over the classes). Shuffled training labels keep the split, the classes' shares and how far rows of one unit
    are alike (`shuffle_units`): what such a probe finds is the luck of many directions.

    Args:
        states: (layers, rows, width).
        labels: (rows,) classes from 0.
        factors: (rows, factors) of the predictor, finite; None leaves that control out.
        name: of what is probed, for the figure.
        validation: share of the rows.
        test: share of the rows.
        seed: of split, shuffle and bootstrap.
        resamples: of each interval.
        groups: what the split keeps together, and the units of intervals; None: each row is its own.

    Returns:
        Rows `layer` (None for the factors), `probe`, `metric`, `value`, `low`, `high` (None below 10 units of a class).

    Raises:
        MemtaxError: shapes do not fit, or a class has fewer than 10 training rows.
    """
    if states.ndim != 3 or states.shape[1] != len(labels) or (factors is not None and len(factors) != len(labels)):
        raise MemtaxError(f"states {states.shape} and {len(labels)} labels do not fit: (layers, rows, width) is needed")
    groups = groups or Groups.of_rows(len(labels))
    split = stratified_split(labels, validation, test, seed, groups.codes)
    counts = np.bincount(labels[split.train])
    if len(counts) < 2 or counts.min() < MINIMUM:
        raise MemtaxError(f"each class needs {MINIMUM} training rows; these have {', '.join(map(str, counts.tolist()))}")
    shuffled = labels.copy()
    rng = np.random.default_rng(seed)
    for part in (split.train, split.validation):
        shuffled[part] = shuffle_units(labels[part], groups.units.codes[part], rng)

    def measured(layer: int | None, title: str, values: Array, taught: NDArray[np.int64]) -> dict[str, Any]:
        return {"layer": layer, "probe": title, **_probe(values, taught, labels, split, groups.units, resamples, seed)}

    rows = []
    with progress_bar("probes", len(states), "layers", unit_scale=False) as bar:
        for layer, values in enumerate(states):
            for title, taught in ((name, labels), (f"{name}, shuffled labels", shuffled)):
                rows.append(measured(layer, title, values, taught))
            bar.update(1)
    if factors is not None:
        rows.append(measured(None, f"{name}, factors only", factors, labels))
    return rows


def shuffle_units(labels: NDArray[np.int64], units: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Labels (rows,) of units laid over the rows of others, both in random order, so that they stay alike within a unit.

    Where each row is its own unit this is a permutation of the rows. Permuting rows of documents would leave the control an
    easier task than the probe has: labels that differ within a document.
    """
    index, sizes = np.unique(units, return_inverse=True, return_counts=True)[1:]
    shuffled = np.empty_like(labels)
    rows, others = (np.argsort(rng.permutation(len(sizes))[index.ravel()], kind="stable") for _ in range(2))
    shuffled[rows] = labels[others]
    return shuffled


def _probe(
    values: NDArray[Any],
    taught: NDArray[np.int64],
    labels: NDArray[np.int64],
    split: Split,
    units: statistics.Units,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    from sklearn.linear_model import LogisticRegression

    scaler = Scaler.fit(values[split.train].astype(np.float64))
    train, validation, test = (scaler(values[rows].astype(np.float64)) for rows in (split.train, split.validation, split.test))
    best: tuple[float, Any] | None = None
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000).fit(train, taught[split.train])
        worth = _measure(taught[split.validation], model.predict_proba(validation))[1]
        if best is None or worth > best[0]:
            best = worth, model
    assert best is not None
    truth, chances = labels[split.test], best[1].predict_proba(test)
    metric, _ = _measure(truth, chances)
    own = units.codes[split.test]
    if metric == "roc_auc":
        value = statistics.auroc(truth, chances[:, 1])
        interval = statistics.auroc_interval(truth, chances[:, 1], own)
    else:
        # Classes keep their size in each resample: balanced accuracy is a mean over classes.
        decided = chances.argmax(axis=1)
        value = _balanced_accuracy(truth, decided)
        interval = statistics.bootstrap_interval(
            _balanced_accuracy, truth, decided, resamples=resamples, seed=seed, strata=truth, units=own
        )
    return {"metric": metric, **asdict(Estimate(value) if interval is None else interval)}


def _measure(truth: NDArray[np.int64], chances: Array) -> tuple[str, float]:
    if chances.shape[1] == 2:
        return "roc_auc", statistics.auroc(truth, chances[:, 1])
    return "balanced_accuracy", _balanced_accuracy(truth, chances.argmax(axis=1))


def _balanced_accuracy(truth: NDArray[np.int64], decided: NDArray[np.int64]) -> float:
    return float(np.mean([(decided[truth == one] == one).mean() for one in np.unique(truth)]))
