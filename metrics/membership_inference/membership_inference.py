"""How well a score separates members from non-members."""

import datasets
import evaluate

import memtax.metrics.module

_EXAMPLES = """
Examples:
    >>> import evaluate, memtax
    >>> metric = evaluate.load(memtax.metric_path("membership_inference"))
    >>> results = metric.compute(predictions=[0.9, 0.8, 0.7, 0.2], references=[1, 0, 1, 0])
    >>> results["auroc"], results["tpr_at_fpr_0.01"], results["tpr_at_fpr_0.01_reason"]
    (0.75, None, 'withheld: 2 non-members; 500 are needed')
"""

_CITATION = """
@inproceedings{carlini2022membership,
    title={Membership Inference Attacks From First Principles},
    author={Carlini, Nicholas and Chien, Steve and Nasr, Milad and Song, Shuang and Terzis, Andreas and Tramer, Florian},
    booktitle={IEEE Symposium on Security and Privacy},
    year={2022},
    url={https://arxiv.org/abs/2112.03570}
}
"""


@memtax.metrics.module.documented(memtax.metrics.membership_inference, _EXAMPLES)
class MembershipInference(memtax.metrics.module.Module):
    """Adapter over `memtax.metrics.membership_inference`."""

    optional = ("documents",)

    _compute = staticmethod(memtax.metrics.membership_inference)

    def _info(self):
        number = datasets.Value("float64")
        return evaluate.MetricInfo(
            **memtax.metrics.module.texts(memtax.metrics.membership_inference, _EXAMPLES),
            citation=_CITATION,
            features=datasets.Features({"predictions": number, "references": number, **memtax.metrics.module.DOCUMENTS}),
            reference_urls=["https://arxiv.org/abs/2112.03570"],
        )
