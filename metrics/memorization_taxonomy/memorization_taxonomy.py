"""Recitation, reconstruction, recollection: how many sequences of each category, and how many of them are memorized."""

import datasets
import evaluate

import memtax.hub.modules
from memtax.errors import MemtaxError
from memtax.filters.taxonomy import taxonomy
from memtax.filters.templates import TemplateFilter
from memtax.pipeline.extraction_rates import rates_by_category
from memtax.schema import CATEGORIES, RECITATION_THRESHOLD

_DESCRIPTION = """
Sorts sequences into the taxonomy of memorization and returns the share of each category that is memorized. In this order: more
than `threshold` duplicates in the corpus is recitation; else an incrementing or repeating text is reconstruction; else
recollection. Every sequence has a category, memorized or not.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list` of `bool`): whether each sequence is memorized.
    sequence_duplicates (`list` of `int`): occurrences of each continuation in the corpus, at least 0; null if not known.
    texts (`list` of `str`, *optional*): the texts, from which templates are found; give these or the two flags.
    is_incrementing (`list` of `bool`, *optional*): whether each text continues a progression.
    is_repeating (`list` of `bool`, *optional*): whether each text repeats a pattern.
    documents (`list` of `str` or `int`, *optional*): document of each row. Intervals are then over documents, as rows of one
        depend on each other, and null with a reason below 10 documents. Without it rows are taken as independent.
    threshold (`int`): the most duplicates of a sequence that is not recitation. Defaults to the paper's
        (`memtax.schema.RECITATION_THRESHOLD`).
    per_example (`bool`): also return each sequence's category. Defaults to `False`.
    level (`float`): coverage of the intervals. Defaults to 0.95.

Returns:
    For `all` and each category c: `{c}_sequences`, `{c}_memorized` (counts), `{c}_rate`: share of the category's sequences that
    is memorized, in [0, 1], with `..._low` and `..._high` (over `documents`, whose number is `{c}_documents`; without them
    Clopper-Pearson, for independent sequences); null without sequences.
    `unlabelled`: sequences whose category is not known because an input is null.
    `per_example` (on request): `taxonomy`, the category's name or null.

Examples:
    >>> import evaluate, memtax
    >>> metric = evaluate.load(memtax.metric_path("memorization_taxonomy"))
    >>> flags = {"is_incrementing": [0, 1, 0, 0], "is_repeating": [0, 0, 0, 0]}
    >>> results = metric.compute(predictions=[1, 1, 1, 0], sequence_duplicates=[6, 1, 1, 2], per_example=True, **flags)
    >>> results["per_example"]["taxonomy"]
    ['recitation', 'reconstruction', 'recollection', 'recollection']
    >>> results["recollection_rate"], results["all_memorized"]
    (0.5, 3)
"""

_CITATION = """
@article{prashanth2024recite,
    title={Recite, Reconstruct, Recollect: Memorization in LMs as a Multifaceted Phenomenon},
    author={Prashanth, USVSN Sai and Deng, Alvin and O'Brien, Kyle and others},
    journal={arXiv preprint arXiv:2406.17746}, year={2024}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class MemorizationTaxonomy(memtax.hub.modules.Module):
    """Adapter over `memtax.filters.taxonomy`."""

    optional = ("texts", "is_incrementing", "is_repeating", "documents")

    def _info(self):
        number = datasets.Value("float64")
        features = {"predictions": number, "sequence_duplicates": datasets.Value("int64")}
        features |= {"texts": datasets.Value("large_string"), "is_incrementing": number, "is_repeating": number}
        features |= memtax.hub.modules.DOCUMENTS
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(features),
            reference_urls=["https://arxiv.org/abs/2406.17746"],
        )

    def _compute(
        self,
        predictions,
        sequence_duplicates,
        texts,
        is_incrementing,
        is_repeating,
        documents,
        threshold=RECITATION_THRESHOLD,
        per_example=False,
        level=0.95,
    ):
        memorized = memtax.hub.modules.flags(predictions, "predictions")
        if memtax.hub.modules.given(texts):
            found = TemplateFilter()({"text": texts})
            is_incrementing, is_repeating = found["is_incrementing"], found["is_repeating"]
        elif not (memtax.hub.modules.given(is_incrementing) and memtax.hub.modules.given(is_repeating)):
            raise MemtaxError("memorization_taxonomy needs texts, or is_incrementing and is_repeating")
        for name, column in {"is_incrementing": is_incrementing, "is_repeating": is_repeating}.items():
            memtax.hub.modules.flags([value for value in column if value is not None], name)
        codes = taxonomy(sequence_duplicates, is_incrementing, is_repeating, threshold)
        result = rates_by_category(memorized, codes, level, memtax.hub.modules.given(documents))
        result["unlabelled"] = codes.count(None)
        if per_example:
            result["per_example"] = {"taxonomy": [None if code is None else CATEGORIES[code] for code in codes]}
        return result
