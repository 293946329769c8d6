"""Gradients of texts against those of their paraphrases."""

from collections.abc import Sequence
from typing import Any

from memtax.metrics import similarity
from memtax.metrics.figures import counted, rate, separation
from memtax.metrics.inputs import Column, columns, flags, known, units_of
from memtax.statistics import Units


def gradient_alignment(
    predictions: Column,
    gradients: Column | None = None,
    references: Column | None = None,
    documents: Column | None = None,
    tensors: Sequence[int] | None = None,
    high: float = 0.7,
    low: float = 0.3,
    resamples: int = 1000,
    per_example: bool = False,
    level: float = 0.95,
    seed: int = 1024,
) -> dict[str, Any]:
    """Alignment of the gradients at texts with those at their paraphrases.

    Alignment of the gradient at a text with the gradients at its paraphrases: the mean cosine over paraphrases (and over
    parameter tensors). A model that learned what a text says has similar gradients for both. With labels, also how well it
    separates members.

    Args:
        predictions: for each text, one cosine for each paraphrase (`list` of `list` of `float`, in [-1, 1]), or one gradient
            vector for each paraphrase (`list` of `list` of `list` of `float`). A text without paraphrases has no alignment.
        gradients (`list` of `list` of `float`, *optional*): the gradient at each text, needed where predictions are gradients.
        references (`list` of `int`, *optional*): 1 for members, 0 for non-members; adds AUROC and operating points.
        documents (`list` of `str` or `int`, *optional*): document of each row. Intervals are then over documents, as rows of
            one depend on each other, and null with a reason below 10 documents. Without it rows are taken as independent.
        tensors (`list` of `int`, *optional*): sizes of the parameter tensors that a gradient is made of, one after the other;
            the cosine is taken in each and averaged. Default: one tensor.
        high (`float`): alignment above which a level is high. Defaults to 0.7.
        low (`float`): alignment below which a level is low. Defaults to 0.3.
        resamples (`int`): bootstrap resamples; 0: no intervals of AUROC. Defaults to 1000.
        per_example (`bool`): also return each text's values. Defaults to `False`.
        level (`float`): coverage of the intervals. Defaults to 0.95.
        seed (`int`): of the resamples. Defaults to 1024.

    Returns:
        `alignment`: mean over texts, in [-1, 1]. `inner_product` (from gradients): mean inner product, unbounded.
        `high`, `medium`, `low`: share of texts above `high`, between, and below `low`, in [0, 1], with `..._low` and `..._high`
        (over `documents`; without them Clopper-Pearson). `texts`: those with a paraphrase; `without_paraphrase`: the others.
        With references: `auroc`, `fpr_at_tpr_0.95`, `tpr_at_fpr_0.05`, in [0, 1], with `..._low` and `..._high`.
        `per_example` (on request): `alignment` (and `inner_product`) of each text, null without paraphrases.

    Example:
        >>> import memtax
        >>> memtax.metrics.gradient_alignment([[0.8, 0.6], [0.2], []], per_example=True)["per_example"]["alignment"][1:]
        [0.2, None]
    """
    predictions, gradients, references, documents = columns(
        1, predictions=predictions, gradients=gradients, references=references, documents=documents
    )
    found = similarity.agreements(predictions, gradients, tensors)
    rows, values = known(found["alignment"])
    result: dict[str, Any] = {name: similarity.mean(column) for name, column in found.items()}
    units = units_of(documents)
    result |= counted(units) | _levels(values, low, high, level, None if units is None else units[rows])
    result |= {"texts": len(rows), "without_paraphrase": len(predictions) - len(rows)}
    if references is not None:
        labels = flags([references[row] for row in rows], "references")
        result |= separation(labels, values, resamples, level, seed, None if units is None else units[rows])
    return result | ({"per_example": found} if per_example else {})


def _levels(values: list[float], low: float, high: float, level: float, units: Units | None) -> dict[str, Any]:
    """Share of the texts at each level, with its interval."""
    result: dict[str, Any] = {}
    for name, outcomes in similarity.levels(values, low, high).items():
        result |= rate(name, outcomes, level, units)
    return result
