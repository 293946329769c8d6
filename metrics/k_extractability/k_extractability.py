"""k-extractability: greedy continuations against the true ones."""

import datasets
import evaluate

import memtax.metrics.module

_EXAMPLES = """
Examples:
    >>> import evaluate, memtax
    >>> metric = evaluate.load(memtax.metric_path("k_extractability"))
    >>> results = metric.compute(predictions=[[5, 6, 7], [5, 6, 9]], references=[[5, 6, 7], [5, 6, 7]])
    >>> results["k_extractable"], results["match_length"]
    (0.5, 2.5)
    >>> metric.compute(predictions=[[1]], references=[[1, 2]], per_example=True)["per_example"]["memorization_score"]
    [0.5]
"""

_CITATION = """
@inproceedings{carlini2023quantifying,
    title={Quantifying Memorization Across Neural Language Models},
    author={Carlini, Nicholas and Ippolito, Daphne and Jagielski, Matthew and Lee, Katherine and Tramer, Florian and others},
    booktitle={International Conference on Learning Representations},
    year={2023},
    url={https://arxiv.org/abs/2202.07646}
}
"""


@memtax.metrics.module.documented(memtax.metrics.k_extractability, _EXAMPLES)
class KExtractability(memtax.metrics.module.Module):
    """Adapter over `memtax.metrics.k_extractability`."""

    optional = ("documents",)

    _compute = staticmethod(memtax.metrics.k_extractability)

    def _info(self):
        tokens = datasets.List(datasets.Value("int64"))
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            **memtax.metrics.module.texts(memtax.metrics.k_extractability, _EXAMPLES),
            citation=_CITATION,
            features=[
                datasets.Features({"predictions": kind, "references": kind, **memtax.metrics.module.DOCUMENTS})
                for kind in (tokens, text)
            ],
            reference_urls=["https://arxiv.org/abs/2202.07646"],
        )
