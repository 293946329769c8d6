"""Every catalogued filter gives the same columns whatever the order, the cuts, the padding, the threads, and after a kill."""

import contextlib
import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_catalogue import built as built
from test_catalogue import rows as rows

from memtax import schema
from memtax.engine import World, run
from memtax.errors import MemtaxError
from memtax.filters import CATALOGUE

ROWS = 40


@pytest.fixture(scope="module")
def ragged(rows):
    """The rows as columns; some short, some empty, one without a text, one row twice."""
    columns = rows[:]
    columns["tokens"] = [tokens[: (64, 64, 40, 3, 0)[row % 5]] for row, tokens in enumerate(columns["tokens"])]
    columns["text"] = [None if row == 11 else "" if row == 12 else text for row, text in enumerate(columns["text"])]
    for name in ("tokens", "text", "prompt_text"):
        columns[name][30] = columns[name][0]
    return columns


@pytest.fixture(scope="module")
def wholes(built, ragged):
    return {name: each(ragged) for name, each in built.items()}


def same(each, found, wanted):
    """Equal; floating-point columns to 1e-5, with null where null is wanted."""
    for name in each.columns:
        assert len(found[name]) == len(wanted[name]), name
        for one, other in zip(found[name], wanted[name], strict=True):
            assert (one is None) == (other is None), name
            if one is not None and "float" in schema.COLUMNS[name].dtype:
                np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5, err_msg=name)
            elif one is not None:
                assert one == other, name


# A deadline would say more of the machine than of the filter.
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(order=st.permutations(range(ROWS)), cuts=st.sets(st.integers(1, ROWS - 1), max_size=4))
@pytest.mark.parametrize("name", list(CATALOGUE))
def test_order_of_rows_and_cuts_do_not_matter(name, built, ragged, wholes, order, cuts):
    each = built[name]
    found = {column: [None] * ROWS for column in each.columns}
    edges = [0, *sorted(cuts), ROWS]
    for start, stop in itertools.pairwise(edges):
        chosen = order[start:stop]
        part = each({column: [values[row] for row in chosen] for column, values in ragged.items()})
        for column in each.columns:
            for place, row in enumerate(chosen):
                found[column][row] = part[column][place]
    same(each, found, wholes[name])


def test_the_batch_size_of_the_model_does_not_matter(built, ragged, wholes):
    batched = [name for name, each in built.items() if "batch_size" in {field.name for field in dataclasses.fields(each)}]
    assert "scores" in batched
    for name in batched:
        for size in (1, 3, ROWS):
            same(built[name], dataclasses.replace(built[name], batch_size=size)(ragged), wholes[name])


def test_the_side_of_the_padding_does_not_matter(built, ragged):
    """What `scores` and the attacks read, from the one forward pass."""
    from memtax.lm.loading import load_model
    from memtax.lm.scores import score

    model = load_model(built["scores"].model)
    right, left = (score(model, ragged["tokens"], moments=True, ranks=True, padding_side=side) for side in ("right", "left"))
    np.testing.assert_array_equal(left.offsets, right.offsets)
    for name in ("logprobs", "means", "variances"):
        np.testing.assert_allclose(getattr(left, name), getattr(right, name), rtol=1e-5, atol=1e-5)
    # Ranks may move by one where two tokens are within rounding of each other; matches may not, here.
    assert np.abs(left.ranks.astype(int) - right.ranks.astype(int)).max() <= 1
    np.testing.assert_array_equal(left.match, right.match)


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_threads_processes_and_a_kill_leave_the_same_bytes(name, built, rows, tmp_path, monkeypatch):
    each = built[name]

    def parts(folder):
        found = {path.name: path.read_bytes() for path in sorted(folder.rglob("part-*.parquet"))}
        assert len(found) == 3  # 40 rows in shards of 2 x 8
        return found

    run(rows, each, tmp_path / "one", 8, 2)
    wanted = parts(tmp_path / "one")
    # Killed after the first and before the second shard: the part is gone, half of it lies there under a hidden name.
    gone = sorted((tmp_path / "one").rglob("part-*.parquet"))[1]
    gone.rename(gone.with_name(f".{gone.name}.abcd1234.tmp"))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        run(rows, each, tmp_path / "one", 8, 2)
    finally:
        torch.set_num_threads(threads)
    assert parts(tmp_path / "one") == wanted
    # Three processes, here one after the other: the first ones do not find the parts of those to come, the last one does.
    monkeypatch.setattr(World, "wait", lambda self: None)
    for rank in (0, 2, 1):
        monkeypatch.setattr(World, "current", classmethod(lambda cls, rank=rank: cls(rank, 3)))
        with contextlib.nullcontext() if rank == 1 else pytest.raises(MemtaxError, match=r"part-\S+ cannot be read"):
            run(rows, each, tmp_path / "three", 8, 2)
    assert parts(tmp_path / "three") == wanted
