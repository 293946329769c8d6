"""How a table is split: batches are fixed row blocks inside shards of fixed size, for any number of processes."""

from dataclasses import dataclass

from memtax.errors import MemtaxError


@dataclass(frozen=True)
class Plan:
    """The split of a table into shards and batches, determined only by the row count and the two sizes.

    Attributes:
        rows: number of rows in the table.
        rows_per_batch: rows per function call.
        rows_per_shard: rows per finished part; a multiple of the batch size.

    Raises:
        MemtaxError: a size is invalid.
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
    """The default split: `batches_per_shard` batches per shard, so that a killed run loses at most that much work."""
    return Plan(rows, rows_per_batch, rows_per_batch * batches_per_shard)
