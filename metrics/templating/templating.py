"""Which texts are templates: patterns that count up or repeat."""

import datasets
import evaluate

import memtax.metrics.module

_EXAMPLES = """
Examples:
    >>> import evaluate, memtax
    >>> metric = evaluate.load(memtax.metric_path("templating"))
    >>> texts = ["row 1 row 2 row 3 row 4 row 5 row 6", "la la la la la la la la", "It was a bright cold day in April."]
    >>> results = metric.compute(predictions=texts, per_example=True)
    >>> results["per_example"]["is_incrementing"], results["per_example"]["is_repeating"]
    ([True, False, False], [False, True, False])
    >>> round(results["templated"], 3)
    0.667
"""

_CITATION = """
@article{prashanth2024recite,
    title={Recite, Reconstruct, Recollect: Memorization in LMs as a Multifaceted Phenomenon},
    author={Prashanth, USVSN Sai and Deng, Alvin and O'Brien, Kyle and others},
    journal={arXiv preprint arXiv:2406.17746},
    year={2024}
}
"""


@memtax.metrics.module.documented(memtax.metrics.templating, _EXAMPLES)
class Templating(memtax.metrics.module.Module):
    """Adapter over `memtax.metrics.templating`."""

    optional = ("references", "documents")

    _compute = staticmethod(memtax.metrics.templating)

    def _info(self):
        features = {"predictions": datasets.Value("string"), "references": datasets.Value("float64")}
        features |= memtax.metrics.module.DOCUMENTS
        return evaluate.MetricInfo(
            **memtax.metrics.module.texts(memtax.metrics.templating, _EXAMPLES),
            citation=_CITATION,
            features=datasets.Features(features),
            reference_urls=["https://arxiv.org/abs/2406.17746"],
        )
