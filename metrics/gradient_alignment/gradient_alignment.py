"""Gradients of a text against those of its paraphrases."""

import datasets
import evaluate

import memtax.hub.modules
from memtax.hub import similarity

_DESCRIPTION = """
Alignment of the gradient at a text with the gradients at its paraphrases: the mean cosine over paraphrases (and over parameter
tensors). A model that learned what a text says has similar gradients for both. With labels, also how well it separates members.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: for each text, one cosine for each paraphrase (`list` of `list` of `float`, in [-1, 1]), or one gradient vector
        for each paraphrase (`list` of `list` of `list` of `float`). A text without paraphrases has no alignment.
    gradients (`list` of `list` of `float`, *optional*): the gradient at each text, needed where predictions are gradients.
    references (`list` of `int`, *optional*): 1 for members, 0 for non-members; adds AUROC and operating points.
    documents (`list` of `str` or `int`, *optional*): document of each row. Intervals are then over documents, as rows of one
        depend on each other, and null with a reason below 10 documents. Without it rows are taken as independent.
    tensors (`list` of `int`, *optional*): sizes of the parameter tensors that a gradient is made of, one after the other; the
        cosine is taken in each and averaged. Default: one tensor.
    high (`float`), low (`float`): bounds of the levels. Default to 0.7 and 0.3.
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

Examples:
    >>> import evaluate, memtax
    >>> metric = evaluate.load(memtax.metric_path("gradient_alignment"))
    >>> results = metric.compute(predictions=[[0.8, 0.6], [0.2], []], per_example=True)
    >>> [None if value is None else round(value, 3) for value in results["per_example"]["alignment"]]
    [0.7, 0.2, None]
    >>> round(metric.compute(predictions=[[[1.0, 1.0], [0.0, 2.0]]], gradients=[[0.0, 3.0]])["inner_product"], 3)
    4.5
"""

_CITATION = """
@software{memtax,
    title={memtax: measure, explain and predict what a causal language model memorized}, year={2026}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class GradientAlignment(memtax.hub.modules.Module):
    """Adapter over `memtax.hub.similarity`."""

    optional = ("gradients", "references", "documents")

    def _info(self):
        vector = datasets.List(datasets.Value("float64"))
        others = {"gradients": vector, "references": datasets.Value("float64"), **memtax.hub.modules.DOCUMENTS}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=[datasets.Features({"predictions": kind, **others}) for kind in (datasets.List(vector), vector)],
        )

    def _compute(
        self,
        predictions,
        gradients,
        references,
        documents,
        tensors=None,
        high=0.7,
        low=0.3,
        resamples=1000,
        per_example=False,
        level=0.95,
        seed=1024,
    ):
        found = similarity.agreements(predictions, memtax.hub.modules.given(gradients), tensors)
        rows, values = similarity.known(found["alignment"])
        result = {name: similarity.mean(column) for name, column in found.items()}
        units = memtax.hub.modules.units_of(documents)
        result |= memtax.hub.modules.counted(units)
        units = None if units is None else units[rows]
        for name, outcomes in similarity.levels(values, low, high).items():
            result |= memtax.hub.modules.rate(name, outcomes, level, units)
        result |= {"texts": len(rows), "without_paraphrase": len(predictions) - len(rows)}
        if memtax.hub.modules.given(references):
            labels = memtax.hub.modules.flags([references[row] for row in rows], "references")
            result |= memtax.hub.modules.separation(labels, values, resamples, level, seed, units)
        return result | ({"per_example": found} if per_example else {})
