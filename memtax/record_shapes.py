"""The shapes of memtax's own JSON records, as far as anything reads them; see `memtax.shapes`.

Keys that earlier versions did not write may be missing.
"""

from typing import Any

from memtax.shapes import COUNT, NAME, REAL, SHARE, TEXT, Columns, Number, Rows, Text

_REASON = (TEXT, None)
_FLAG = (bool, None)
_LENGTH = Number(1, 2**31 - 1, whole=True)
_POSITIVE = Number(1, 2**63 - 1, whole=True)
_CORRELATION = Number(-1, 1)
_INTERVAL = {"low?": (REAL, None), "high?": (REAL, None), "interval_reason?": _REASON}
_ESTIMATE = {"value": SHARE, "low": (SHARE, None), "high": (SHARE, None)}
_FIGURE = {"value": (SHARE, None), "low": (SHARE, None), "high": (SHARE, None), "reason?": _REASON}
_LOSS = {"value": REAL, "low": (REAL, None), "high": (REAL, None)}
_UNITS = {"units?": (COUNT, None), "unit?": (NAME, None)}

_RATES = {
    "sequences": COUNT,
    "memorized": COUNT,
    "rate?": (SHARE, None),
    "low?": (SHARE, None),
    "high?": (SHARE, None),
    "low_independent?": (SHARE, None),
    "high_independent?": (SHARE, None),
    "reason?": _REASON,
    **_UNITS,
}
"""A group of sequences: number memorized, with the interval of their share."""
_BEYOND = {**_RATES, "model_memorized": COUNT, "reference_memorized": COUNT, "predictable": COUNT}
_GROWTH = {
    **_RATES,
    "model?": (NAME, None),
    "checkpoint": NAME,
    "category": NAME,
    "step?": (COUNT, None),
    "parameters?": (COUNT, None),
}
_IN_TIME = {**_RATES, "model?": (NAME, None), "checkpoint": NAME, "step?": (COUNT, None), "parameters?": (COUNT, None)}
_SEEN = {**_IN_TIME, "group": Text(10, ("all", "once", "few", "many")), "from": (COUNT, None), "to": (COUNT, None)}
_CHANGED = {**_IN_TIME, "before": NAME, "gained": COUNT}
_CORRELATIONS = {
    "factor": NAME,
    "group": NAME,
    "n?": (COUNT, None),
    "spearman?": (_CORRELATION, None),
    "pearson?": (_CORRELATION, None),
    "xi?": (REAL, None),
    "reason?": _REASON,
    **_INTERVAL,
    **_UNITS,
}

_MEMBER = {"model?": (NAME, None), "checkpoint": (NAME, None), "step?": (COUNT, None), "parameters?": (COUNT, None)}
"""A row of a series: its checkpoint or model."""
_GROUP = Text(200, ("all", "recitation", "reconstruction", "recollection"))
_OVER_UNITS = {"unit": NAME, "units": COUNT}
_BOUNDS = {"low": (REAL, None), "high": (REAL, None)}
_PART = {"sequences": COUNT, "memorized": COUNT, **dict.fromkeys(("rate", "low", "high"), (SHARE, None)), **_OVER_UNITS}
_KIND = {
    **_PART,
    **_MEMBER,
    "category": _GROUP,
    "kind": Text(200, ("natural language", "code", "uncertain")),
    "part": _PART,
}
_KINDS = {f"{name}?": Rows(_KIND) for name in ("model", "checkpoints", "models")}
"""Natural language and code by category, of the model and of each series."""
_AREA = {
    "n": COUNT,
    "positives": COUNT,
    "units": (COUNT, None),
    "value": (SHARE, None),
    "low": (SHARE, None),
    "high": (SHARE, None),
    "reason": _REASON,
}
_WEIGHT = {
    "model": Text(200, ("baseline", "recitation", "reconstruction", "recollection")),
    "factor": NAME,
    "coefficient": (REAL, None),
}
_SERIES_FIT = {
    **_MEMBER,
    "rows": {"*": COUNT},
    "coefficients": Rows(_WEIGHT, 2_000, 1),
    "auc": {"aggregate": _AREA, "*": _AREA},
}
_FITS = {f"{name}?": Rows(({**_MEMBER, "reason": TEXT}, _SERIES_FIT), 10_000) for name in ("checkpoints", "models")}
"""One predictor per member of a series, or why there is none."""
_BIN = {
    "perplexity": Text(200, ("prompt_perplexity", "continuation_perplexity", "sequence_perplexity")),
    "from": COUNT,
    "to": (COUNT, None),
    **_OVER_UNITS,
    **_BOUNDS,
    "reason": _REASON,
}
_MEDIAN = {**_BIN, "group": Text(200, ("memorized", "rest")), "sequences": COUNT, "median": (Number(0, 1e100), None)}
_DIVERGENCE = {**_BIN, "memorized": COUNT, "rest": COUNT, "kl": (REAL, None)}
_PERPLEXITIES = {"medians": Rows(_MEDIAN, 1_000), "divergence": Rows(_DIVERGENCE, 1_000)}
"""Perplexity by number of duplicates."""
_COEFFICIENT = {"coefficient": (REAL, None), "p?": (SHARE, None), **_INTERVAL}
_TESTED = {
    "n": COUNT,
    "positives": COUNT,
    "reason": _REASON,
    "interval_reason?": _REASON,
    "coefficients": Rows({"factor": NAME, **_COEFFICIENT}, 2_000),
    "intercept?": (_COEFFICIENT, None),
}
_WALD = {"test": NAME, "factor": (NAME, None), "statistic": (REAL, None), "p": (SHARE, None), "reason": _REASON}
_INFERENCE = {
    "rows": COUNT,
    "dropped": {"*": COUNT},
    **_OVER_UNITS,
    "models": {"*": _TESTED},
    "tests": Rows(_WALD, 2_000),
}
"""Coefficients with robust intervals, and tests of whether categories differ."""
_CROSS_TABLE = {"*": {"*": COUNT}}
_GUESS_RECALL = {"threshold": COUNT, "overlap": SHARE, "by_overlap": _CROSS_TABLE, "by_duplicates": _CROSS_TABLE}
"""Category to label to number of sequences, by both readings of guess and recall."""

_METRICS = ("pr_auc", "ece", "brier", "f1", "precision", "recall")
_CELL = {
    "n?": (COUNT, None),
    "positives?": (COUNT, None),
    "reason?": _REASON,
    "interval_reason?": _REASON,
    "roc_auc?": (_ESTIMATE, None),
    "log_loss?": (_LOSS, REAL, None),
    **{f"{name}?": (_ESTIMATE, SHARE, None) for name in _METRICS},
}
_CURVES = {
    "model": NAME,
    "category": NAME,
    "roc?": (Columns({"fpr": SHARE, "tpr": SHARE}), None),
    "pr?": (Columns({"recall": SHARE, "precision": SHARE}), None),
    "reliability?": (Columns({"predicted": SHARE, "observed": SHARE, "count": _POSITIVE}), None),
}
_SPLIT = {
    "unit": NAME,
    "units": {"*": COUNT},
    "copies": COUNT,
    "boilerplate": COUNT,
    "largest_group": COUNT,
}
_FIT = {
    "rows": {"train": COUNT, "validation": COUNT, "test": COUNT, "*": COUNT},
    "split?": (_SPLIT, None),
    "dropped": {"*": COUNT},
    "memorized_only?": ({"rows": COUNT, "in_the_sample": COUNT}, None),
    "calibration?": (NAME, None),
    "seed": COUNT,
    "models": {"*": {"*": _CELL}},
    "differences": Rows({"metric": NAME, "category": NAME, "value?": (REAL, None), **_INTERVAL}, 2_000),
    "curves": Rows(_CURVES, 1_000),
    "coefficients": Rows({"model": NAME, "factor": NAME, "coefficient?": (REAL, None)}, 2_000),
}
_SHOWN_FIT: dict[str, Any] = {f"{key.removesuffix('?')}?": (shape, None) for key, shape in _FIT.items() if key != "models"}
_SHOWN_FIT |= {"models?": ({"baseline": {"aggregate": _CELL, "*": _CELL}, "*": {"*": _CELL}}, None), "reason?": _REASON}
"""The part of a fit that the report shows."""
PREDICTOR: Any = {
    "weights_sha256": TEXT,
    "target": NAME,
    "category": NAME,
    "factors": Rows(NAME, 1_000),
    "models": {"*": {"constant": Rows(NAME, 1_000)}},
    "silent": {"*": TEXT},
    "metrics": _FIT,
}
"""`predictor.json`."""

_ATTACK = {
    "auroc": (_ESTIMATE, None),
    "tpr_at_fpr_0.01?": (_FIGURE, None),
    "tpr_at_fpr_0.05?": (_FIGURE, None),
    "fpr_at_tpr_0.95?": (_FIGURE, None),
    "verdict": {"reason": TEXT},
}
_MEMBERSHIP = {
    "members": COUNT,
    "nonmembers": COUNT,
    "copies": COUNT,
    "shared": COUNT,
    "attacks": {"*": _ATTACK | {"verdict": {"shows_membership": _FLAG, "reason": TEXT}}},
    "blind": _ATTACK | {"feature?": ({"name": TEXT, "classifier?": (_ESTIMATE, None)}, None)},
    "units": {"name": NAME, "members": COUNT, "nonmembers": COUNT},
    "set_test?": ({"p_value": SHARE, "blind_p_value": (SHARE, None)}, None),
}

_SLIDING = {
    "stride": _LENGTH,
    "prompt": _LENGTH,
    "continuation": _LENGTH,
    "too_short?": COUNT,
    "texts": Rows({"text_id": (COUNT, NAME), "windows": COUNT, "heat": Rows((Number(-1e6, 0), None), least=1)}, 1_000_000, 1),
    "thresholds": Rows({"threshold": SHARE, "share": _ESTIMATE, "coverage": _ESTIMATE}, 100, 1),
}
_PARAPHRASES = {
    "asked": COUNT,
    "texts": COUNT,
    "valid": COUNT,
    "model": TEXT,
    "mode": NAME,
    "prompts": (NAME, Rows(NAME)),
    "failed": {"*": COUNT},
}
_ALIGNMENT = {
    "parameters": TEXT,
    "aligned": COUNT,
    "texts": COUNT,
    "mean": (_CORRELATION, None),
    "levels": {"high": COUNT, "medium": COUNT, "low": COUNT},
    "membership": ({"units?": {"name": NAME, "*": COUNT}, "*": (_FIGURE, REAL, bool, TEXT, None)}, None),
}
_AGREEMENT = {
    "score": NAME,
    "texts": COUNT,
    **_OVER_UNITS,
    "spearman": (_CORRELATION, None),
    "low": (_CORRELATION, None),
    "high": (_CORRELATION, None),
    "reason": _REASON,
}
"""How the alignment of a run's texts goes with their memorization."""
_NOTHING = {"*": Number(1, 0)}
"""No keys: no number is at least 1 and at most 0."""
_QUOTE = {"train_id": COUNT, "test_id": COUNT, "train_text": _REASON, "test_text": _REASON}
_INFLUENCE = {
    "train": COUNT,
    "test": COUNT,
    "parameters": TEXT,
    "methods": {"*": ({"accuracy?": (_FIGURE, SHARE, None), "coverage?": (_FIGURE, SHARE, None)}, None)},
    "top?": (Rows({**_QUOTE, "method": NAME, "influence": (REAL, None)}, 1_000), None),
}
ATTACHED: Any = {"paraphrases": _PARAPHRASES, "alignment": _ALIGNMENT, "influence": _INFLUENCE}
"""`summary.json` of the verbs that a run can take along, by the key of the run."""

_ABOUT = {
    "title?": _REASON,
    "model?": _REASON,
    "corpus?": _REASON,
    "counted_in?": _REASON,
    "tokens?": (COUNT, None),
    "prompt?": (_LENGTH, None),
    "continuation?": (_LENGTH, None),
}
METRICS: Any = {
    "run?": (_ABOUT, None),
    "extraction?": ({"*": (_RATES, None)}, None),
    "reference?": ({"*": (_BEYOND, None)}, None),
    "guess_recall?": (_GUESS_RECALL, None),
    "growth?": (Rows(_GROWTH), None),
    "growth_by_size?": (Rows(_GROWTH), None),
    "since_seen?": (Rows(_SEEN, 10_000), None),
    "gained_and_lost?": (Rows(_CHANGED), None),
    "correlations?": (Rows(_CORRELATIONS, 4_000), None),
    "predictor?": (_SHOWN_FIT, None),
    "nulls?": ({"*": COUNT}, None),
    "skipped?": ({"*": COUNT}, None),
    "membership?": (_MEMBERSHIP, None),
    "sliding?": (_SLIDING, None),
    "kinds?": (_KINDS, None),
    "fits?": (_FITS, None),
    "perplexities?": (_PERPLEXITIES, None),
    "inference?": (_INFERENCE, None),
    **{f"{name}?": (shape, None) for name, shape in ATTACHED.items()},
    "alignment?": ({**_ALIGNMENT, "memorization?": (_AGREEMENT, _NOTHING, None)}, None),
}
"""Figures of a run, as far as the report and the cards show it."""

MEASURED: Any = {"run?": (_ABOUT, None), "extraction?": ({"*": ({"rate?": (SHARE, None)}, None)}, None)}
"""`metrics.json`, as far as a model's card shows it."""

EVALUATION: Any = {
    "*": {
        "rows?": COUNT,
        "roc_auc": ({"value": SHARE}, SHARE),
        "pr_auc_code": SHARE,
        "pr_auc_natural_language": SHARE,
        "best_f1": SHARE,
    }
}
"""`evaluation.json` of a classifier of code."""
TOTALS: Any = {
    "tokens": (COUNT, None),
    "sequences": (COUNT, None),
    "windows?": Rows(COUNT),
    "sequences_too_short?": Rows(COUNT),
    "occurrences?": Rows(COUNT),
    "source?": NAME,
    "asked_by?": Text(10, ("tokens", "text")),
    "approximate?": COUNT,
    "not_counted?": COUNT,
}
"""`totals.json` of `memtax count`."""
_TOKEN = (TEXT, dict, None)
TOKENIZER: Any = {
    "model_max_length?": (Number(1, 1e300), None),
    "tokenizer_class?": (NAME, None),
    "padding_side?": (Text(200, ("left", "right")), None),
    **{f"{name}_token?": _TOKEN for name in ("bos", "eos", "unk", "pad", "sep", "cls", "mask")},
}
"""`tokenizer_config.json`, as far as it decides whether a text can be tokenized."""
SAVED: Any = {
    "_data_files": Rows({"filename": Text(255)}, 1_000_000),
    "_fingerprint": (NAME, None),
    "_format_columns": (Rows(NAME), None),
    "_format_kwargs": dict,
    "_format_type": (NAME, None),
    "_output_all_columns": bool,
    "_split": (NAME, None),
}
"""`state.json` of a dataset that `save_to_disk` wrote."""
SPLITS: Any = {"splits": Rows(NAME, 10_000)}
"""`dataset_dict.json` likewise."""
SKIPPED: Any = {"*": COUNT}
"""`skipped.json`: reason to number of sequences."""
ADAPTER: Any = {
    "base_model_name_or_path?": (Text(4_096), None),
    "target_modules?": (Text(4_096), Rows(Text(4_096)), None),
    "peft_type?": (NAME, None),
    "r?": (COUNT, None),
    "lora_alpha?": (REAL, None),
    "lora_dropout?": (SHARE, None),
}
"""`adapter_config.json`, as far as memtax reads it."""
BASE: Any = {"base_model_name_or_path": Text(4_096), "revision?": (NAME, None)}
"""The part of `adapter_config.json` that names the base model."""
_SIZE = (Number(-1, 2**63 - 1, whole=True), Rows(COUNT, 10_000), None)
MODEL: Any = {
    "model_type?": (NAME, None),
    "architectures?": (Rows(NAME, 100), None),
    "hidden_size?": _SIZE,
    "num_hidden_layers?": _SIZE,
    "vocab_size?": _SIZE,
    "max_position_embeddings?": _SIZE,
}
"""`config.json` of a model, as far as cards show it."""

_DIGESTS = Rows({"path": TEXT, "sha256": Text(64)}, 10_000_000)
AUDIT: dict[str, Any] = {
    "schema": Text(words=("memtax-audit/1",)),
    "inputs": {"*": {"name": TEXT, "files": _DIGESTS}},
    "figures": _DIGESTS,
}
"""`audit.json`, as far as `memtax verify` reads it."""
