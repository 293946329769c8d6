"""Scoring sequences with a causal language model: the forward pass and everything computed from it."""
