"""(n, p)-discoverable extraction from log-probabilities of continuations."""

import datasets
import evaluate

import memtax.metrics.module

_EXAMPLES = """
Examples:
    >>> import evaluate, math, memtax
    >>> metric = evaluate.load(memtax.metric_path("probabilistic_extraction"))
    >>> results = metric.compute(predictions=[[math.log(0.5), math.log(0.5)], [math.log(0.1), math.log(0.1)]], per_example=True)
    >>> results["extractable_n10_p0.9"]
    0.5
    >>> results["per_example"]["queries_p0.9"]
    [9, 230]
"""

_CITATION = """
@article{hayes2024measuring,
    title={Measuring memorization in language models via probabilistic extraction},
    author={Hayes, Jamie and Swanberg, Marika and Chaudhari, Harsh and Yona, Itay and Shumailov, Ilia and others},
    journal={arXiv preprint arXiv:2410.19482},
    year={2024}
}
"""


@memtax.metrics.module.documented(memtax.metrics.probabilistic_extraction, _EXAMPLES)
class ProbabilisticExtraction(memtax.metrics.module.Module):
    """Adapter over `memtax.metrics.probabilistic_extraction`."""

    optional = ("documents",)

    _compute = staticmethod(memtax.metrics.probabilistic_extraction)

    def _info(self):
        number = datasets.Value("float64")
        return evaluate.MetricInfo(
            **memtax.metrics.module.texts(memtax.metrics.probabilistic_extraction, _EXAMPLES),
            citation=_CITATION,
            features=[
                datasets.Features({"predictions": kind, **memtax.metrics.module.DOCUMENTS})
                for kind in (datasets.List(number), number)
            ],
            reference_urls=["https://arxiv.org/abs/2410.19482"],
        )
