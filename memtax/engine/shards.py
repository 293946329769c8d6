"""How a table is cut: batches are fixed row blocks inside shards of fixed size, whatever the number of processes."""

from dataclasses import dataclass

from memtax.errors import MemtaxError


@dataclass(frozen=True)
class Plan:
    """The cut of a table into shards and batches. Only the row count and the two sizes decide it.

    Attributes:
        rows: rows of the table.
        rows_per_batch: rows that a function gets at once.
        rows_per_shard: rows of a finished part; a multiple of the batch's.

    Raises:
        MemtaxError: a size does not fit.
    """

    rows: int
    rows_per_batch: int
    rows_per_shard: int

    def __post_init__(self) -> None:
        if self.rows_per_batch < 1 or self.rows_per_shard < self.rows_per_batch:
            raise MemtaxError(
                f"rows per batch ({self.rows_per_batch}) must be at least 1 and at most rows per shard ({self.rows_per_shard})"
            )
        if self.rows_per_shard % self.rows_per_batch:
            raise MemtaxError(
                f"rows per shard ({self.rows_per_shard}) must be a multiple of rows per batch ({self.rows_per_batch})"
            )

    @property
    def shards(self) -> int:
        """Number of shards; an empty table has none."""
        return -(-self.rows // self.rows_per_shard)

    def bounds(self, shard: int) -> tuple[int, int]:
        """First row and one past the last row of a shard."""
        return shard * self.rows_per_shard, min((shard + 1) * self.rows_per_shard, self.rows)

    def part(self, shard: int) -> str:
        """Name of the shard's Parquet file."""
        return f"part-{shard:05d}-of-{self.shards:05d}.parquet"


def plan(rows: int, rows_per_batch: int, batches_per_shard: int = 16) -> Plan:
    """The default cut: `batches_per_shard` batches per shard, so that a killed run loses at most that much work."""
    return Plan(rows, rows_per_batch, rows_per_batch * batches_per_shard)
