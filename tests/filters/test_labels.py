import datasets
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtax import engine
from memtax.errors import MemtaxError
from memtax.filters.taxonomy import TaxonomyFilter, taxonomy
from memtax.schema import CATEGORIES

flag = st.sampled_from([True, False, None])
rows = st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 12)), flag, flag), max_size=30)


def oracle(count, incrementing, repeating, threshold):
    """Every way of filling in the missing inputs; a category only if they all agree."""

    def known(count, incrementing, repeating):
        if count > threshold:
            return "recitation"
        if incrementing or repeating:
            return "reconstruction"
        return "recollection"

    counts = [count] if count is not None else [0, 10**9]
    found = {
        known(c, i, r)
        for c in counts
        for i in ([incrementing] if incrementing is not None else [True, False])
        for r in ([repeating] if repeating is not None else [True, False])
    }
    return found.pop() if len(found) == 1 else None


@given(rows, st.integers(0, 10))
def test_follows_the_rules_in_order(rows, threshold):
    duplicates, incrementing, repeating = zip(*rows, strict=True) if rows else ((), (), ())
    found = taxonomy(duplicates, incrementing, repeating, threshold)
    assert [None if code is None else CATEGORIES[code] for code in found] == [oracle(*row, threshold) for row in rows]


def test_by_hand():
    # 5 duplicates are not more than 5; 6 are, whatever the template flags say or lack.
    duplicates = [5, 6, 6, 0, 0, 5, None, 0, 0]
    incrementing = [False, True, None, True, False, None, True, None, None]
    repeating = [False, False, None, False, True, True, True, False, None]
    assert taxonomy(duplicates, incrementing, repeating, 5) == [2, 0, 0, 1, 1, 1, None, None, None]


def test_refusals():
    with pytest.raises(MemtaxError, match="duplicates 1, is_incrementing 2, is_repeating 1"):
        taxonomy([1], [True, False], [True])
    with pytest.raises(MemtaxError, match="sequence_duplicates is -1"):
        taxonomy([-1], [True], [True])
    with pytest.raises(MemtaxError, match="threshold"):
        TaxonomyFilter(threshold=-1)


def test_runs_as_any_filter(tmp_path):
    data = datasets.Dataset.from_dict(
        {
            "sequence_id": [4, 7, 9, 11],
            "sequence_duplicates": [100, 1, 1, None],
            "is_incrementing": [False, True, False, False],
            "is_repeating": [False, False, False, False],
        }
    )
    mapped = TaxonomyFilter().apply(data, batch_size=3)
    assert mapped["taxonomy"][:] == [0, 1, 2, None]
    assert mapped.features["taxonomy"].names == list(CATEGORIES)
    plain = data.map(TaxonomyFilter(), batched=True)
    assert plain["taxonomy"][:] == [0, 1, 2, None]
    table = engine.run(data, TaxonomyFilter(), tmp_path)
    assert table == pa.table({"sequence_id": [4, 7, 9, 11], "taxonomy": pa.array([0, 1, 2, None], pa.int64())})
    assert TaxonomyFilter(4).fingerprint != TaxonomyFilter().fingerprint
