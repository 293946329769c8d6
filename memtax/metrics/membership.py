"""Membership: scores of texts, and how well scores tell members from non-members."""

from collections.abc import Sequence
from typing import Any

from memtax.membership.column_scores import score_rows
from memtax.metrics.figures import aurocs, counted, operating
from memtax.metrics.inputs import Column, columns, flags, numbers, units_of


def membership_inference(
    predictions: Column,
    references: Column,
    documents: Column | None = None,
    fprs: Sequence[float] = (0.001, 0.01, 0.05),
    tprs: Sequence[float] = (0.95,),
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 1024,
) -> dict[str, Any]:
    """How well scores tell members from non-members.

    Evaluates membership inference: AUROC, the true positive rate at low false positive rates (an attack matters if it is
    certain about a few texts), and the false positive rate at a high true positive rate, each with an interval.

    Args:
        predictions (`list` of `float`): membership scores; larger means more likely a member.
        references (`list` of `int`): 1 for members, 0 for non-members; both must occur.
        documents (`list` of `str` or `int`, *optional*): document of each row. Intervals are then over documents, as rows of
            one depend on each other, and null with a reason below 10 documents. Without it rows are taken as independent.
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

    Raises:
        MemtaxError: columns are missing, empty, of different lengths, or hold values that the measure cannot take.

    Example:
        >>> import memtax
        >>> results = memtax.metrics.membership_inference(predictions=[0.9, 0.8, 0.7, 0.2], references=[1, 0, 1, 0])
        >>> results["auroc"], results["tpr_at_fpr_0.01"], results["tpr_at_fpr_0.01_reason"]
        (0.75, None, 'withheld: 2 non-members; 500 are needed')
    """
    predictions, references, documents = columns(2, predictions=predictions, references=references, documents=documents)
    labels, units = flags(references, "references"), units_of(documents)
    result = operating(labels, numbers(predictions, "predictions"), fprs, tprs, resamples, level, seed, units) | counted(units)
    return {**result, "members": sum(labels), "nonmembers": len(labels) - sum(labels)}


def membership_scores(
    predictions: Column,
    references: Column | None = None,
    texts: Column | None = None,
    means: Column | None = None,
    variances: Column | None = None,
    reference_predictions: Column | None = None,
    matches: Column | None = None,
    documents: Column | None = None,
    k: Sequence[float] = (0.1, 0.2, 0.5),
    resamples: int = 1000,
    level: float = 0.95,
) -> dict[str, Any]:
    """Scores of texts for membership in a model's training data.

    Scores each text for membership in a model's training data: loss, zlib, Min-K%, Min-K%++, and with a reference model the
    reference attack, WBC and EZ. Larger always means more likely a member. With labels, also the AUROC of each score.

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
        documents (`list` of `str` or `int`, *optional*): document of each row. Intervals are then over documents, as rows of
            one depend on each other, and null with a reason below 10 documents. Without it rows are taken as independent.
        k (`list` of `float`): shares of tokens for Min-K% and Min-K%++. Defaults to `(0.1, 0.2, 0.5)`.
        resamples (`int`): 0 leaves out the intervals of AUROC, which need no resampling. Defaults to 1000.
        level (`float`): coverage of the intervals. Defaults to 0.95.

    Returns:
        `loss`: mean log-likelihood in nats, at most 0. `zlib`: the same over the compressed text's bytes. `min_k_{k}`: mean of
        the lowest share k of the log-probabilities. `min_k_plus_plus_{k}`: the same of (log p - mean) / deviation. `reference`:
        mean log-likelihood beyond the reference model's. `wbc`: share of token windows that are likelier than under the
        reference model. `ez`: gains over losses against it at the tokens that are not the argmax. Each a list with one score
        per text; null where no token is scored. With references, `auroc_{score}` in [0, 1] with `..._low` and `..._high`, over
        the texts that have the score; `..._reason`: why an interval is null.

    Example:
        >>> import memtax
        >>> results = memtax.metrics.membership_scores(predictions=[[-1.0, -3.0], [-2.0, -6.0]], references=[1, 0], k=[0.5])
        >>> results["loss"], results["min_k_0.5"], results["auroc_loss"]
        ([-2.0, -4.0], [-3.0, -6.0], 1.0)
    """
    evidence = {"texts": texts, "means": means, "variances": variances}
    evidence |= {"reference_predictions": reference_predictions, "matches": matches}
    predictions, references, documents, *others = columns(
        1, predictions=predictions, references=references, documents=documents, **evidence
    )
    scores = score_rows(predictions, k=k, **dict(zip(evidence, others, strict=True)))
    if references is None:
        return scores
    units = units_of(documents)
    return scores | aurocs(scores, references, resamples, level, units) | counted(units)
