"""The main job: corpus, counts, scores, filters, taxonomy, predictor, dataset and report, from one configuration."""

from memtax.pipeline.config import RunConfig
from memtax.pipeline.run import run

__all__ = ["RunConfig", "run"]
