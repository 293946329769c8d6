"""When a sequence was seen: Pythia's rule, and tables of the order."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from memtax.errors import MemtaxError
from memtax.filters import TrainingOrderFilter


def test_a_checkpoint_has_seen_the_sequences_whose_step_is_not_after_it():
    """The oracle takes the steps one by one, as a training does."""
    size, seen, steps = 7, 0, {}
    for step in range(1, 30):
        steps |= dict.fromkeys(range(seen, seen + size), step)
        seen += size
    ids = list(range(seen))
    found = TrainingOrderFilter(step_sequences=size)({"sequence_id": ids})
    assert found == {"training_position": ids, "last_seen_step": [steps[each] for each in ids]}
    assert TrainingOrderFilter()({"sequence_id": [146_431_999]})["last_seen_step"] == [143_000]


def test_a_table_of_the_order_replaces_the_rule(tmp_path):
    path = tmp_path / "order.parquet"
    rows = {"sequence_id": [9, 4, 6], "last_seen_step": [3, None, 2]}
    pq.write_table(pa.table(rows), path)
    batch = {"sequence_id": [4, 5, 9, 6]}
    assert TrainingOrderFilter(str(path))(batch) == {"training_position": [None] * 4, "last_seen_step": [None, None, 3, 2]}
    pq.write_table(pa.table({**rows, "training_position": [90, 40, None]}), path)
    assert TrainingOrderFilter(str(path))(batch)["training_position"] == [40, None, 90, None]


def test_what_cannot_be_an_order_is_refused(tmp_path):
    path = tmp_path / "order.parquet"
    pq.write_table(pa.table({"sequence_id": [1, 1], "last_seen_step": [3, 4]}), path)
    with pytest.raises(MemtaxError, match="sequence_id 1 more than once"):
        TrainingOrderFilter(str(path))({"sequence_id": [1]})
    pq.write_table(pa.table({"sequence_id": [1]}), path)
    with pytest.raises(MemtaxError, match="last_seen_step"):
        TrainingOrderFilter(str(path))({"sequence_id": [1]})
    with pytest.raises(MemtaxError, match="-3 is no position"):
        TrainingOrderFilter()({"sequence_id": [5, -3]})
    with pytest.raises(MemtaxError, match="step_sequences=0"):
        TrainingOrderFilter(step_sequences=0)
