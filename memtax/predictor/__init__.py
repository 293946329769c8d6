"""The predictor of memorization: fit, evaluation, inference, search, probes, storage."""
