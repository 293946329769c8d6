"""Running a batch function over a table: shards, processes, resuming."""

from memtax.engine.once import once
from memtax.engine.shards import Plan, plan
from memtax.engine.stage import run
from memtax.engine.world import World

__all__ = ["Plan", "World", "once", "plan", "run"]
