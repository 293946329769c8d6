"""Counting tokens and windows of a corpus: kernels, index, near-duplicates, resume, Spark."""
