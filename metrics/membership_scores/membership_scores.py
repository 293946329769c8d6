"""Membership scores of texts from token log-probabilities."""

import datasets
import evaluate
import numpy as np

import memtax.hub.modules
from memtax.errors import MemtaxError
from memtax.leakage import attacks
from memtax.statistics import measures

_DESCRIPTION = """
Scores each text for membership in a model's training data: loss, zlib, Min-K%, Min-K%++ and the reference attack, from one
forward pass. Larger always means more likely a member. With labels, also the AUROC of each score.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list` of `list` of `float`): log-probability in nats of each scored token.
    references (`list` of `int`, *optional*): 1 for members, 0 for non-members; adds the AUROC of each score.
    texts (`list` of `str`, *optional*): the texts; adds `zlib`.
    means (`list` of `list` of `float`, *optional*): mean over the vocabulary of log p under p, at each token.
    variances (`list` of `list` of `float`, *optional*): its variance; with `means` adds `min_k_plus_plus_{k}`.
    reference_predictions (`list` of `list` of `float`, *optional*): log-probabilities of the same tokens under a reference
        model with the same tokenizer; adds `reference`.
    k (`list` of `float`): shares of tokens for Min-K% and Min-K%++. Defaults to `(0.1, 0.2, 0.5)`.
    resamples (`int`): bootstrap resamples for the intervals of AUROC; 0: no intervals. Defaults to 1000.
    level (`float`): coverage of the intervals. Defaults to 0.95.
    seed (`int`): of the resamples. Defaults to 1024.

Returns:
    `loss`: mean log-likelihood in nats, at most 0. `zlib`: the same over the bytes of the compressed text. `min_k_{k}`: mean of
    the lowest share k of the log-probabilities. `min_k_plus_plus_{k}`: the same of (log p - mean) / deviation. `reference`:
    mean log-likelihood beyond the reference model's. Each a list with one score a text; null where no token is scored.
    With references, `auroc_{score}` in [0, 1] with `..._low` and `..._high`, over the texts that have the score.

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
    booktitle={International Conference on Learning Representations},
    year={2025},
    url={https://arxiv.org/abs/2404.02936}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class MembershipScores(memtax.hub.modules.Module):
    """Adapter over `memtax.leakage.attacks`."""

    optional = ("references", "texts", "means", "variances", "reference_predictions")

    def _info(self):
        numbers = datasets.List(datasets.Value("float64"))
        features = {"predictions": numbers, "references": datasets.Value("float64"), "texts": datasets.Value("large_string")}
        features |= {"means": numbers, "variances": numbers, "reference_predictions": numbers}
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
        k=(0.1, 0.2, 0.5),
        resamples=1000,
        level=0.95,
        seed=1024,
    ):
        columns = {"means": means, "variances": variances, "reference_predictions": reference_predictions}
        logprobs = _arrays("predictions", predictions, predictions)
        arrays = {n: _arrays(n, column, predictions) for n, column in columns.items() if memtax.hub.modules.given(column)}
        if not all(0 < share <= 1 for share in k):
            raise MemtaxError(f"k={list(k)} must be shares above 0 and at most 1")
        scores = {"loss": [attacks.loss(row) for row in logprobs]}
        if memtax.hub.modules.given(texts):
            scores["zlib"] = [None if t is None else attacks.zlib(row, t) for row, t in zip(logprobs, texts, strict=True)]
        scores |= {f"min_k_{share:g}": [attacks.min_k(row, share) for row in logprobs] for share in k}
        if {"means", "variances"} <= set(arrays):
            rows = list(zip(logprobs, zip(arrays["means"], arrays["variances"], strict=True), strict=True))
            scores |= {f"min_k_plus_plus_{s:g}": [attacks.min_k_plus_plus(*row, s) for row in rows] for s in k}
        elif {"means", "variances"} & set(arrays):
            raise MemtaxError("Min-K%++ needs means and variances, not one of them")
        if "reference_predictions" in arrays:
            both = zip(logprobs, arrays["reference_predictions"], strict=True)
            scores["reference"] = [attacks.reference((attacks.loss(ours), attacks.loss(theirs))) for ours, theirs in both]
        result = dict(scores)
        for name, values in scores.items() if memtax.hub.modules.given(references) else ():
            known = [row for row, value in enumerate(values) if value is not None]
            labels = memtax.hub.modules.flags([references[row] for row in known], "references")
            wanted = {f"auroc_{name}": measures.evaluator(measures.auroc, labels, [values[row] for row in known])}
            result |= memtax.hub.modules.bootstrap(wanted, labels, resamples, level, seed)
        return result


def _arrays(name, column, predictions):
    """Rows as float64, checked against the predictions' lengths."""
    arrays = []
    for row, (values, other) in enumerate(zip(column, predictions, strict=True)):
        array = np.asarray([] if values is None else values, np.float64)
        if len(array) != len(other or []):
            raise MemtaxError(f"{name} have {len(array)} tokens in row {row}, predictions {len(other or [])}")
        if np.isnan(array).any():
            raise MemtaxError(f"{name} have NaN in row {row}; leave out tokens that were not scored")
        if name.endswith("predictions") and (array > 0).any():
            raise MemtaxError(f"{name} hold {array.max()} in row {row}; log-probabilities are at most 0")
        arrays.append(array)
    return arrays
