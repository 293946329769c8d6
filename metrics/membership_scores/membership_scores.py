"""Membership scores of texts from token log-probabilities."""

import datasets
import evaluate

import memtax.metrics.module

_EXAMPLES = """
Examples:
    >>> import evaluate, memtax
    >>> metric = evaluate.load(memtax.metric_path("membership_scores"))
    >>> results = metric.compute(predictions=[[-1.0, -3.0], [-2.0, -6.0]], references=[1, 0], k=[0.5])
    >>> results["loss"], results["min_k_0.5"], results["auroc_loss"]
    ([-2.0, -4.0], [-3.0, -6.0], 1.0)
"""

_CITATION = """
@inproceedings{zhang2025mink,
    title={Min-K%++: Improved Baseline for Detecting Pre-Training Data from Large Language Models},
    author={Zhang, Jingyang and Sun, Jingwei and Yeats, Eric and Ouyang, Yang and Kuo, Martin and Zhang, Jianyi and others},
    booktitle={International Conference on Learning Representations}, year={2025}
}
"""


@memtax.metrics.module.documented(memtax.metrics.membership_scores, _EXAMPLES)
class MembershipScores(memtax.metrics.module.Module):
    """Adapter over `memtax.metrics.membership_scores`."""

    optional = ("references", "texts", "means", "variances", "reference_predictions", "matches", "documents")

    _compute = staticmethod(memtax.metrics.membership_scores)

    def _info(self):
        numbers = datasets.List(datasets.Value("float64"))
        features = dict.fromkeys(("predictions", "means", "variances", "reference_predictions", "matches"), numbers)
        features |= {
            "references": datasets.Value("float64"),
            "texts": datasets.Value("large_string"),
            **memtax.metrics.module.DOCUMENTS,
        }
        return evaluate.MetricInfo(
            **memtax.metrics.module.texts(memtax.metrics.membership_scores, _EXAMPLES),
            citation=_CITATION,
            features=datasets.Features(features),
            reference_urls=["https://arxiv.org/abs/2404.02936", "https://arxiv.org/abs/2310.16789"],
        )
