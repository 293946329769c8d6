"""`memtax predict`: the probability of memorization for every sequence in a dataset of any size."""

from dataclasses import dataclass

from memtax.jobs.base import Job, Result, Rows, Work
from memtax.settings import argument, option


@dataclass(frozen=True, kw_only=True)
class Predict(Job):
    """Add each sequence's probability of being memorized, streaming.

    Example: `memtax predict runs/demo/predictor runs/demo/dataset:features --output risk`
    """

    predictor: str = argument("Output of memtax fit, folder of a predictor, or its name on the Hub.")
    data: str = argument("Dataset of any size: path[:config[:split]].")
    baseline: bool = option("Use the model for all sequences, not the models of the categories.", False)

    def make(self, work: Work) -> Result:
        """See `memtax.predictor.prediction`."""
        from memtax.predictor.prediction import predict_dataset, summarize
        from memtax.predictor.predictor import Predictor

        folder = work.output / "parts"
        model = "baseline" if self.baseline else "taxonomic"
        work.on_main(lambda: predict_dataset(Predictor.from_pretrained(self.predictor), self.data, folder, model))
        figures = summarize(folder)
        line = f"{figures['rows']:,} rows, {figures['without_probability']:,} of them without a probability"
        if figures["expected_memorized"] is not None:
            line += f"; {figures['expected_memorized']:,.1f} expected to be memorized"
            line += f", {figures['likely']:,} more likely than not"
        row = "One row per sequence, with its probability of being memorized."
        parts = sorted((folder / "data").glob("part-*.parquet"))
        return Result("Predictions of memorization", [Rows("predictions", row, parts)], figures, [line])
