"""Corpora: readers, and the one pass that counts them.

`sources` opens a dataset, `blocks` streams it as flat tokens, `sequences` cuts windows to measure, `counting` counts,
`tables` reads counts back.
"""
