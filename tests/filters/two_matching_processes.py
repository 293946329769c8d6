"""Started by torchrun in a test: semantic and textual matches over rows, sharing the shards."""

import sys

import datasets

from memtax.engine import World, run
from memtax.filters.semantic_matches import SemanticMatchFilter
from memtax.filters.textual_matches import TextualMatchFilter

sample, output = sys.argv[1:]
assert World.current().size == 2
for kind in (SemanticMatchFilter, TextualMatchFilter):
    run(datasets.load_from_disk(sample), kind(sample, embedded=True), f"{output}/{kind.name}", rows_per_batch=1)
