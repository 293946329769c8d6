"""A cache of answers gives right ones or none, whatever happened to its file."""

import random

import pytest

from memtax.counting.answer_cache import AnswerCache

ANSWERS = {f"query {number}": (number * number, number % 3 == 0) for number in range(30)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("cache") / "folder" / "answers.sqlite"
    cache = AnswerCache(path)
    for query, answer in ANSWERS.items():
        cache.put({"query": query}, answer)
    assert all(cache.get({"query": query}) == answer for query, answer in ANSWERS.items())
    assert cache.get({"query": "another"}) is None
    cache.close()
    return path.read_bytes()


def use(path):
    """How many answers are still there; all of them are after they were asked for again."""
    cache = AnswerCache(path)
    kept = 0
    for query, answer in ANSWERS.items():
        found = cache.get({"query": query})
        assert found in (None, answer)
        kept += found is not None
        if found is None:
            cache.put({"query": query}, answer)
    cache.close()
    again = AnswerCache(path)
    assert all(again.get({"query": query}) in (None, answer) for query, answer in ANSWERS.items())
    again.close()
    return kept


def test_a_changed_bit_never_gives_another_answer(whole, tmp_path, capsys):
    rng, path, kept = random.Random(2), tmp_path / "answers.sqlite", []
    for _ in range(50):
        changed = bytearray(whole)
        changed[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        kept.append(use(path))
    assert max(kept) == 30
    assert min(kept) < 30
    assert "is damaged; its counts are asked for again" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"no database", b"\0" * 5000, None])
def test_another_file_is_begun_anew(whole, tmp_path, content):
    path = tmp_path / "answers.sqlite"
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    use(path)
    assert use(path) == 30


def test_without_a_usable_file_nothing_is_kept(tmp_path, capsys):
    (tmp_path / "answers.sqlite").mkdir()
    assert use(tmp_path / "answers.sqlite") == 0
    assert "cannot be used" in capsys.readouterr().err
