"""The verbs, one file each: settings, and what is made from them. `base` derives everything else."""

import importlib

VERBS = ("count", "score", "filter", "paraphrase", "align", "counterfactual")
"""Names of the verbs, which are those of their files and of their Python functions."""


def job_class(verb: str) -> "type":
    """The class of a verb's settings, such as `Align` for `align`."""
    module = importlib.import_module(f"memtax.jobs.{verb.rstrip('_')}")
    kind: type = getattr(module, verb.rstrip("_").capitalize())
    return kind


__all__ = ["VERBS", "job_class"]
