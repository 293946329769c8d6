"""Recitation, reconstruction, recollection: how many sequences of each category, and how many of them are memorized."""

import datasets
import evaluate

import memtax.metrics.module

_EXAMPLES = """
Examples:
    >>> import evaluate, memtax
    >>> metric = evaluate.load(memtax.metric_path("memorization_taxonomy"))
    >>> flags = {"is_incrementing": [0, 1, 0, 0], "is_repeating": [0, 0, 0, 0]}
    >>> results = metric.compute(predictions=[1, 1, 1, 0], sequence_duplicates=[60, 1, 1, 2], per_example=True, **flags)
    >>> results["per_example"]["taxonomy"]
    ['recitation', 'reconstruction', 'recollection', 'recollection']
    >>> results["recollection_rate"], results["all_memorized"]
    (0.5, 3)
"""

_CITATION = """
@article{prashanth2024recite,
    title={Recite, Reconstruct, Recollect: Memorization in LMs as a Multifaceted Phenomenon},
    author={Prashanth, USVSN Sai and Deng, Alvin and O'Brien, Kyle and others},
    journal={arXiv preprint arXiv:2406.17746}, year={2024}
}
"""


@memtax.metrics.module.documented(memtax.metrics.memorization_taxonomy, _EXAMPLES)
class MemorizationTaxonomy(memtax.metrics.module.Module):
    """Adapter over `memtax.metrics.memorization_taxonomy`."""

    optional = ("texts", "is_incrementing", "is_repeating", "documents")

    _compute = staticmethod(memtax.metrics.memorization_taxonomy)

    def _info(self):
        number = datasets.Value("float64")
        features = {"predictions": number, "sequence_duplicates": datasets.Value("int64")}
        features |= {"texts": datasets.Value("large_string"), "is_incrementing": number, "is_repeating": number}
        features |= memtax.metrics.module.DOCUMENTS
        return evaluate.MetricInfo(
            **memtax.metrics.module.texts(memtax.metrics.memorization_taxonomy, _EXAMPLES),
            citation=_CITATION,
            features=datasets.Features(features),
            reference_urls=["https://arxiv.org/abs/2406.17746"],
        )
