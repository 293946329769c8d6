"""k-extractability: greedy continuations against the true ones."""

import datasets
import evaluate

import memtax.hub.modules
from memtax.lm import extraction, matching

_DESCRIPTION = """
A sequence is k-extractable if greedy decoding from its k-token prompt gives its continuation exactly. The module compares
generated continuations with true ones, token by token, and returns the share that is extracted, with an exact interval.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list` of `list` of `int`, or of `str`): generated continuations. One that stopped early does not match beyond
        its end; tokens beyond the end of the true continuation are ignored.
    references (`list` of `list` of `int`, or of `str`): true continuations, none empty.
    documents (`list` of `str` or `int`, *optional*): document of each row. Intervals are then over documents, as rows of one
        depend on each other, and null with a reason below 10 documents. Without it rows are taken as independent.
    tokenizer (`str`, *optional*): folder or Hub name of the tokenizer, needed for texts.
    tokens (`int`, *optional*): compare the first so many tokens; default: all of each true continuation.
    per_example (`bool`): also return a list for each measure. Defaults to `False`.
    level (`float`): coverage of the interval. Defaults to 0.95.

Returns:
    `k_extractable`: share of sequences that match entirely, in [0, 1], with `k_extractable_low` and `k_extractable_high`
    (over `documents`; without them Clopper-Pearson, for independent sequences).
    `memorization_score`: mean share of matching tokens, in [0, 1].
    `match_length`: mean number of leading tokens that match, at least 0.
    `sequences`: sequences compared.
    `per_example` (on request): `is_memorized`, `memorization_score` and `match_length` of each sequence.

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


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class KExtractability(memtax.hub.modules.Module):
    """Adapter over `memtax.lm.matching`."""

    optional = ("documents",)

    def _info(self):
        tokens = datasets.List(datasets.Value("int64"))
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=[
                datasets.Features({"predictions": kind, "references": kind, **memtax.hub.modules.DOCUMENTS})
                for kind in (tokens, text)
            ],
            reference_urls=["https://arxiv.org/abs/2202.07646"],
        )

    def _compute(self, predictions, references, documents, tokenizer=None, tokens=None, per_example=False, level=0.95):
        generated = memtax.hub.modules.token_ids(predictions, tokenizer, "predictions")
        true = memtax.hub.modules.token_ids(references, tokenizer, "references")
        rows = matching.matches(generated, true, tokens)
        found = {
            "is_memorized": [bool(extraction.is_memorized(row)) for row in rows],
            "memorization_score": [float(row.mean()) for row in rows],
            "match_length": [int(extraction.match_length(row)) for row in rows],
        }
        units = memtax.hub.modules.units_of(documents)
        return {
            **memtax.hub.modules.rate("k_extractable", found["is_memorized"], level, units),
            **memtax.hub.modules.counted(units),
            "memorization_score": sum(found["memorization_score"]) / len(rows),
            "match_length": sum(found["match_length"]) / len(rows),
            "sequences": len(rows),
            **({"per_example": found} if per_example else {}),
        }
