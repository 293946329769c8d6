"""(n, p)-discoverable extraction from log-probabilities of continuations."""

import math

import datasets
import evaluate

import memtax.hub.modules
from memtax.lm import extraction

_DESCRIPTION = """
A continuation z is (n, p)-discoverably extractable if n samples from its prompt contain z with probability at least p, that is
if 1 - (1 - p_z)^n >= p, with p_z the probability that the sampling scheme draws z. The module returns the share of sequences
for which this holds, for several n and p, from token log-probabilities: nothing has to be sampled.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list` of `list` of `float`, or `list` of `float`): log-probabilities in nats under the sampling scheme, of the
        tokens of each continuation, or of the whole continuation. `-inf` (or a null token) says that the scheme excludes it.
    documents (`list` of `str` or `int`, *optional*): document of each row. Intervals are then over documents, as rows of one
        depend on each other, and null with a reason below 10 documents. Without it rows are taken as independent.
    samples (`list` of `int`): the n. Defaults to `(1, 10, 100, 1000)`.
    probabilities (`list` of `float`): the p, above 0 and below 1. Defaults to `(0.1, 0.5, 0.9)`.
    per_example (`bool`): also return a list for each measure. Defaults to `False`.
    level (`float`): coverage of the intervals. Defaults to 0.95.

Returns:
    `extractable_n{n}_p{p}` for each pair: share of sequences, in [0, 1], with `..._low` and `..._high` (over `documents`;
    without them Clopper-Pearson, for independent sequences).
    `sequences`: sequences counted; `excluded`: those among them with p_z = 0.
    `per_example` (on request): `logprob` (log p_z in nats, null if p_z = 0) and, for each p, `queries_p{p}`: the least n that
    suffices (null if none does).

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


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class ProbabilisticExtraction(memtax.hub.modules.Module):
    """Adapter over `memtax.lm.extraction`."""

    optional = ("documents",)

    def _info(self):
        number = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=[
                datasets.Features({"predictions": kind, **memtax.hub.modules.DOCUMENTS})
                for kind in (datasets.List(number), number)
            ],
            reference_urls=["https://arxiv.org/abs/2410.19482"],
        )

    def _compute(
        self,
        predictions,
        documents,
        samples=(1, 10, 100, 1000),
        probabilities=(0.1, 0.5, 0.9),
        per_example=False,
        level=0.95,
    ):
        logprobs = [extraction.row_logprob(row, number) for number, row in enumerate(predictions)]
        units = memtax.hub.modules.units_of(documents)
        result = memtax.hub.modules.counted(units)
        for found in extraction.discoverable(logprobs, samples, probabilities, units, level):
            name = f"extractable_n{found['samples']}_p{found['probability']:g}"
            result |= memtax.hub.modules.rate_of(name, found, units)
        result |= {"sequences": len(logprobs), "excluded": logprobs.count(-math.inf)}
        return {**result, **({"per_example": extraction.examples(logprobs, probabilities)} if per_example else {})}
