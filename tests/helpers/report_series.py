"""What `metrics.json` holds on the models and checkpoints of a series, with made-up numbers."""

import numpy as np

from memtax.predictor.kinds import KINDS
from memtax.schema import CATEGORIES
from memtax.statistics import Units, share


def kind_rows(members, units=40, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for checkpoint, step in members:
        for category in ("all", *CATEGORIES):
            flags, codes = rng.random(200) < step / 400, Units(np.arange(200) % units, "document")
            for kind in KINDS:
                part = share(rng.random(60) < 0.33, codes[:60])
                rate = share(flags, codes)
                facts = {"model": "m", "checkpoint": checkpoint, "step": step, "parameters": None}
                rows.append({**facts, "category": category, "kind": kind, **rate, "part": part})
    return rows


def fit_rows():
    cell = {"n": 90, "positives": 30, "units": 20, "value": 0.8, "low": 0.7, "high": 0.9, "reason": None}
    gone = {**cell, "value": None, "low": None, "high": None, "reason": "3 positives among the test rows, 10 needed"}
    bare = {**cell, "low": None, "high": None, "reason": "9 documents, 10 needed"}
    auc = {"aggregate": cell, "recitation": bare, "reconstruction": gone, "recollection": cell}
    weights = [
        {"model": name, "factor": factor, "coefficient": value}
        for name in ("baseline", "recitation", "recollection")
        for factor, value in (("sequence_duplicates", 1.5), ("nl_score", -0.25), ("is_templating", None))
    ]
    rows = [
        {"model": "m", "checkpoint": f"checkpoint-{step}", "step": step, "parameters": None, "rows": {}, "auc": auc}
        | {"coefficients": weights}
        for step in (200, 300)
    ]
    few = {"model": "m", "checkpoint": "checkpoint-100", "step": 100, "parameters": None, "reason": "2 positives, 10 needed"}
    return [few, *rows]


def perplexity_rows():
    """Medians and divergences of two bins, one without intervals."""
    medians, divergence = [], []
    for name in ("prompt_perplexity", "continuation_perplexity"):
        for bounds, few in (({"from": 1, "to": 1}, False), ({"from": 3, "to": 5}, True)):
            interval = {"low": None, "high": None, "reason": "8 documents, 10 needed"} if few else {"low": 1.2, "high": 3.4}
            facts = {"perplexity": name, **bounds, "unit": "document", "units": 8 if few else 30, "reason": None}
            for group, median in (("memorized", 1.5), ("rest", 3.0)):
                medians.append({**facts, "group": group, "sequences": 50, "median": median, **interval})
            divergence.append({**facts, "memorized": 50, "rest": 40, "kl": 2.0, **interval})
    return {"medians": medians, "divergence": divergence}
