"""The page of influence: one table is open, and the figure has a mark for every pair shown."""

from memtax.report.verb_pages import LABELED, _example, influences


def rows(test):
    shown = {"test_id": test, "test_text": None, "train_text": "x"}
    pairs = [(method, rank) for method in ("exact", "repsim") for rank in (1, 2, 3)]
    return [{**shown, "method": method, "rank": rank, "train_id": rank, "influence": -1 / rank} for method, rank in pairs]


def test_tables_after_the_first_are_folded():
    assert [part.folded for part in _example(rows(0), True).parts] == [False, True]
    assert [part.folded for part in _example(rows(0), False).parts] == [True, True]


def test_every_pair_of_the_first_method_has_a_mark():
    axes = influences([rows(number) for number in range(LABELED + 1)])
    marks = [line for line in axes.lines if line.get_marker() == "o"]
    assert [len(line.get_ydata()) for line in marks] == [3] * (LABELED + 1)
    assert len(influences([rows(7)]).get_xticklabels()) == 1
