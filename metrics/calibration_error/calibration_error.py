"""Whether probabilities mean what they say."""

import datasets
import evaluate

import memtax.metrics.module

_EXAMPLES = """
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


@memtax.metrics.module.documented(memtax.metrics.calibration_error, _EXAMPLES)
class CalibrationError(memtax.metrics.module.Module):
    """Adapter over `memtax.metrics.calibration_error`."""

    optional = ("documents",)

    _compute = staticmethod(memtax.metrics.calibration_error)

    def _info(self):
        number = datasets.Value("float64")
        return evaluate.MetricInfo(
            **memtax.metrics.module.texts(memtax.metrics.calibration_error, _EXAMPLES),
            citation=_CITATION,
            features=datasets.Features({"predictions": number, "references": number, **memtax.metrics.module.DOCUMENTS}),
            reference_urls=["https://ojs.aaai.org/index.php/AAAI/article/view/9602"],
        )
