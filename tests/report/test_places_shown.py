"""Places of a continuation reach the sequences that the page shows, in the order of the corpus."""

import pyarrow as pa

from memtax.report import examples
from memtax.report.data import Run


def test_examples_have_the_places_of_their_sequence_in_order():
    table = pa.table(
        {
            "sequence_id": [7, 7, 8],
            "place": [1, 0, 0],
            "place_source": ["b", "a", "c"],
            "place_sequence": [2, 1, None],
            "place_offset": [5, 4, 6],
            "place_document": [None, "x.py", None],
        }
    )
    run = Run({}, {}, None, None, None, None, places=table)
    chosen = [{"id": 7}, {"id": 9}]
    examples._add_places(run, chosen)
    first, second = (
        {"source": s, "sequence": n, "offset": at, "document": d} for s, n, at, d in (("a", 1, 4, "x.py"), ("b", 2, 5, None))
    )
    assert chosen == [{"id": 7, "places": [first, second]}, {"id": 9, "places": []}]
