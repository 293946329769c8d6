"""Gradients of a text against those of its paraphrases."""

import datasets
import evaluate

import memtax.metrics.module

_EXAMPLES = """
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


@memtax.metrics.module.documented(memtax.metrics.gradient_alignment, _EXAMPLES)
class GradientAlignment(memtax.metrics.module.Module):
    """Adapter over `memtax.metrics.gradient_alignment`."""

    optional = ("gradients", "references", "documents")

    _compute = staticmethod(memtax.metrics.gradient_alignment)

    def _info(self):
        vector = datasets.List(datasets.Value("float64"))
        others = {"gradients": vector, "references": datasets.Value("float64"), **memtax.metrics.module.DOCUMENTS}
        return evaluate.MetricInfo(
            **memtax.metrics.module.texts(memtax.metrics.gradient_alignment, _EXAMPLES),
            citation=_CITATION,
            features=[datasets.Features({"predictions": kind, **others}) for kind in (datasets.List(vector), vector)],
        )
