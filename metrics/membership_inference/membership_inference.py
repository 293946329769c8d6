"""How well a score separates members from non-members."""

import datasets
import evaluate

import memtax.hub.modules

_DESCRIPTION = """
Evaluates membership inference: AUROC, the true positive rate at low false positive rates (an attack matters if it is certain
about a few texts), and the false positive rate at a high true positive rate, each with an interval.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list` of `float`): membership scores; larger means more likely a member.
    references (`list` of `int`): 1 for members, 0 for non-members; both must occur.
    documents (`list` of `str` or `int`, *optional*): document of each row. Intervals are then over documents, as rows of one
        depend on each other, and null with a reason below 10 documents. Without it rows are taken as independent.
    fprs (`list` of `float`): false positive rates in [0, 1]. Defaults to `(0.001, 0.01, 0.05)`.
    tprs (`list` of `float`): true positive rates in [0, 1]. Defaults to `(0.95,)`.
    resamples (`int`): bootstrap resamples, members and non-members apart; 0: no intervals. Defaults to 1000.
    level (`float`): coverage of the intervals. Defaults to 0.95.
    seed (`int`): of the resamples. Defaults to 1024.

Returns:
    `auroc`: P(score of a member > score of a non-member) + P(equal) / 2, in [0, 1]; 0.5 is chance.
    `tpr_at_fpr_{f}`: largest true positive rate of any threshold with a false positive rate of at most f, in [0, 1].
    `fpr_at_tpr_{t}`: smallest false positive rate of any threshold with a true positive rate of at least t, in [0, 1].
    Each with `..._low` and `..._high`. `members`, `nonmembers`: rows of each kind.
    `..._reason`: why a figure or interval is null. TPR at FPR f needs 5/f non-members, the interval of the AUROC 10 of each
    kind; with `documents`, as many documents of each. Even then TPR is optimistic: the chosen threshold has a true FPR of
    (floor(f n) + 1) / (n + 1) on average. `documents`: how many there are, where they are given.

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


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class MembershipInference(memtax.hub.modules.Module):
    """Adapter over `memtax.statistics`."""

    optional = ("documents",)

    def _info(self):
        number = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": number, "references": number, **memtax.hub.modules.DOCUMENTS}),
            reference_urls=["https://arxiv.org/abs/2112.03570"],
        )

    def _compute(
        self,
        predictions,
        references,
        documents,
        fprs=(0.001, 0.01, 0.05),
        tprs=(0.95,),
        resamples=1000,
        level=0.95,
        seed=1024,
    ):
        labels = memtax.hub.modules.flags(references, "references")
        units = memtax.hub.modules.units_of(documents)
        result = memtax.hub.modules.operating(labels, predictions, fprs, tprs, resamples, level, seed, units)
        result |= memtax.hub.modules.counted(units)
        return {**result, "members": sum(labels), "nonmembers": len(labels) - sum(labels)}
