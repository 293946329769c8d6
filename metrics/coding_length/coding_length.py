"""How well texts or token sequences compress by themselves."""

import datasets
import evaluate

import memtax.metrics.module

_EXAMPLES = """
Examples:
    >>> import evaluate, memtax
    >>> metric = evaluate.load(memtax.metric_path("coding_length"))
    >>> results = metric.compute(predictions=["aab", "aaaa"], per_example=True)
    >>> results["per_example"]["huffman_coding_length"], results["huffman_coding_length"]
    ([1.0, 0.0], 0.5)
    >>> round(metric.compute(predictions=[[1, 1, 2]])["shannon_coding_length"], 3)
    1.333
"""

_CITATION = """
@article{huffman1952method,
    title={A Method for the Construction of Minimum-Redundancy Codes},
    author={Huffman, David A.},
    journal={Proceedings of the IRE},
    volume={40},
    number={9},
    pages={1098--1101},
    year={1952}
}
"""


@memtax.metrics.module.documented(memtax.metrics.coding_length, _EXAMPLES)
class CodingLength(memtax.metrics.module.Module):
    """Adapter over `memtax.metrics.coding_length`."""

    _compute = staticmethod(memtax.metrics.coding_length)

    def _info(self):
        tokens = datasets.List(datasets.Value("int64"))
        return evaluate.MetricInfo(
            **memtax.metrics.module.texts(memtax.metrics.coding_length, _EXAMPLES),
            citation=_CITATION,
            features=[datasets.Features({"predictions": kind}) for kind in (tokens, datasets.Value("string"))],
            reference_urls=["https://arxiv.org/abs/2406.17746"],
        )
