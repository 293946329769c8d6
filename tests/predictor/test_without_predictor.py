"""A run whose model memorized too little for a predictor ends with the reason, not with an error."""

import pyarrow as pa

from helpers import simulated
from memtax.pipeline.config import RunConfig
from memtax.pipeline.run import _fit, _predict
from memtax.predictor.factors import FACTORS


def test_too_few_memorized_give_the_reason_and_null_probabilities(tmp_path):
    data = simulated.with_column(simulated.table(rows=300), "is_memorized", [True] * 3 + [False] * 297)
    for name in ("max", "avg", "min", "median", "p25", "p75", "prompt", "continuation", "sequence"):
        column = f"{name}_perplexity" if name in ("prompt", "continuation", "sequence") else f"{name}_frequency"
        data = simulated.with_column(data, column, [2.0 + row % 7 for row in range(300)])
    data = simulated.with_column(data, "huffman_coding_length", [3.0 + row % 5 for row in range(300)])
    predictor, metrics = _fit(RunConfig(model="m", corpus="c", output=str(tmp_path)), data, FACTORS, tmp_path)
    assert predictor is None
    # 3 of 300 rows: each part's share is rounded, and what is left trains.
    assert "positives among the training rows, 10 needed" in metrics["reason"]
    assert not (tmp_path / "models" / "predictor").exists()
    probabilities = _predict(predictor, data)
    assert (probabilities.type, probabilities.null_count) == (pa.float32(), 300)
