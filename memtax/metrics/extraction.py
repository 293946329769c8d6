"""Extraction of continuations: from what was generated, or from log-probabilities."""

import math
from collections.abc import Sequence
from typing import Any

from memtax.lm import extraction, matching
from memtax.metrics.figures import counted, rate, rate_of
from memtax.metrics.inputs import Column, columns, token_ids, units_of


def k_extractability(
    predictions: Column,
    references: Column,
    documents: Column | None = None,
    tokenizer: str | None = None,
    tokens: int | None = None,
    per_example: bool = False,
    level: float = 0.95,
) -> dict[str, Any]:
    """Share of sequences whose continuation greedy decoding generated exactly (Carlini et al. 2023).

    A sequence is k-extractable if greedy decoding from its k-token prompt gives its continuation exactly. This compares
    generated continuations with true ones, token by token, and returns the share that is extracted, with an exact interval.

    Args:
        predictions (`list` of `list` of `int`, or of `str`): generated continuations. One that stopped early does not match
            beyond its end; tokens beyond the end of the true continuation are ignored.
        references (`list` of `list` of `int`, or of `str`): true continuations, none empty.
        documents (`list` of `str` or `int`, *optional*): document of each row. Intervals are then over documents, as rows of
            one depend on each other, and null with a reason below 10 documents. Without it rows are taken as independent.
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

    Example:
        >>> import memtax
        >>> results = memtax.metrics.k_extractability(predictions=[[5, 6, 7], [5, 6, 9]], references=[[5, 6, 7], [5, 6, 7]])
        >>> results["k_extractable"], results["match_length"]
        (0.5, 2.5)
        >>> memtax.metrics.k_extractability([[1]], [[1, 2]])["memorization_score"]
        0.5
    """
    predictions, references, documents = columns(2, predictions=predictions, references=references, documents=documents)
    generated, true = token_ids(predictions, tokenizer, "predictions"), token_ids(references, tokenizer, "references")
    rows = matching.matches(generated, true, tokens)
    found: dict[str, list[Any]] = {
        "is_memorized": [bool(extraction.is_memorized(row)) for row in rows],
        "memorization_score": [float(row.mean()) for row in rows],
        "match_length": [int(extraction.match_length(row)) for row in rows],
    }
    units = units_of(documents)
    return {
        **rate("k_extractable", found["is_memorized"], level, units),
        **counted(units),
        "memorization_score": sum(found["memorization_score"]) / len(rows),
        "match_length": sum(found["match_length"]) / len(rows),
        "sequences": len(rows),
        **({"per_example": found} if per_example else {}),
    }


def probabilistic_extraction(
    predictions: Column,
    documents: Column | None = None,
    samples: Sequence[int] = (1, 10, 100, 1000),
    probabilities: Sequence[float] = (0.1, 0.5, 0.9),
    per_example: bool = False,
    level: float = 0.95,
) -> dict[str, Any]:
    """Share of sequences that are (n, p)-discoverably extractable (Hayes et al. 2024).

    A continuation z is (n, p)-discoverably extractable if n samples from its prompt contain z with probability at least p, that
    is if 1 - (1 - p_z)^n >= p, with p_z the probability that the sampling scheme draws z. This returns the share of sequences
    for which this holds, for several n and p, from token log-probabilities: nothing has to be sampled.

    Args:
        predictions (`list` of `list` of `float`, or `list` of `float`): log-probabilities in nats under the sampling scheme, of
            the tokens of each continuation, or of the whole continuation. `-inf` (or a null token) says that the scheme
            excludes it.
        documents (`list` of `str` or `int`, *optional*): document of each row. Intervals are then over documents, as rows of
            one depend on each other, and null with a reason below 10 documents. Without it rows are taken as independent.
        samples (`list` of `int`): the n. Defaults to `(1, 10, 100, 1000)`.
        probabilities (`list` of `float`): the p, above 0 and below 1. Defaults to `(0.1, 0.5, 0.9)`.
        per_example (`bool`): also return a list for each measure. Defaults to `False`.
        level (`float`): coverage of the intervals. Defaults to 0.95.

    Returns:
        `extractable_n{n}_p{p}` for each pair: share of sequences, in [0, 1], with `..._low` and `..._high` (over `documents`;
        without them Clopper-Pearson, for independent sequences).
        `sequences`: sequences counted; `excluded`: those among them with p_z = 0.
        `per_example` (on request): `logprob` (log p_z in nats, null if p_z = 0) and, for each p, `queries_p{p}`: the least n
        that suffices (null if none does).

    Raises:
        MemtaxError: columns are missing, empty, of different lengths, or hold values that the measure cannot take.

    Example:
        >>> import math, memtax
        >>> logprobs = [[math.log(0.5), math.log(0.5)], [math.log(0.1), math.log(0.1)]]
        >>> results = memtax.metrics.probabilistic_extraction(logprobs, per_example=True)
        >>> results["extractable_n10_p0.9"]
        0.5
        >>> results["per_example"]["queries_p0.9"]
        [9, 230]
    """
    predictions, documents = columns(1, predictions=predictions, documents=documents)
    logprobs = [extraction.row_logprob(row, number) for number, row in enumerate(predictions)]
    units = units_of(documents)
    result: dict[str, Any] = dict(counted(units))
    for found in extraction.discoverable(logprobs, samples, probabilities, units, level):
        result |= rate_of(f"extractable_n{found['samples']}_p{found['probability']:g}", found, units)
    result |= {"sequences": len(logprobs), "excluded": logprobs.count(-math.inf)}
    return {**result, **({"per_example": extraction.examples(logprobs, probabilities)} if per_example else {})}
