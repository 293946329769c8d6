"""Textual matches against a plain loop with a textbook Levenshtein distance."""

from pathlib import Path

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.processes import torchrun
from memtax.engine import run
from memtax.errors import MemtaxError
from memtax.filters.semantic_matches import SemanticMatchFilter
from memtax.filters.textual_matches import TextualMatchFilter, similar


def distance(a, b):
    """Textbook dynamic programming."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row, last = [i, *row[1:]], row
        for j, y in enumerate(b, 1):
            row[j] = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (x != y))
    return row[-1]


@given(st.lists(st.tuples(st.text("abé\n", max_size=25), st.text("abé\n", max_size=25)), max_size=8), st.integers(2, 22))
def test_similar_is_a_distance_between_zero_and_the_limit(pairs, below):
    left, right = [a for a, _ in pairs], [b for _, b in pairs]
    assert similar(left, right, below).tolist() == [0 < distance(a, b) < below for a, b in pairs]


def test_the_limits_themselves_do_not_count():
    # Distances 0, 1, 19 and 20.
    left = ["x" * 40] * 4
    right = ["x" * 40, "x" * 39, "x" * 21, "x" * 20]
    assert similar(left, right).tolist() == [False, True, True, False]


def test_the_reference_s_rule_leaves_out_what_is_not_ascii():
    assert similar(["café", "cafe"], ["cafés", "cafes"]).tolist() == [True, True]
    assert similar(["café", "cafe"], ["cafés", "cafes"], ascii_only=True).tolist() == [False, True]


@pytest.fixture(scope="module")
def rows():
    generator = np.random.default_rng(3)
    base = generator.normal(size=(6, 16))
    vectors = base[np.arange(60) % 6] + generator.normal(size=(60, 16)) * generator.choice([0.1, 0.35], (60, 1))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    prompts = ["".join(generator.choice(list("ab é"), generator.integers(5, 30))) for _ in range(60)]
    prompts[6], prompts[12], prompts[7] = prompts[0], prompts[0] + "!", None
    return {"sequence_id": list(range(100, 160)), "embedding": vectors.tolist(), "prompt_text": prompts}


@pytest.fixture(scope="module")
def sample(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample") / "sample"
    datasets.Dataset.from_dict(rows).save_to_disk(folder)
    return str(folder)


def test_counts_are_those_of_a_plain_loop(rows, sample):
    vectors = np.array(rows["embedding"], np.float32).astype(np.float64)
    prompts = rows["prompt_text"]
    for threshold, column in ((0.8, "textual_matches_0_8"), (0.9, "textual_matches_0_9")):
        expected = [
            None
            if a is None
            else sum(
                i != j and b is not None and vectors[i] @ vectors[j] >= threshold and 0 < distance(a, b) < 20
                for j, b in enumerate(prompts)
            )
            for i, a in enumerate(prompts)
        ]
        assert TextualMatchFilter(sample, embedded=True)(rows)[column] == expected
        assert sum(value or 0 for value in expected) > 20
    mapped = datasets.Dataset.from_dict(rows).map(TextualMatchFilter(sample, embedded=True), batched=True, batch_size=7)
    assert list(mapped["textual_matches_0_9"]) == expected


def test_parameters_enter_the_fingerprint_and_are_checked(sample):
    one = TextualMatchFilter(sample, embedded=True)
    assert len({each.fingerprint for each in (one, TextualMatchFilter(sample, embedded=True, below=10),
                                              TextualMatchFilter(sample, embedded=True, ascii_only=True))}) == 3  # fmt: skip
    with pytest.raises(MemtaxError, match="below is 1"):
        TextualMatchFilter(sample, below=1)


def test_a_sample_without_prompts_is_named(rows, tmp_path):
    datasets.Dataset.from_dict({name: rows[name] for name in ("sequence_id", "embedding")}).save_to_disk(tmp_path / "s")
    with pytest.raises(MemtaxError, match="prompt_text"):
        TextualMatchFilter(str(tmp_path / "s"), embedded=True)(rows)


def test_two_processes_write_the_same_parts_as_one(rows, sample, tmp_path):
    dataset = datasets.load_from_disk(sample)
    for kind in (SemanticMatchFilter, TextualMatchFilter):
        run(dataset, kind(sample, embedded=True), tmp_path / "one" / kind.name, rows_per_batch=1)
    script = Path(__file__).parent / "two_matching_processes.py"
    done = torchrun(script, sample, tmp_path / "two")
    assert done.returncode == 0, done.stderr[-2000:]
    parts = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("part-*.parquet"))
    assert len(parts) == 2 * 4  # 60 rows in shards of 16
    for part in parts:
        assert (tmp_path / "two" / part).read_bytes() == (tmp_path / "one" / part).read_bytes()


def test_many_pairs_in_threads_equal_a_loop():
    generator = np.random.default_rng(0)
    words = ["", "a", "prompt", "naïve", "x" * 30, "x" * 49, "x" * 50, "prompts of a table, row 17"]
    left, right = ([words[at] for at in generator.integers(0, len(words), 40_000)] for _ in range(2))
    near = {(a, b): 0 < distance(a, b) < 20 for a in words for b in words}
    assert similar(left, right).tolist() == [near[pair] for pair in zip(left, right, strict=True)]
    # A missing prompt far from the first piece.
    right[39_990] = None
    assert similar(left, right).tolist() == [
        b is not None and 0 < distance(a, b) < 20 for a, b in zip(left, right, strict=True)
    ]
