"""Corpora: readers, and the one pass that counts them."""
