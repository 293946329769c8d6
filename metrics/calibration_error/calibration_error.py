"""Whether probabilities mean what they say."""

import datasets
import evaluate

import memtax.hub.modules
from memtax.statistics import curves, measures

_DESCRIPTION = """
Expected calibration error of probabilities with bins of equal width, Brier score and log loss, each with a bootstrap interval.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list` of `float`): probabilities of label 1, in [0, 1].
    references (`list` of `int`): labels, 0 or 1; one of them may be absent.
    documents (`list` of `str` or `int`, *optional*): document of each row. Intervals are then over documents, as rows of one
        depend on each other, and null with a reason below 10 documents. Without it rows are taken as independent.
    bins (`int`): bins of equal width over [0, 1]; the last one is closed. Defaults to 15.
    resamples (`int`): bootstrap resamples of the rows or documents; 0: no intervals. Defaults to 1000.
    level (`float`): coverage of the intervals. Defaults to 0.95.
    seed (`int`): of the resamples. Defaults to 1024.
    curve (`bool`): also return the reliability curve. Defaults to `False`.

Returns:
    `ece`: mean over rows of |mean probability - share of label 1| in the row's bin, in [0, 1]; 0 is best.
    `brier_score`: mean squared difference of probability and label, in [0, 1]; 0 is best.
    `log_loss`: mean negative log-likelihood in nats, at least 0.
    Each with `..._low` and `..._high`. `rows`: how many there are.
    `curve` (on request): `predicted` (mean probability), `observed` (share of label 1) and `rows` of each bin with rows.

Examples:
    >>> import evaluate, memtax
    >>> metric = evaluate.load(memtax.metric_path("calibration_error"))
    >>> results = metric.compute(predictions=[0.2, 0.2, 0.9, 0.9], references=[0, 1, 1, 1], bins=5)
    >>> round(results["ece"], 3), round(results["brier_score"], 3)
    (0.2, 0.175)
"""

_CITATION = """
@inproceedings{naeini2015obtaining,
    title={Obtaining Well Calibrated Probabilities Using Bayesian Binning},
    author={Naeini, Mahdi Pakdaman and Cooper, Gregory F. and Hauskrecht, Milos},
    booktitle={AAAI Conference on Artificial Intelligence},
    year={2015}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class CalibrationError(memtax.hub.modules.Module):
    """Adapter over `memtax.statistics`."""

    optional = ("documents",)

    def _info(self):
        number = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": number, "references": number, **memtax.hub.modules.DOCUMENTS}),
            reference_urls=["https://ojs.aaai.org/index.php/AAAI/article/view/9602"],
        )

    def _compute(self, predictions, references, documents, bins=15, resamples=1000, level=0.95, seed=1024, curve=False):
        labels = memtax.hub.modules.flags(references, "references")
        wanted = {
            "ece": measures.calibration_evaluator(labels, predictions, bins),
            "brier_score": measures.evaluator(measures.brier_score, labels, predictions),
            "log_loss": measures.evaluator(measures.log_loss, labels, predictions),
        }
        units = memtax.hub.modules.units_of(documents)
        result = memtax.hub.modules.bootstrap(wanted, labels, resamples, level, seed, stratified=False, units=units)
        result |= memtax.hub.modules.counted(units)
        result["rows"] = len(labels)
        if curve:
            names = ("predicted", "observed", "rows")
            points = curves.reliability_curve(labels, predictions, bins)
            result["curve"] = {name: values.tolist() for name, values in zip(names, points, strict=True)}
        return result
