"""Membership scores of texts from token log-probabilities."""

import datasets
import evaluate

import memtax.hub.modules
from memtax.membership.column_scores import score_rows

_DESCRIPTION = """
Scores each text for membership in a model's training data: loss, zlib, Min-K%, Min-K%++, and with a reference model the
reference attack, WBC and EZ. Larger always means more likely a member. With labels, also the AUROC of each score.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list` of `list` of `float`): log-probability in nats of each scored token.
    references (`list` of `int`, *optional*): 1 for members, 0 for non-members; adds the AUROC of each score.
    texts (`list` of `str`, *optional*): the texts; adds `zlib`.
    means (`list` of `list` of `float`, *optional*): mean over the vocabulary of log p under p, at each token.
    variances (`list` of `list` of `float`, *optional*): its variance; with `means` adds `min_k_plus_plus_{k}`.
    reference_predictions (`list` of `list` of `float`, *optional*): log-probabilities of the same tokens under a reference
        model with the same tokenizer; adds `reference` and `wbc`.
    matches (`list` of `list` of `float`, *optional*): 1 for tokens that are the model's argmax, 0 for others; with
        `reference_predictions` adds `ez`.
    documents (`list` of `str` or `int`, *optional*): document of each row. Intervals are then over documents, as rows of one
        depend on each other, and null with a reason below 10 documents. Without it rows are taken as independent.
    k (`list` of `float`): shares of tokens for Min-K% and Min-K%++. Defaults to `(0.1, 0.2, 0.5)`.
    resamples (`int`): 0 leaves out the intervals of AUROC, which need no resampling. Defaults to 1000.
    level (`float`): coverage of the intervals. Defaults to 0.95.

Returns:
    `loss`: mean log-likelihood in nats, at most 0. `zlib`: the same over the compressed text's bytes. `min_k_{k}`: mean of
    the lowest share k of the log-probabilities. `min_k_plus_plus_{k}`: the same of (log p - mean) / deviation. `reference`:
    mean log-likelihood beyond the reference model's. `wbc`: share of token windows that are likelier than under the reference
    model. `ez`: gains over losses against it at the tokens that are not the argmax. Each a list with one score per text; null
    where no token is scored. With references, `auroc_{score}` in [0, 1] with `..._low` and `..._high`, over the texts that
    have the score; `..._reason`: why an interval is null.

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


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class MembershipScores(memtax.hub.modules.Module):
    """Adapter over `memtax.membership.attacks`."""

    optional = ("references", "texts", "means", "variances", "reference_predictions", "matches", "documents")

    def _info(self):
        numbers = datasets.List(datasets.Value("float64"))
        features = dict.fromkeys(("predictions", "means", "variances", "reference_predictions", "matches"), numbers)
        features |= {
            "references": datasets.Value("float64"),
            "texts": datasets.Value("large_string"),
            **memtax.hub.modules.DOCUMENTS,
        }
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(features),
            reference_urls=["https://arxiv.org/abs/2404.02936", "https://arxiv.org/abs/2310.16789"],
        )

    def _compute(
        self,
        predictions,
        references,
        texts,
        means,
        variances,
        reference_predictions,
        matches,
        documents,
        k=(0.1, 0.2, 0.5),
        resamples=1000,
        level=0.95,
    ):
        columns = {"texts": texts, "means": means, "variances": variances}
        columns |= {"reference_predictions": reference_predictions, "matches": matches}
        scores = score_rows(predictions, k=k, **{name: memtax.hub.modules.given(column) for name, column in columns.items()})
        if not memtax.hub.modules.given(references):
            return scores
        units = memtax.hub.modules.units_of(documents)
        areas = memtax.hub.modules.aurocs(scores, references, resamples, level, units)
        return scores | areas | memtax.hub.modules.counted(units)
