"""Corpora: readers that open datasets, stream them as flat tokens, and cut windows to measure."""
