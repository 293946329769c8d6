"""Which texts are templates: patterns that count up or repeat."""

import datasets
import evaluate

import memtax.hub.modules
from memtax.filters.templates import TemplateFilter
from memtax.statistics import measures

_DESCRIPTION = """
Finds texts that are templates: incrementing (a counter or another progression continues) or repeating (a pattern recurs).
Such a text can be continued without having been memorized. With labels, also how well the rules agree with them.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list` of `str`): texts.
    references (`list` of `bool`, *optional*): whether each text is a template; adds precision, recall and F1.
    documents (`list` of `str` or `int`, *optional*): document of each row. Intervals are then over documents, as rows of one
        depend on each other, and null with a reason below 10 documents. Without it rows are taken as independent.
    per_example (`bool`): also return the decision on each text. Defaults to `False`.
    level (`float`): coverage of the intervals. Defaults to 0.95.

Returns:
    `incrementing`, `repeating` (no text is both), `templated` (either): shares of the texts, in [0, 1], each with `..._low` and
    `..._high` (over `documents`; without them Clopper-Pearson, for independent texts). `texts`: how many there are.
    With references: `f1`, `precision`, `recall` of `templated`, in [0, 1].
    `per_example` (on request): `is_incrementing`, `is_repeating` and `template_period` (in items: words, numbers, signs; null
    if there is none).

Examples:
    >>> import evaluate, memtax
    >>> metric = evaluate.load(memtax.metric_path("templating"))
    >>> texts = ["row 1 row 2 row 3 row 4 row 5 row 6", "la la la la la la la la", "It was a bright cold day in April."]
    >>> results = metric.compute(predictions=texts, per_example=True)
    >>> results["per_example"]["is_incrementing"], results["per_example"]["is_repeating"]
    ([True, False, False], [False, True, False])
    >>> round(results["templated"], 3)
    0.667
"""

_CITATION = """
@article{prashanth2024recite,
    title={Recite, Reconstruct, Recollect: Memorization in LMs as a Multifaceted Phenomenon},
    author={Prashanth, USVSN Sai and Deng, Alvin and O'Brien, Kyle and others},
    journal={arXiv preprint arXiv:2406.17746},
    year={2024}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class Templating(memtax.hub.modules.Module):
    """Adapter over `memtax.filters.templates`."""

    optional = ("references", "documents")

    def _info(self):
        features = {"predictions": datasets.Value("string"), "references": datasets.Value("float64")}
        features |= memtax.hub.modules.DOCUMENTS
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(features),
            reference_urls=["https://arxiv.org/abs/2406.17746"],
        )

    def _compute(self, predictions, references, documents, per_example=False, level=0.95):
        found = TemplateFilter()({"text": memtax.hub.modules.texts(predictions, "predictions")})
        columns = {name: found[name] for name in TemplateFilter.columns}
        incrementing, repeating = columns["is_incrementing"], columns["is_repeating"]
        templated = [one or other for one, other in zip(incrementing, repeating, strict=True)]
        units = memtax.hub.modules.units_of(documents)
        result = memtax.hub.modules.counted(units)
        for name, decided in {"incrementing": incrementing, "repeating": repeating, "templated": templated}.items():
            result |= memtax.hub.modules.rate(name, decided, level, units)
        result["texts"] = len(predictions)
        if memtax.hub.modules.given(references):
            labels = memtax.hub.modules.flags(references, "references")
            result["f1"] = measures.f1_score(labels, templated)
            result["precision"] = measures.precision_score(labels, templated)
            result["recall"] = measures.recall_score(labels, templated)
        if per_example:
            result["per_example"] = columns
        return result
