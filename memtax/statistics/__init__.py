"""Statistics of rankings, probabilities and rates, each with an interval."""

from memtax.statistics.clusters import bounded_mean, cluster_mean, cluster_rate, sign_flip_test
from memtax.statistics.correlation import spearman_interval
from memtax.statistics.curves import best_threshold, pr_curve, reliability_curve, roc_curve
from memtax.statistics.intervals import (
    Interval,
    bootstrap_interval,
    calibration_interval,
    clopper_pearson,
    paired_bootstrap_difference,
    percentile_interval,
    resample,
)
from memtax.statistics.measures import (
    auroc,
    average_precision,
    brier_score,
    calibration_noise,
    evaluator,
    expected_calibration_error,
    f1_score,
    log_loss,
    pearson,
    precision_score,
    recall_score,
    spearman,
)
from memtax.statistics.operating import fewest_negatives, fpr_at_tpr, operating_evaluators, tpr_at_fpr
from memtax.statistics.paired import cluster_difference, mcnemar, paired_difference
from memtax.statistics.ranking import auroc_interval
from memtax.statistics.shares import mean_over_units, share
from memtax.statistics.units import FEWEST_UNITS, Units, count_units, expanded_level, fewest_units, unit_codes, withheld
from memtax.statistics.xi import chatterjee_xi, xi_interval, xi_withheld

__all__ = [
    "FEWEST_UNITS",
    "Interval",
    "Units",
    "auroc",
    "auroc_interval",
    "average_precision",
    "best_threshold",
    "bootstrap_interval",
    "bounded_mean",
    "brier_score",
    "calibration_interval",
    "calibration_noise",
    "chatterjee_xi",
    "clopper_pearson",
    "cluster_difference",
    "cluster_mean",
    "cluster_rate",
    "count_units",
    "evaluator",
    "expanded_level",
    "expected_calibration_error",
    "f1_score",
    "fewest_negatives",
    "fewest_units",
    "fpr_at_tpr",
    "log_loss",
    "mcnemar",
    "mean_over_units",
    "operating_evaluators",
    "paired_bootstrap_difference",
    "paired_difference",
    "pearson",
    "percentile_interval",
    "pr_curve",
    "precision_score",
    "recall_score",
    "reliability_curve",
    "resample",
    "roc_curve",
    "share",
    "sign_flip_test",
    "spearman",
    "spearman_interval",
    "tpr_at_fpr",
    "unit_codes",
    "withheld",
    "xi_interval",
    "xi_withheld",
]
