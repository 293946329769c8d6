"""Published datasets by name, in their published layouts, from a Hub on loopback: fresh processes."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from helpers.hub import HubServer, parquet, split
from helpers.processes import python
from memtax.results import read_summary, read_table

ROWS = 900


def semantic_filters(seed, memorized_only=False):
    """The columns of usvsnsp/semantic-filters."""
    rng = np.random.default_rng(seed)
    duplicates = rng.integers(1, 30, ROWS)
    score = np.where(rng.random(ROWS) < 1 / (1 + np.exp(3 - duplicates / 4)), 1.0, 0.5)
    return parquet(
        sequence_id=np.arange(ROWS) + 10_000 * memorized_only,
        tokens=rng.integers(1, 51, (ROWS, 64)).tolist(),
        text=[f"text {row}" for row in range(ROWS)],
        sequence_duplicates=duplicates,
        **{f"{name}_frequency": rng.integers(10, 10_000, ROWS) for name in ("max", "min")},
        **{f"{name}_frequency": rng.uniform(10, 10_000, ROWS) for name in ("avg", "median", "p25", "p75")},
        frequencies=[[1] * 64] * ROWS,
        is_incrementing=rng.random(ROWS) < 0.1,
        is_repeating=np.zeros(ROWS, bool),
        huffman_coding_length=rng.uniform(3, 6, ROWS),
        nl_scores=rng.random(ROWS),
        **{name: rng.integers(1, 9, ROWS) for name in ("0_8_snowclones", "0_9_snowclones")},
        **{name: rng.integers(0, 9, ROWS) for name in ("0_8_templates", "0_9_templates")},
        **{f"{name}_perplexity": rng.uniform(1.1, 4, ROWS) for name in ("prompt", "generation", "sequence")},
        memorization_score=np.ones(ROWS) if memorized_only else score,
    )


@pytest.fixture(scope="module")
def hub():
    lines = lambda kind: "".join(json.dumps(f"{kind} {n} def f") + "\n" for n in range(3)).encode()  # noqa: E731
    with HubServer() as server:
        server.add(
            "dataset",
            "swj0419/WikiMIA",
            {split(f"WikiMIA_length{n}"): parquet(input=[f"a{n}", "b", "c"], label=[1, 0, 1]) for n in (32, 64)},
        )
        words = " ".join(f"w{n}" for n in range(70))
        server.add("dataset", "zjysteven/WikiMIA_concat", {split("WikiMIA_length32"): parquet(input=[words], label=[[1, 0]])})
        server.add(
            "dataset",
            "zjysteven/WikiMIA_paraphrased_perturbed",
            {split("WikiMIA_length32_paraphrased"): parquet(input=["p", "q"], label=[0, 1])},
        )
        cache = "cache_100_200_1000_512"
        server.add(
            "dataset",
            "iamgroot42/mimir",
            {
                "mimir.py": b"raise SystemExit('a loading script must not run')",
                f"{cache}/train/github_ngram_13_0.8.jsonl": lines("member"),
                f"{cache}/test/github_ngram_13_0.8.jsonl": lines("other"),
            },
        )
        server.add(
            "dataset",
            "locuslab/TOFU",
            {"forget01.json": b'{"question": "Who?", "answer": "I."}\n{"question": "?", "answer": "!"}'},
        )
        server.add(
            "dataset",
            "usvsnsp/semantic-filters",
            {
                split("pile_deduped_70m"): semantic_filters(0),
                split("memories_deduped_70m"): semantic_filters(1, memorized_only=True),
            },
        )
        server.add(
            "dataset",
            "usvsnsp/generation-num-duplicates",
            {split("deduped"): parquet(sequence_id=[0, 1, 2], counts=[7, 1, 2])},
        )
        server.add(
            "dataset",
            "usvsnsp/deduped-num-frequencies",
            {
                split("memorized"): parquet(TokenID=[0, 1, 2], Frequency=[1, 2, 3]),
                split("non_memorized"): parquet(TokenID=[0, 1, 2], Frequency=[10, 20, 30]),
            },
        )
        # Two windows of two tokens occur twice in all, across rows.
        tokens = [[1, 2, 3, 4], [9, 3, 4, 1], [0, 1, 2, 2]]
        server.add("dataset", "org/tokens", {split("train"): parquet(sequence_id=[0, 1, 2], tokens=tokens)})
        yield server


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def child(hub, cache, *arguments):
    done = python(*arguments, env=hub.environment(cache, None))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def memtax(hub, cache, *arguments):
    return child(hub, cache, "-m", "memtax", *map(str, arguments))


def test_membership_benchmarks_by_name(hub, cache, tmp_path):
    program = """
from memtax.corpus.membership_texts import load_membership, load_texts
wiki = load_membership("swj0419/WikiMIA::WikiMIA_length64").to_pydict()
assert wiki["text"] == ["a64", "b", "c"] and wiki["is_member"] == [True, False, True]
concat = load_membership("zjysteven/WikiMIA_concat::WikiMIA_length32").to_pydict()
assert concat["is_member"] == [True, False]  # 70 words are two whole chunks of 32, each with its label
assert [concat["text"][0][a:b].split(" ")[0] for a, b in zip(concat["chunk_start"], concat["chunk_end"])] == ["w0", "w32"]
paraphrased = load_membership("zjysteven/WikiMIA_paraphrased_perturbed::WikiMIA_length32_paraphrased").to_pydict()
assert paraphrased["text"] == ["p", "q"] and paraphrased["is_member"] == [False, True]
mimir = load_membership("iamgroot42/mimir:github:ngram_13_0.8").to_pydict()
assert mimir["text"] == [f"{kind} {n} def f" for kind in ("member", "other") for n in range(3)]
assert mimir["is_member"] == [True] * 3 + [False] * 3 and set(mimir["domain"]) == {"github"}
assert load_membership("iamgroot42/mimir:github").equals(load_membership("iamgroot42/mimir:github:ngram_13_0.8"))
assert load_texts("locuslab/TOFU", column="question,answer").column("text").to_pylist() == ["Who? I.", "? !"]
"""
    child(hub, cache, "-c", program)


def test_counts_over_a_corpus_on_the_hub_streamed_or_not(hub, cache, tmp_path):
    for number, options in enumerate((["--streaming"], [])):
        output = tmp_path / str(number)
        memtax(hub, cache, "count", "org/tokens", "--window", "2:4", *options, "--output", output)
        found = pq.read_table(output / "dataset" / "num_duplicates" / "train.parquet").to_pydict()
        # (3, 4) occurs in rows 0 and 1, (4, 1) once, (2, 2) once.
        assert (found["sequence_id"], found["sequence_duplicates"]) == ([0, 1, 2], [2, 1, 1]), number
        frequencies = pq.read_table(output / "dataset" / "token_frequencies" / "train.parquet").to_pydict()
        # By hand: token 2 three times, 9 once.
        counts = dict(zip(frequencies["token_id"], frequencies["token_frequency"], strict=True))
        assert (counts[2], counts[9], counts.get(5, 0)) == (3, 1, 0)


def test_published_counts_serve_in_place_of_ones_own(hub, cache, tmp_path):
    memtax(
        hub,
        cache,
        *("filter", "duplicates", "token_frequencies", "org/tokens", "--counts", "usvsnsp/generation-num-duplicates::deduped"),
        *("--frequencies", "usvsnsp/deduped-num-frequencies", "--output", tmp_path / "out"),
    )
    found = pq.read_table(tmp_path / "out" / "dataset" / "features" / "train.parquet").to_pydict()
    assert found["sequence_duplicates"] == [7, 1, 2]
    # Row 2 is 0, 1, 2, 2 with counts 11, 22, 33, 33 over both splits; rows 0 and 1 hold tokens without a count.
    assert found["max_frequency"] == [None, None, 33]
    assert found["avg_frequency"] == [None, None, 24.75]


def test_the_published_filters_are_fit_searched_and_scored(hub, cache, tmp_path):
    data = "usvsnsp/semantic-filters::pile_deduped_70m"
    more = ("--memorized-only", "usvsnsp/semantic-filters::memories_deduped_70m", "--resamples", "50")
    memtax(hub, cache, "fit", data, *more, "--output", tmp_path / "predictor")
    card = json.loads((tmp_path / "predictor" / "models" / "predictor" / "predictor.json").read_text())
    assert "sequence_duplicates" in json.dumps(card)
    rules = ("--split-on", "sequence_duplicates,shannon_coding_length", "--quantiles", "0.5")
    memtax(hub, cache, "search", data, *rules, "--resamples", "50", "--output", tmp_path / "search")
    assert read_summary(tmp_path / "search", "search")["partitions"] == 2
    memtax(hub, cache, "predict", tmp_path / "predictor", data, "--output", tmp_path / "scored")
    probabilities = read_table(tmp_path / "scored", "predictions").column("memorized_probability").to_numpy()
    assert len(probabilities) == ROWS
    assert np.isfinite(probabilities).all()
    rng = np.random.default_rng(0)
    # The target was drawn with more duplicates, more memorized: so must the prediction rise.
    assert np.corrcoef(probabilities, rng.integers(1, 30, ROWS))[0, 1] > 0.5
