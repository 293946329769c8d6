"""Started by torchrun in a test: run the test filter over rows, sharing the shards."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.letters import FirstToken, rows
from memtax.engine import World, run

output, log = sys.argv[1:]
assert World.current().size == 2
table = run(rows(100), FirstToken(log=log), output, rows_per_batch=2)
assert table.num_rows == 100
